#include "erank/rank/reranker.h"

#include <algorithm>
#include <future>
#include <mutex>
#include <set>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/base/threads.h"
#include "erank/engine/cache_need.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "erank/rank/answer_watcher.h"
#include "erank/rank/replica.h"
#include "erank/rank/score_reader.h"

namespace erank::rank {

using base::ErrorKind;
using text::Ids;

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
  const bool gpu = options.devices.front().gpu.has_value();
  if (!gpu && (measured || source.files().has_int8())) return model::Precision::kInt8;
  return model::usual_precision(gpu);
}

void check_devices(const std::vector<Device>& devices) {
  std::set<int> gpus;
  const auto fail = [](const auto&... parts) {
    base::fail(ErrorKind::kInvalidInput, "rerank", parts...);
  };
  if (devices.empty()) fail("no device, expected at least one");
  for (const Device& device : devices) {
    if (device.gpu.has_value() != devices[0].gpu.has_value())
      fail("both the CPU and a GPU as devices, expected one kind");
    if (device.gpu && !gpus.insert(*device.gpu).second)
      fail("GPU ", *device.gpu, " twice, expected different ones");
  }
  for (const int gpu : gpus) model::check_gpu(gpu);
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
  Replica::Loaded loaded = {};  // the same of every replica; set before load() returns
  ReplicaGroup group;
  std::vector<std::unique_ptr<Replica>> replicas;  // use the reader and the group

  void start(std::shared_ptr<const model::CheckpointSource> source, base::ProgressSink* progress);
  std::shared_ptr<Job> render(RankRequest request) const;

  // Else Error{kExhausted}. REQUIRES: the mutex is held.
  void check_running() const {
    if (group.stopping)
      base::fail(ErrorKind::kExhausted, "rerank",
                 group.fault.empty() ? "the reranker has stopped" : group.fault);
  }

  // Room for `n` pairs, else Error{kExhausted}.
  void reserve(int64_t n) {
    const std::lock_guard lock(group.mutex);
    check_running();
    const int64_t pending = group.num_pending;
    if (options.max_queued_pairs > 0 && pending + n > options.max_queued_pairs)
      base::fail(ErrorKind::kExhausted, "rerank", "a request of ", n, " pairs on top of ", pending,
                 " that are queued, expected at most ", options.max_queued_pairs,
                 " together; try again later or raise max_queued_pairs");
    group.num_pending += n;
  }
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
  if (job_) job_->cancel(std::nullopt);
}

void Ticket::cancel(size_t passage) {
  if (job_) job_->cancel(passage);
}

Reranker::Reranker(std::shared_ptr<State> state) : state_(std::move(state)) {}

Reranker::~Reranker() {
  {
    const std::lock_guard lock(state_->group.mutex);
    state_->group.stopping = true;
  }
  state_->group.work.notify_all();
  state_->replicas.clear();
}

// Each replica reads the source's files for itself, all at the same time.
void Reranker::State::start(std::shared_ptr<const model::CheckpointSource> source,
                            base::ProgressSink* progress) {
  const int num = static_cast<int>(options.devices.size());
  const int threads = options.threads > 0 ? options.threads : base::num_processors();
  const model::Precision precision = precision_of(options, checkpoint, *source);
  std::vector<std::future<Replica::Loaded>> loading;
  for (const Device& device : options.devices) {
    model::NetworkOptions network{
        .precision = precision,
        .gpu = device.gpu,
        .threads = std::max(1, threads / num),
        .cache_bytes = [config = source->config(), limit = options.kv_cache_bytes](
                           int64_t page_bytes, int64_t pass_tokens) {
          return engine::cache_need(config, page_bytes, pass_tokens, limit).direct;
        }};
    replicas.push_back(std::make_unique<Replica>(group, *reader));
    loading.push_back(replicas.back()->start(
        [source, network, told = std::exchange(progress, nullptr)] {
          return model::make_network(*source, network, told);
        },
        {.kv_cache_bytes = options.kv_cache_bytes}));
  }
  source.reset();
  for (auto& one : loading) loaded = one.get();
}

