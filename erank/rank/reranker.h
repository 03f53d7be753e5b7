// Query and passages in, ranking out: the product.
//
//   auto reranker = erank::rank::Reranker::load({.model = "models/erank-135m"});
//   auto ranking = reranker->rank({.query = "why is the sky blue", .passages = {{"d1", "Rayleigh
//   ..."}}}); for (const auto& r : ranking.results) use(r.docid, r.score, r.reasoning);
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "erank/base/progress.h"
#include "erank/rank/checkpoint.h"
#include "erank/text/score_distribution.h"

namespace erank::rank {

enum class Precision {
  kAuto,
  kFp32,
  kBf16
};  // auto: bf16 on a GPU and on CPUs that multiply bf16, else fp32

struct RerankerOptions {
  std::string model;          // see find_checkpoint; "": the default model
  std::string adapter;        // another PEFT folder to merge; "": the checkpoint's own, if any
  std::string prompt_format;  // JSON {prefix, suffix, stop_ids} in place of the chat template; "":
                              // the template
  Precision precision = Precision::kAuto;  // fp32 to compare digits
  bool deterministic = false;  // the same bits alone or batched, cache cold or warm; slower
  bool cuda = false;           // run on the first GPU
  int threads = 0;             // 0: one a processor
  int64_t kv_cache_bytes = int64_t{2} << 30;
  std::optional<int> max_query_tokens;  // else the checkpoint's own
  std::optional<int> max_document_tokens;
};

// How one pair is scored. What is not set takes the checkpoint's default.
struct ScoreOptions {
  std::optional<std::string> instruction = {};
  std::optional<Mode> mode = {};
  std::optional<ScoreKind> score = {};
  std::optional<int> max_think_tokens = {};
  double temperature = 0;  // of the thought; 0: greedy
  uint64_t seed = 0;       // of the thought's draws
  // Weight of the first stage in w z(first stage) + (1 - w) z(model); not set: the model's score
  // alone.
  std::optional<double> hybrid_weight = {};
};

struct Passage {
  std::string id;
  std::string text;
  std::optional<double> first_stage_score;  // REQUIRED of every passage with hybrid_weight
};

struct RankRequest {
  std::string qid = "1";
  std::string query;
  std::vector<Passage> passages;  // in first-stage order, which breaks ties
  ScoreOptions options;
};

enum class Finish {
  kAnswered,  // the model gave its answer (in direct mode it is always asked for at once)
  kForced,    // the thought ended without an answer or ran over its budget, and was closed
  kClipped,   // the model's context was full before the budget, and the thought was closed there
};

struct PassageResult {
  std::string docid;
  size_t index = 0;        // in RankRequest::passages
  double score = 0;        // by ScoreOptions::score; in a Ranking with hybrid_weight: the blend
  int integer = 0;         // 0..10: what greedy decoding answers
  double probability = 0;  // Pr(integer)
  text::ScoreDistribution distribution;
  std::optional<double> first_stage_score;
  std::string reasoning;  // the thought; "" in direct mode
  Finish finish = Finish::kAnswered;
  // "query_truncated", "document_truncated", "empty_document", "binary_document" (control
  // characters or broken text), "unformatted" (the model ended without a readable answer).
  std::vector<std::string> flags;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, shared with others instead of computed
  int64_t new_tokens = 0;
};

struct Ranking {
  std::string qid;
  std::vector<PassageResult> results;  // best first
};

// Blends (when `options.hybrid_weight` is set) and sorts the results of one query, ties in order of
// index. Pure: what Reranker does last, and what a resumed job does with results it has from
// before. Throws Error{kInvalidInput} when a blend is asked for and a first-stage score is missing.
Ranking make_ranking(const std::string& qid, std::vector<PassageResult> results,
                     const ScoreOptions& options);

struct RerankerStats {
  int64_t computed_tokens = 0;  // that went through the network
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
};

// Every method is thread-safe. One thread of its own runs the engine.
class Reranker {
 public:
  // Throws Error for a model that cannot be found, read or used for scoring.
  static std::unique_ptr<Reranker> load(const RerankerOptions& options,
                                        base::ProgressSink* progress = nullptr);
  ~Reranker();
  Reranker(const Reranker&) = delete;

  // Called for each pair as it is done, on the engine's thread; must be quick and must not throw.
  using OnResult = std::function<void(const PassageResult&)>;
  // Queues a request. The future gives the ranking, or throws Error when a pair cannot be scored (a
  // prompt that does not fit the model's context or the cache). Passages of a request share the
  // query's prefix.
  std::future<Ranking> submit(RankRequest request, OnResult on_result = {});
  // submit() and wait.
  Ranking rank(RankRequest request);

  // What request options fall back to, with the budgets of RerankerOptions applied.
  const CheckpointDefaults& defaults() const;
  const std::string& model_name() const;
  std::string precision_name() const;  // "bf16" or "fp32"
  RerankerStats stats() const;

 private:
  struct State;
  explicit Reranker(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace erank::rank
