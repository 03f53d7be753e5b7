#include "erank/rank/reranker.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "erank/rank/answer_watcher.h"
#include "erank/rank/score_reader.h"

namespace erank::rank {

using base::ErrorKind;
using text::Ids;

// A request, shared by its ticket and the engine's thread, which alone changes what is not atomic
// once it is queued.
struct Ticket::Job {
  // What the engine is asked: a passage, or a window of one.
  struct Pair {
    engine::Request request;
    std::vector<std::shared_ptr<AnswerWatcher>> watchers;  // by sample; none in direct mode
    std::shared_ptr<std::map<int, PassageResult>> samples =
        std::make_shared<std::map<int, PassageResult>>();  // those that are done
    PassageResult blank;  // what is known of its passage before, and its window
  };

  RankRequest request;
  Callbacks callbacks;
  std::promise<Ranking> promise;
  std::vector<PassageResult> results;  // by passage, as far as its pairs are done
  std::vector<int> pairs_left;         // by passage, each sample counts; 0: its result is handed on
  size_t num_left = 0;                 // passages
  bool ended = false;                  // the promise is kept
  std::vector<Pair> pairs;             // until the engine has them
  std::vector<int64_t> numbers;        // of the engine's requests
  std::exception_ptr fault;            // what a callback threw
  std::atomic<bool> cancelled = false;
  std::function<void()> wake;  // the engine's thread, if there still is one
};

namespace {

using Job = Ticket::Job;

bool looks_binary(std::string_view text) {
  size_t odd = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == 0) return true;
    odd += c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f';
    odd +=
        text.substr(i, 3) == "\xef\xbf\xbd";  // the mark that readers put in place of broken UTF-8
  }
  return odd * 20 > text.size();
}

PassageError::Kind error_kind(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidInput:
      return PassageError::Kind::kTooLong;  // all else that the engine refuses we never ask
    case ErrorKind::kExhausted:
      return PassageError::Kind::kNoRoom;
    case ErrorKind::kCorrupt:
      return PassageError::Kind::kNotFinite;
    case ErrorKind::kNotFound:
      break;
  }
  return PassageError::Kind::kFailed;
}

std::string located(const RankRequest& request, size_t index, const std::string& what) {
  return base::str("[rerank] query ", request.qid, ", document ", request.passages[index].id, ": ",
                   what);
}

// The engine's fault as that of the pair that it belongs to.
PassageError error_of(const std::exception_ptr& fault, const RankRequest& request, size_t index) {
  try {
    std::rethrow_exception(fault);
  } catch (const base::Error& e) {
    const auto kind = error_kind(e.kind());
    const char* advice =
        kind == PassageError::Kind::kTooLong ? ": --instruction leaves no room" : "";
    return {kind, located(request, index, base::str(e.what(), advice))};
  } catch (const std::exception& e) {
    const std::string what = e.what();  // libtorch puts a backtrace after the first line
    return {PassageError::Kind::kFailed, located(request, index, what.substr(0, what.find('\n')))};
  } catch (...) {
    return {PassageError::Kind::kFailed, located(request, index, "unknown fault")};
  }
}

// Less room than this is no budget for a document, but what a long query has left over.
constexpr int64_t kFewestWindowTokens = 16;

model::Precision precision_of(const RerankerOptions& options, const Checkpoint& checkpoint,
                              const model::CheckpointSource& source) {
  switch (options.precision) {
    case Precision::kBf16:
      return model::Precision::kBf16;
    case Precision::kInt8:
      return model::Precision::kInt8;
    case Precision::kFp32:
      return model::Precision::kFp32;
    case Precision::kGguf:
      return model::Precision::kGguf;
    case Precision::kAuto:
      break;
  }
  const bool measured =
      checkpoint.defaults.int8 && options.adapter.empty() && model::int8_is_fast();
  if (!options.cuda && (measured || source.files().has_int8())) return model::Precision::kInt8;
  return model::usual_precision(options.cuda);
}

void check_blend(const RankRequest& request) {
  std::vector<PassageResult> results;
  for (const auto& passage : request.passages) {
    results.emplace_back().docid = passage.id;
    results.back().first_stage_score = passage.first_stage_score;
  }
  make_ranking(request.qid, std::move(results), request.options);
}

}  // namespace

struct Reranker::State {
  Checkpoint checkpoint;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::unique_ptr<text::PromptFormat> format;
  std::unique_ptr<ScoreReader> reader;
  RerankerOptions options;