CheckpointDefaults with_options(CheckpointDefaults defaults, const RerankerOptions& options) {
  auto& prompt = defaults.prompt;
  if (options.max_query_tokens) prompt.max_query_tokens = *options.max_query_tokens;
  if (options.max_document_tokens) prompt.max_document_tokens = *options.max_document_tokens;
  if (options.scale) prompt.scale = *options.scale;
  if (options.max_think_tokens) defaults.max_think_tokens = *options.max_think_tokens;
  if (options.mode) defaults.mode = *options.mode;
  if (options.score) defaults.score = *options.score;
  if (options.instruction) defaults.instruction = *options.instruction;
  return defaults;
}

std::unique_ptr<Reranker> Reranker::load(const RerankerOptions& options,
                                         base::ProgressSink* progress) {
  check_devices(options.devices);
  auto state = std::make_shared<State>();
  state->options = options;
  state->checkpoint = find_checkpoint(options.model);
  state->checkpoint.defaults = with_options(state->checkpoint.defaults, options);
  const auto& prompt = state->checkpoint.defaults.prompt;
  const std::string adapter =
      !options.adapter.empty() ? options.adapter : state->checkpoint.adapter.value_or("");
  // Beside the tokenizer, whose tables take as long.
  auto opening = std::async(std::launch::async, [weights = state->checkpoint.weights, adapter] {
    return model::CheckpointSource::open(weights, adapter);
  });
  state->tokenizer =
      std::make_unique<text::Tokenizer>(text::Tokenizer::load(state->checkpoint.weights, adapter));
  state->format =
      options.prompt_format.empty()
          ? std::make_unique<text::PromptFormat>(*state->tokenizer, prompt)
          : std::make_unique<text::PromptFormat>(*state->tokenizer, prompt, options.prompt_format);
  state->reader = std::make_unique<ScoreReader>(*state->tokenizer, prompt.scale);
  auto source = std::make_shared<const model::CheckpointSource>(opening.get());
  check_tokenizer(*state->tokenizer, source->config().vocab_size);
  auto reranker = std::unique_ptr<Reranker>(new Reranker(state));
  state->start(std::move(source), progress);
  return reranker;
}

std::shared_ptr<Job> Reranker::State::render(RankRequest request) const {
  ScoreOptions& o = request.options;
  const bool think = *o.mode == Mode::kThink;
  // The rest of the context is for what follows a prompt.
  constexpr int64_t kLongestAnswer = 2;
  const int64_t context = loaded.context;
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
    asked.queue = request.queue;
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
    const std::lock_guard lock(s.group.mutex);
    s.group.num_pending -= num_pairs;
    throw;
  }
  job->callbacks = std::move(callbacks);
  Ticket ticket(job);
  {
    const std::lock_guard lock(s.group.mutex);
    s.check_running();
    Replica& idlest = **std::min_element(
        s.replicas.begin(), s.replicas.end(),
        [](const auto& a, const auto& b) { return a->num_pending() < b->num_pending(); });
    job->cancel = [weak = std::weak_ptr<State>(state_), &idlest, job = job.get()](auto passage) {
      const auto state = weak.lock();
      if (!state) return;
      {
        const std::lock_guard lock(state->group.mutex);
        // A reranker that is going has no replicas, and nothing that could be cancelled.
        if (!state->group.stopping) idlest.cancel(job->shared_from_this(), passage);
      }
      state->group.work.notify_all();
    };
    idlest.add(std::move(job));
  }
  s.group.work.notify_all();
  return ticket;
}

Ranking Reranker::rank(RankRequest request) { return submit(std::move(request)).get(); }

const CheckpointDefaults& Reranker::defaults() const { return state_->checkpoint.defaults; }
const std::string& Reranker::model_name() const { return state_->checkpoint.name; }
std::string Reranker::precision_name() const {
  return model::precision_name(state_->loaded.precision);
}

RerankerStats Reranker::stats() const {
  const std::lock_guard lock(state_->group.mutex);
  RerankerStats stats{state_->group.num_pending, state_->group.fault, {}};
  for (const auto& replica : state_->replicas) stats.engine += replica->stats();
  return stats;
}

}  // namespace erank::rank
