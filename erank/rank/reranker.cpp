#include "erank/rank/reranker.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/base/threads.h"
#include "erank/engine/engine.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/rank/answer_watcher.h"
#include "erank/rank/fusion.h"
#include "erank/text/answer_parser.h"

namespace erank::rank {
namespace {

using base::ErrorKind;
using text::Ids;
using text::ScoreDistribution;

// The ids of "0".."9" and of 10 = "1" "0", in the order of ScoreDistribution: what the engine reads
// at the answer.
std::vector<Ids> answer_choices(const text::Tokenizer& tokenizer) {
  std::vector<Ids> choices;
  for (int value = 0; value <= 10; ++value) {
    choices.push_back(tokenizer.encode(std::to_string(value)));
    if (choices.back().size() != (value < 10 ? 1u : 2u))
      base::fail(ErrorKind::kInvalidInput, "model", "its tokenizer writes the answer ", value,
                 " as ", choices.back().size(), " tokens; expected one token for each digit");
  }
  return choices;
}

ScoreDistribution read_distribution(const engine::Completion& completion) {
  const auto& p = completion.p_choices;
  ERANK_CHECK(p.size() == 11);
  // p[10] = Pr("1") Pr("0"|"1").
  const double zero_after_one = p[1] > 0 ? p[10] / p[1] : 0.0;
  return ScoreDistribution::from_digits(std::span<const double, 10>(p.data(), 10), zero_after_one,
                                        completion.last_is_argmax[10]);
}

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

// A pair's draws depend on its ids alone, not on which other pairs are scored with it.
uint64_t pair_seed(uint64_t seed, const std::string& qid, const std::string& docid) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a over "qid\0docid"
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3ull; };
  for (const char c : qid) add(static_cast<unsigned char>(c));
  add(0);
  for (const char c : docid) add(static_cast<unsigned char>(c));
  return base::derived_seed(seed, hash);
}

// The engine's fault with the pair that it belongs to.
std::exception_ptr located(const std::exception_ptr& fault, const RankRequest& request,
                           const Passage& passage) {
  try {
    std::rethrow_exception(fault);
  } catch (const base::Error& e) {
    const bool too_long = e.kind() == ErrorKind::kInvalidInput;
    return std::make_exception_ptr(base::Error(
        e.kind(), base::str("[rerank] query ", request.qid, ", document ", passage.id, ": ",
                            e.what(), too_long ? ": --max-doc-tokens, --max-query-tokens" : "")));
  } catch (...) {
    return std::current_exception();
  }
}

double score_of(const PassageResult& r, ScoreKind kind) {
  switch (kind) {
    case ScoreKind::kPaper:
      return r.integer * r.probability;
    case ScoreKind::kExpected:
      return r.distribution.expected();
    case ScoreKind::kInteger:
      break;
  }
  return r.integer;
}

at::ScalarType choose_dtype(const RerankerOptions& options) {
  if (options.precision == Precision::kFp32) return at::kFloat;
  if (options.precision == Precision::kBf16) return at::kBFloat16;
  return model::usual_dtype(options.cuda ? at::kCUDA : at::kCPU);
}

// One request on its way: shared by the completions of its pairs.
struct Job {
  RankRequest request;
  Reranker::OnResult on_result;
  std::promise<Ranking> promise;
  std::vector<PassageResult> results;
  size_t num_left = 0;
  std::exception_ptr fault;
};

// A pair whose prompt is ready, waiting for the engine's thread.
struct Pair {
  std::shared_ptr<Job> job;
  size_t index = 0;
  engine::Request request;
  std::shared_ptr<AnswerWatcher> watcher;
};

}  // namespace

Ranking make_ranking(const std::string& qid, std::vector<PassageResult> results,
                     const ScoreOptions& options) {
  std::sort(results.begin(), results.end(),
            [](const PassageResult& a, const PassageResult& b) { return a.index < b.index; });
  if (options.hybrid_weight && !results.empty()) {
    if (!(*options.hybrid_weight >= 0 && *options.hybrid_weight <= 1))
      base::fail(ErrorKind::kInvalidInput, "hybrid", "weight ", *options.hybrid_weight,
                 ", expected 0 to 1");
    std::vector<double> first, own;
    for (const auto& r : results) {
      if (!r.first_stage_score)
        base::fail(
            ErrorKind::kInvalidInput, "hybrid", "query ", qid, ", document ", r.docid,
            ": no first-stage score to blend with; leave the blend away or give a run with scores");
      first.push_back(*r.first_stage_score);
      own.push_back(r.score);
    }
    const auto blended = blend_z_scores(first, own, *options.hybrid_weight);
    for (size_t i = 0; i < results.size(); ++i) results[i].score = blended[i];
  }
  std::stable_sort(
      results.begin(), results.end(),
      [](const PassageResult& a, const PassageResult& b) { return a.score > b.score; });
  return {qid, std::move(results)};
}