  mutable std::mutex mutex;  // guards these
  std::condition_variable work;
  std::deque<std::shared_ptr<Job>> queue;
  bool stopping = false, cancels = false;
  int64_t num_pending = 0;  // pairs without an outcome
  std::string fault;        // as RerankerStats has it
  engine::EngineStats stats;

  std::vector<std::shared_ptr<Job>> active;  // the engine's thread's own: what is not done
  std::thread thread;
  model::Precision precision = model::Precision::kBf16;  // set before load() returns
  int64_t context = 0;                                   // likewise: tokens that the model reads

  // The network lives and dies on the engine's thread.
  void run(base::ProgressSink* progress, std::future<model::CheckpointSource> opening,
           std::promise<void> ready) {
    std::unique_ptr<model::Network> network;
    std::unique_ptr<engine::Engine> engine;
    try {
      const model::CheckpointSource source = opening.get();
      check_tokenizer(*tokenizer, source.config().vocab_size, checkpoint.weights);
      network = model::make_network(source,
                                    {.precision = precision_of(options, checkpoint, source),
                                     .cuda = options.cuda,
                                     .threads = options.threads},
                                    progress);
      engine = std::make_unique<engine::Engine>(
          *network, engine::EngineOptions{.kv_cache_bytes = options.kv_cache_bytes});
    } catch (...) {
      ready.set_exception(std::current_exception());
      return;
    }
    precision = network->precision();
    context = network->config().context();
    ready.set_value();
    std::string why = "the reranker has stopped";
    try {
      while (serve(*engine)) {
      }
    } catch (const std::exception& e) {  // a mistake of ours: nothing that it knows can be trusted
      why = base::str("the reranker has stopped: ", e.what());
      const std::lock_guard lock(mutex);
      fault = why;
    }
    fail_all(why);
  }

  // Takes what has come and makes one step. False: to stop.
  bool serve(engine::Engine& engine) {
    std::deque<std::shared_ptr<Job>> arrived;
    bool look_for_cancelled = false;
    {
      std::unique_lock lock(mutex);
      stats = engine.stats();
      if (stats.num_waiting + stats.num_running == 0)
        work.wait(lock, [&] { return stopping || cancels || !queue.empty(); });
      if (stopping) return false;
      arrived.swap(queue);
      look_for_cancelled = std::exchange(cancels, false);
    }
    for (auto& job : arrived) {
      active.push_back(job);
      start(engine, job);
    }
    if (look_for_cancelled)
      for (const auto& job : active)
        if (job->cancelled)
          for (const int64_t number : job->numbers) engine.cancel(number);
    engine.step();
    std::erase_if(active, [](const auto& job) { return job->num_left == 0; });
    return true;
  }

  void start(engine::Engine& engine, const std::shared_ptr<Job>& job) {
    if (job->pairs.empty()) return end(*job);
    if (job->cancelled) return fail_rest(*job, "cancelled");
    for (auto& pair : job->pairs) {
      auto request = std::move(pair.request);
      job->numbers.push_back(engine.submit(
          std::move(request),
          [this, &engine, job, pair = std::move(pair)](const engine::Completion& completion) {
            note(engine.stats());
            take(*job, pair, completion);
          }));
    }
    job->pairs = {};
  }

  void note(const engine::EngineStats& now) {
    const std::lock_guard lock(mutex);
    stats = now;
  }

  void take(Job& job, const Job::Pair& pair, const engine::Completion& completion) {
    const size_t index = pair.blank.index;
    if (job.pairs_left[index] == 0) return;
    PassageResult& result = job.results[index];
    const auto fail = [&](PassageError error) {
      result = pair.blank;
      result.window.reset();
      result.error = std::move(error);
    };
    if (completion.fault)
      fail(error_of(completion.fault, job.request, index));
    else if (completion.finish == engine::Finish::kCancelled)
      fail({PassageError::Kind::kCancelled, located(job.request, index, "cancelled")});
    else if (!result.error)
      keep_sample(job, pair, read(pair, completion, *job.request.options.score), completion.sample);
    if (job.pairs_left[index] == 1)
      hand_on(job, index);
    else
      --job.pairs_left[index];
  }

