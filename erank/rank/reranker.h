// Query and passages in, ranking out: the library's main interface.
//
//   auto reranker = erank::rank::Reranker::load({.model = "models/erank-135m"});
//   auto ranking = reranker->rank(
//       {.query = "why is the sky blue", .passages = {{"d1", "Rayleigh ..."}}});
//   for (const auto& r : ranking.results) use(r.docid, r.score, r.reasoning);
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "erank/base/progress.h"
#include "erank/engine/engine.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/ranking.h"

namespace erank::rank {

// Of the linear layers. auto: int8 on CPUs that multiply it, for models of which erank.json says
// that it keeps their rankings, and for int8 weights; else bf16 on a GPU and on CPUs that multiply
// bf16, else fp32. gguf: weights stay in the blocks that a GGUF file has them in.
enum class Precision { kAuto, kBf16, kInt8, kFp32, kGguf };

// Where a replica of the model computes.
struct Device {
  std::optional<int> gpu = {};  // its number; none: the CPU
};

struct RerankerOptions {
  std::string model;          // see find_checkpoint; "": the default model
  std::string adapter;        // another PEFT folder to merge; "": the checkpoint's own, if any
  std::string prompt_format;  // JSON {prefix, suffix, stop_ids} in place of the chat template; "":
                              // the template
  Precision precision = Precision::kAuto;  // fp32 to compare digits
  // A replica of the model on each: different GPUs, or the CPU, where several replicas have no use
  // but in tests. A request is scored by the replica that has the fewest pairs to score.
  std::vector<Device> devices = {Device{}};
  int threads = 0;  // of the CPU, divided among its replicas; 0: one a processor
  // The most that a replica's keys and values take; 0: 2 GiB, on a GPU most of the memory that is
  // free.
  int64_t kv_cache_bytes = 0;
  // Pairs that are queued or being scored (a document in windows is one); what goes over is
  // refused. 0: no limit. Lower it where many callers must not fill the memory with texts.
  int64_t max_queued_pairs = 65536;
  // What is set here is in place of the checkpoint's own.
  std::optional<int> max_query_tokens, max_document_tokens, max_think_tokens;  // each at least 1
  std::optional<text::Scale> scale;
  std::optional<Mode> mode;
  std::optional<ScoreKind> score;
  std::optional<std::string> instruction;
};

// What requests of a reranker fall back to, which is loaded of a checkpoint with these defaults.
CheckpointDefaults with_options(CheckpointDefaults defaults, const RerankerOptions& options);

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
  // Pairs of one queue are computed in the order of submission, of several queues up to 32 of each
  // in turn: so that a caller with few of them does not wait for another one with many.
  int64_t queue = 0;
};

// Called on a replica's thread, one at a time for all of them; must be quick, and must not wait for
// the reranker. What they throw ends their request alone: Ticket::get() throws it.
struct Callbacks {
  std::function<void(const PassageResult&)> on_result =
      {};                                            // each pair as it is done or has failed
  std::function<void(const Ranking&)> on_done = {};  // once, with the whole ranking
};

// A request on its way. Dropping it changes nothing for the request. One thread at a time; may
// outlive the reranker.
class Ticket {
 public:
  struct Job;
  Ticket() = default;
  explicit Ticket(std::shared_ptr<Job> job);

  // Waits, once. A pair that cannot be scored is in Ranking::failed.
  Ranking get();
  // Whether get() would not wait.
  bool wait_for(std::chrono::milliseconds time) const;
  // What is not scored yet, of the request or of one passage by its index, fails with kCancelled
  // and leaves the cache before the next pass. Thread-safe; does nothing for what is done.
  void cancel();
  void cancel(size_t passage);

 private:
  std::shared_ptr<Job> job_;
  std::future<Ranking> ranking_;
};

struct RerankerStats {
  int64_t queued_pairs = 0;  // queued or being scored
  // Why the reranker has stopped before its time: nothing is scored any more. "": it has not.
  std::string fault;
  engine::EngineStats engine;  // of all replicas together
};

// Every method is thread-safe. Each replica's engine has a thread of its own. A forward pass that
// fails fails the pairs that were in it; the reranker goes on. A mistake of ours outside a pass
// stops all replicas: all pairs fail, and stats() says why.
//
// On the CPU a result does not depend on the number of replicas, threads and requests beside it.
class Reranker {
 public:
  // Throws Error for a model that cannot be found, read or used for scoring.
  static std::unique_ptr<Reranker> load(const RerankerOptions& options,
                                        base::ProgressSink* progress = nullptr);
  ~Reranker();  // pairs that are not scored fail with kCancelled
  Reranker(const Reranker&) = delete;

  // Queues a request. Passages of a request share the query's prefix. Throws Error{kExhausted} when
  // max_queued_pairs are there already or the reranker has stopped, and Error{kInvalidInput} for
  // options outside their range and a blend without first-stage scores.
  Ticket submit(RankRequest request, Callbacks callbacks = {});
  // submit() and get().
  Ranking rank(RankRequest request);

  // What request options fall back to: the checkpoint's, or what RerankerOptions has in its place.
  const CheckpointDefaults& defaults() const;
  const std::string& model_name() const;
  std::string precision_name() const;  // "bf16", "int8", "fp32" or "gguf"
  RerankerStats stats() const;

 private:
  friend class Ticket;
  struct State;
  explicit Reranker(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace erank::rank