struct Reranker::State {
  Checkpoint checkpoint;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::unique_ptr<text::PromptFormat> format;
  std::vector<Ids> choices;
  at::ScalarType dtype = at::kFloat;

  mutable std::mutex mutex;
  std::condition_variable work;
  std::deque<Pair> queue;
  bool stopping = false;
  RerankerStats stats;
  std::thread thread;

  // Everything that holds a tensor lives and dies on the engine's thread.
  void run(const RerankerOptions& options, base::ProgressSink* progress, std::promise<void> ready) {
    std::unique_ptr<model::Decoder> decoder;
    std::unique_ptr<engine::Engine> engine;
    try {
      at::set_num_threads(options.threads > 0 ? options.threads : base::num_processors());
      const at::NoGradGuard no_grad;
      decoder = model::load_decoder(
          checkpoint.weights,
          {.dtype = dtype,
           .device = options.cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU),
           .deterministic = options.deterministic},
          progress);
      const std::string adapter =
          !options.adapter.empty() ? options.adapter : checkpoint.adapter.value_or("");
      if (!adapter.empty()) {
        model::load_lora(*decoder, adapter);
        model::merge_lora(*decoder);
      }
      engine = std::make_unique<engine::Engine>(
          *decoder, engine::EngineOptions{.kv_cache_bytes = options.kv_cache_bytes});
    } catch (...) {
      ready.set_exception(std::current_exception());
      return;
    }
    ready.set_value();
    serve(*engine);
  }

  void serve(engine::Engine& engine) {
    for (;;) {
      std::deque<Pair> arrived;
      {
        std::unique_lock lock(mutex);
        const auto& s = engine.stats();
        if (s.num_waiting + s.num_running == 0)
          work.wait(lock, [&] { return stopping || !queue.empty(); });
        if (stopping) break;
        arrived.swap(queue);
      }
      for (Pair& pair : arrived) {
        auto request = std::move(pair.request);
        engine.submit(std::move(request),
                      [this, &engine, pair = std::move(pair)](engine::Completion completion) {
                        note(engine.stats());
                        finish(*pair.job, pair.index, pair.watcher.get(), completion);
                      });
      }
      try {
        engine.step();
      } catch (...) {
        // A forward pass that fails leaves no request that could still be answered.
        fail_all(std::current_exception());
        break;
      }
    }
    fail_all(std::make_exception_ptr(
        base::Error(ErrorKind::kExhausted, "[rerank] the reranker has stopped")));
  }

  void note(const engine::EngineStats& s) {
    const std::lock_guard lock(mutex);
    stats = {s.computed_tokens, s.cached_tokens, s.new_tokens};
  }

  void fail_all(const std::exception_ptr& fault) {
    const std::lock_guard lock(mutex);
    stopping = true;
    for (auto& weak : jobs)
      if (const auto job = weak.lock(); job && job->num_left > 0) {
        job->num_left = 0;
        job->promise.set_exception(fault);
      }
    jobs.clear();
    queue.clear();
  }
  std::vector<std::weak_ptr<Job>> jobs;

  void finish(Job& job, size_t index, const AnswerWatcher* watcher,
              engine::Completion& completion) {
    if (job.num_left == 0) return;
    if (completion.fault) {
      if (!job.fault)
        job.fault = located(completion.fault, job.request, job.request.passages[index]);
    } else {
      PassageResult& r = job.results[index];
      r.distribution = read_distribution(completion);
      r.integer = r.distribution.greedy();
      r.probability = r.distribution.p[r.integer];
      r.score = score_of(r, *job.request.options.score);
      r.prompt_tokens = completion.prompt_tokens;
      r.cached_tokens = completion.cached_tokens;
      r.new_tokens = static_cast<int64_t>(completion.new_tokens.size());
      if (watcher) {
        r.reasoning = watcher->reasoning(completion.new_tokens.size());
        if (!watcher->answered()) {
          r.finish =
              completion.finish == engine::Finish::kContext ? Finish::kClipped : Finish::kForced;
          if (completion.finish == engine::Finish::kStopped) r.flags.push_back("unformatted");
        }
      }
      if (job.on_result) job.on_result(r);
    }
    if (--job.num_left > 0) return;
    try {
      if (job.fault) std::rethrow_exception(job.fault);
      job.promise.set_value(
          make_ranking(job.request.qid, std::move(job.results), job.request.options));
    } catch (...) {
      job.promise.set_exception(std::current_exception());
    }
  }
};