  PassageResult read(const Job::Pair& pair, const engine::Completion& completion,
                     ScoreKind kind) const {
    PassageResult r = pair.blank;
    r.distribution = reader->read(completion);
    r.integer = r.distribution.greedy();
    r.probability = r.distribution.p[r.integer];
    r.score = score_of(r.distribution, kind);
    if (1 - r.distribution.p_other < kLowAnswerMass) r.flags.push_back("low_answer_mass");
    r.prompt_tokens = completion.prompt_tokens;
    r.cached_tokens = completion.cached_tokens;
    r.new_tokens = static_cast<int64_t>(completion.new_tokens.size());
    if (!pair.watchers.empty()) {
      const AnswerWatcher& watcher = *pair.watchers.at(static_cast<size_t>(completion.sample));
      r.reasoning = watcher.reasoning(completion.new_tokens.size());
      if (!watcher.answered()) {
        r.finish =
            completion.finish == engine::Finish::kContext ? Finish::kClipped : Finish::kForced;
        if (completion.finish == engine::Finish::kStopped) r.flags.push_back("unformatted");
      }
    }
    return r;
  }

  // They are answered in any order.
  static void keep_sample(Job& job, const Job::Pair& pair, PassageResult answer, int sample) {
    pair.samples->emplace(sample, std::move(answer));
    if (std::ssize(*pair.samples) < job.request.options.samples) return;
    std::vector<PassageResult> all;
    for (auto& [number, one] : *pair.samples) all.push_back(std::move(one));
    keep_best(job.results[pair.blank.index], mean_of_samples(std::move(all)));
  }

  // Windows are answered in any order.
  static void keep_best(PassageResult& best, PassageResult answer) {
    const int64_t prompt = best.prompt_tokens + answer.prompt_tokens;
    const int64_t cached = best.cached_tokens + answer.cached_tokens;
    const int64_t written = best.new_tokens + answer.new_tokens;
    if (!best.window || answer.score > best.score ||
        (answer.score == best.score && answer.window->number < best.window->number))
      best = std::move(answer);
    best.prompt_tokens = prompt, best.cached_tokens = cached, best.new_tokens = written;
  }

  void hand_on(Job& job, size_t index) {
    job.pairs_left[index] = 0;
    {
      const std::lock_guard lock(mutex);
      --num_pending;
    }
    call_back(job, [&] {
      if (job.callbacks.on_result) job.callbacks.on_result(job.results[index]);
    });
    if (--job.num_left == 0) end(job);
  }

  // What a callback throws is its request's end: what is left is cancelled without further calls.
  void call_back(Job& job, const std::function<void()>& call) {
    if (job.fault) return;
    try {
      call();
    } catch (...) {
      job.fault = std::current_exception();
      job.cancelled = true;
      const std::lock_guard lock(mutex);
      cancels = true;
    }
  }

  void end(Job& job) {
    if (std::exchange(job.ended, true)) return;
    try {
      Ranking ranking = make_ranking(job.request.qid, std::move(job.results), job.request.options);
      call_back(job, [&] {
        if (job.callbacks.on_done) job.callbacks.on_done(ranking);
      });
      if (job.fault) std::rethrow_exception(job.fault);
      job.promise.set_value(std::move(ranking));
    } catch (...) {
      job.promise.set_exception(std::current_exception());
    }
  }

  void fail_rest(Job& job, const std::string& why) {
    for (size_t i = 0; i < job.pairs_left.size(); ++i) {
      if (job.pairs_left[i] == 0) continue;
      job.results[i].error = {PassageError::Kind::kCancelled, located(job.request, i, why)};
      hand_on(job, i);
    }
  }

  void fail_all(const std::string& why) {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
      active.insert(active.end(), queue.begin(), queue.end());
      queue.clear();
    }
    for (const auto& job : active) {
      if (job->pairs_left.empty())
        end(*job);
      else
        fail_rest(*job, why);
    }
    active.clear();
  }

  // Else Error{kExhausted}. REQUIRES: the mutex is held.
  void check_running() const {
    if (stopping)
      base::fail(ErrorKind::kExhausted, "rerank",
                 fault.empty() ? "the reranker has stopped" : fault);
  }

  // Room for `n` pairs, else Error{kExhausted}.
  void reserve(int64_t n) {
    const std::lock_guard lock(mutex);
    check_running();
    if (options.max_queued_pairs > 0 && num_pending + n > options.max_queued_pairs)
      base::fail(ErrorKind::kExhausted, "rerank", "a request of ", n, " pairs on top of ",
                 num_pending, " that are queued, expected at most ", options.max_queued_pairs,
                 " together; try again later or raise max_queued_pairs");
    num_pending += n;
  }

  std::shared_ptr<Job> render(RankRequest request) const;
};

Ticket::Ticket(std::shared_ptr<Job> job)
    : job_(std::move(job)), ranking_(job_->promise.get_future()) {}

Ranking Ticket::get() {
  ERANK_CHECK(ranking_.valid(), "a ticket gives its ranking once");
  return ranking_.get();
}

bool Ticket::wait_for(std::chrono::milliseconds time) const {
  return !ranking_.valid() || ranking_.wait_for(time) == std::future_status::ready;
}

void Ticket::cancel() {
  if (!job_) return;
  job_->cancelled = true;
  job_->wake();
}

Reranker::Reranker(std::shared_ptr<State> state) : state_(std::move(state)) {}

Reranker::~Reranker() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->work.notify_all();
  if (state_->thread.joinable()) state_->thread.join();
}

std::unique_ptr<Reranker> Reranker::load(const RerankerOptions& options,
                                         base::ProgressSink* progress) {
  auto state = std::make_shared<State>();
  state->options = options;
  state->checkpoint = find_checkpoint(options.model);
  CheckpointDefaults& defaults = state->checkpoint.defaults;
  auto& prompt = defaults.prompt;
  if (options.max_query_tokens) prompt.max_query_tokens = *options.max_query_tokens;
  if (options.max_document_tokens) prompt.max_document_tokens = *options.max_document_tokens;
  if (options.scale) prompt.scale = *options.scale;
  if (options.max_think_tokens) defaults.max_think_tokens = *options.max_think_tokens;
  if (options.mode) defaults.mode = *options.mode;
  if (options.score) defaults.score = *options.score;
  if (options.instruction) defaults.instruction = *options.instruction;
  // Beside the tokenizer, whose tables take as long.
  auto opening =
      std::async(std::launch::async,
                 [weights = state->checkpoint.weights,
                  adapter = !options.adapter.empty() ? options.adapter
                                                     : state->checkpoint.adapter.value_or("")] {
                   return model::CheckpointSource::open(weights, adapter);
                 });
  state->tokenizer =
      std::make_unique<text::Tokenizer>(text::Tokenizer::load(state->checkpoint.weights));
  state->format =
      options.prompt_format.empty()
          ? std::make_unique<text::PromptFormat>(*state->tokenizer, prompt)
          : std::make_unique<text::PromptFormat>(*state->tokenizer, prompt, options.prompt_format);
  state->reader = std::make_unique<ScoreReader>(*state->tokenizer, prompt.scale);
  std::promise<void> ready;
  auto loaded = ready.get_future();
  State* raw = state.get();
  state->thread = std::thread(
      [raw, progress, opening = std::move(opening), ready = std::move(ready)]() mutable {
        raw->run(progress, std::move(opening), std::move(ready));
      });
  auto reranker = std::unique_ptr<Reranker>(new Reranker(std::move(state)));
  loaded.get();
  return reranker;
}