Reranker::Reranker(std::unique_ptr<State> state) : state_(std::move(state)) {}

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
  auto state = std::make_unique<State>();
  state->checkpoint = find_checkpoint(options.model);
  auto& defaults = state->checkpoint.defaults;
  if (options.max_query_tokens) defaults.prompt.max_query_tokens = *options.max_query_tokens;
  if (options.max_document_tokens)
    defaults.prompt.max_document_tokens = *options.max_document_tokens;
  state->tokenizer =
      std::make_unique<text::Tokenizer>(text::Tokenizer::load(state->checkpoint.weights));
  state->format = options.prompt_format.empty()
                      ? std::make_unique<text::PromptFormat>(*state->tokenizer, defaults.prompt)
                      : std::make_unique<text::PromptFormat>(*state->tokenizer, defaults.prompt,
                                                             options.prompt_format);
  state->choices = answer_choices(*state->tokenizer);
  state->dtype = choose_dtype(options);
  std::promise<void> ready;
  auto loaded = ready.get_future();
  State* raw = state.get();
  state->thread = std::thread([raw, options, progress, ready = std::move(ready)]() mutable {
    raw->run(options, progress, std::move(ready));
  });
  auto reranker = std::unique_ptr<Reranker>(new Reranker(std::move(state)));
  loaded.get();
  return reranker;
}

std::future<Ranking> Reranker::submit(RankRequest request, OnResult on_result) {
  State& s = *state_;
  const CheckpointDefaults& defaults = s.checkpoint.defaults;
  ScoreOptions& options = request.options;
  if (!options.instruction) options.instruction = defaults.instruction;
  if (!options.mode) options.mode = defaults.mode;
  if (!options.score) options.score = defaults.score;
  if (!options.max_think_tokens) options.max_think_tokens = defaults.max_think_tokens;

  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  job->on_result = std::move(on_result);
  auto future = job->promise.get_future();
  const auto& passages = job->request.passages;
  job->results.resize(passages.size());
  job->num_left = passages.size();
  if (passages.empty()) {
    job->promise.set_value({job->request.qid, {}});
    return future;
  }
  const bool think = *job->request.options.mode == Mode::kThink;
  std::vector<Pair> pairs;
  for (size_t i = 0; i < passages.size(); ++i) {
    const Passage& passage = passages[i];
    PassageResult& r = job->results[i];
    text::Prompt prompt =
        s.format->render(*job->request.options.instruction, job->request.query, passage.text);
    r.docid = passage.id;
    r.index = i;
    r.first_stage_score = passage.first_stage_score;
    if (prompt.query_truncated) r.flags.push_back("query_truncated");
    if (prompt.document_truncated) r.flags.push_back("document_truncated");
    if (passage.text.empty()) r.flags.push_back("empty_document");
    if (looks_binary(passage.text)) r.flags.push_back("binary_document");

    Pair pair{job, i, {}, nullptr};
    pair.request.prompt = std::move(prompt.ids);
    pair.request.choices = s.choices;
    if (think) {
      const Ids& open = s.format->think_open();
      pair.request.prompt.insert(pair.request.prompt.end(), open.begin(), open.end());
      pair.request.max_new_tokens = *job->request.options.max_think_tokens;
      pair.request.stop_ids = s.format->stop_ids();
      pair.request.closing = s.format->think_close();
      pair.request.sampling = {
          .temperature = job->request.options.temperature,
          .seed = pair_seed(job->request.options.seed, job->request.qid, passage.id)};
      pair.watcher = std::make_shared<AnswerWatcher>(*s.tokenizer);
      pair.request.watch = [watcher = pair.watcher](std::span<const int32_t> ids) {
        return (*watcher)(ids);
      };
    } else {
      pair.request.closing = s.format->direct_close();
    }
    pairs.push_back(std::move(pair));
  }
  {
    const std::lock_guard lock(s.mutex);
    if (s.stopping) base::fail(ErrorKind::kExhausted, "rerank", "the reranker has stopped");
    std::erase_if(s.jobs, [](const auto& weak) { return weak.expired(); });
    s.jobs.push_back(job);
    for (auto& pair : pairs) s.queue.push_back(std::move(pair));
  }
  s.work.notify_all();
  return future;
}

Ranking Reranker::rank(RankRequest request) { return submit(std::move(request)).get(); }

const CheckpointDefaults& Reranker::defaults() const { return state_->checkpoint.defaults; }
const std::string& Reranker::model_name() const { return state_->checkpoint.name; }
std::string Reranker::precision_name() const {
  return state_->dtype == at::kFloat ? "fp32" : "bf16";
}

RerankerStats Reranker::stats() const {
  const std::lock_guard lock(state_->mutex);
  return state_->stats;
}

}  // namespace erank::rank