std::shared_ptr<Job> Reranker::State::render(RankRequest request) const {
  ScoreOptions& o = request.options;
  const bool think = *o.mode == Mode::kThink;
  // The rest of the context is for what follows a prompt.
  constexpr int64_t kLongestAnswer = 2;
  int64_t max_prompt = context - kLongestAnswer;
  if (think)
    max_prompt -= std::ssize(format->think_open()) + std::ssize(format->think_close()) +
                  std::min<int64_t>(*o.max_think_tokens, context / 2);
  else
    max_prompt -= std::ssize(format->direct_close());
  auto job = std::make_shared<Job>();
  const auto add_pair = [&](Ids prompt, PassageResult blank) {
    const uint64_t seed = base::pair_seed(o.seed, request.qid, blank.docid);
    const int window = blank.window ? blank.window->number - 1 : 0;
    auto& pair = job->pairs.emplace_back();
    pair.blank = std::move(blank);
    auto& asked = pair.request;
    asked.prompt = std::move(prompt);
    asked.choices = reader->choices();
    if (!think) {
      asked.answer_prefix = format->direct_close();
      return;
    }
    const Ids& open = format->think_open();
    asked.prompt.insert(asked.prompt.end(), open.begin(), open.end());
    asked.max_new_tokens = *o.max_think_tokens;
    asked.stop_ids = format->stop_ids();
    asked.answer_prefix = format->think_close();
    asked.sampling = {.temperature = o.temperature,
                      .seed = window == 0 ? seed : base::derived_seed(seed, window)};
    asked.num_samples = o.samples;
    for (int sample = 0; sample < o.samples; ++sample)
      pair.watchers.push_back(std::make_shared<AnswerWatcher>(*tokenizer, format->options().scale));
    asked.watch = [watchers = pair.watchers](int sample, std::span<const int32_t> ids) {
      return (*watchers[static_cast<size_t>(sample)])(ids);
    };
  };
  for (size_t i = 0; i < request.passages.size(); ++i) {
    const Passage& passage = request.passages[i];
    text::Prompt prompt = format->render(*o.instruction, request.query, passage.text, max_prompt);
    PassageResult& r = job->results.emplace_back();
    r.docid = passage.id;
    r.index = i;
    r.first_stage_score = passage.first_stage_score;
    text::Windows windows;
    if (prompt.document_truncated && o.long_documents == LongDocuments::kWindows &&
        prompt.document_tokens >= kFewestWindowTokens)
      windows =
          format->windows(passage.text, static_cast<int>(prompt.document_tokens), o.max_windows);
    const int count = static_cast<int>(windows.windows.size());
    std::vector<text::Prompt> prompts;
    bool truncated = count == 0 ? prompt.document_truncated : !windows.complete;
    for (const text::Window& window : windows.windows) {
      prompts.push_back(format->render(*o.instruction, request.query, window.text, max_prompt));
      truncated |= prompts.back().document_truncated;
    }
    if (prompt.query_truncated) r.flags.push_back("query_truncated");
    if (truncated) r.flags.push_back("document_truncated");
    if (passage.text.empty()) r.flags.push_back("empty_document");
    if (looks_binary(passage.text)) r.flags.push_back("binary_document");
    job->pairs_left.push_back(std::max(1, count) * o.samples);
    if (count == 0) add_pair(std::move(prompt.ids), r);
    for (int w = 0; w < count; ++w) {
      PassageResult blank = r;
      blank.window = {w + 1, count, windows.windows[w].begin, windows.windows[w].end};
      add_pair(std::move(prompts[w].ids), std::move(blank));
    }
  }
  job->num_left = job->results.size();
  // The texts are not needed any more, and a queue may hold many.
  for (auto& passage : request.passages) passage.text = {};
  job->request = std::move(request);
  return job;
}

Ticket Reranker::submit(RankRequest request, Callbacks callbacks) {
  State& s = *state_;
  const CheckpointDefaults& defaults = s.checkpoint.defaults;
  ScoreOptions& options = request.options;
  if (!options.instruction) options.instruction = defaults.instruction;
  if (!options.mode) options.mode = defaults.mode;
  if (!options.score) options.score = defaults.score;
  if (!options.max_think_tokens) options.max_think_tokens = defaults.max_think_tokens;
  if (*options.max_think_tokens < 1)
    base::fail(ErrorKind::kInvalidInput, "rerank", "max_think_tokens is ",
               *options.max_think_tokens, ", expected 1 or more");
  if (options.max_windows < 1)
    base::fail(ErrorKind::kInvalidInput, "rerank", "max_windows is ", options.max_windows,
               ", expected 1 or more");
  engine::check({.temperature = options.temperature});
  if (options.samples < 1 ||
      (options.samples > 1 && (*options.mode != Mode::kThink || options.temperature <= 0)))
    base::fail(ErrorKind::kInvalidInput, "rerank", "samples is ", options.samples,
               options.samples < 1 ? ", expected 1 or more"
                                   : "; more than one need reasoning and a temperature above 0");
  if (options.hybrid_weight) check_blend(request);

  const auto num_pairs = static_cast<int64_t>(request.passages.size());
  s.reserve(num_pairs);
  std::shared_ptr<Job> job;
  try {
    job = s.render(std::move(request));
  } catch (...) {
    const std::lock_guard lock(s.mutex);
    s.num_pending -= num_pairs;
    throw;
  }
  job->callbacks = std::move(callbacks);
  job->wake = [weak = std::weak_ptr<State>(state_)] {
    const auto state = weak.lock();
    if (!state) return;
    {
      const std::lock_guard lock(state->mutex);
      state->cancels = true;
    }
    state->work.notify_all();
  };
  Ticket ticket(job);
  {
    const std::lock_guard lock(s.mutex);
    s.check_running();
    s.queue.push_back(std::move(job));
  }
  s.work.notify_all();
  return ticket;
}

Ranking Reranker::rank(RankRequest request) { return submit(std::move(request)).get(); }

const CheckpointDefaults& Reranker::defaults() const { return state_->checkpoint.defaults; }
const std::string& Reranker::model_name() const { return state_->checkpoint.name; }
std::string Reranker::precision_name() const { return model::precision_name(state_->precision); }

RerankerStats Reranker::stats() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->num_pending, state_->fault, state_->stats};
}

}  // namespace erank::rank
