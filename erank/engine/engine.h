// Many requests in, completions out: packed prefill, batched decode, shared prefixes, sampling, and
// the probabilities of given continuations. The engine knows ids alone, never text.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "erank/base/ids.h"
#include "erank/engine/sampler.h"

namespace erank::model {
class Network;
class WeightSource;
}  // namespace erank::model

namespace erank::engine {

using base::Ids;

// What a watcher says after each new token.
struct Verdict {
  bool stop = false;
  int keep = -1;      // when stopping: how many of the new tokens stay; -1: all
  bool force = true;  // when stopping: append the request's answer prefix
};

struct Request {
  Ids prompt = {};         // not empty
  int max_new_tokens = 0;  // 0: straight to the answer prefix
  Sampling sampling = {};
  std::vector<int32_t> stop_ids = {};  // end the generation; not kept among the new tokens
  // Called on the thread that calls step(), after each new token but a stop id, with the sample's
  // number and all its new tokens. May be empty; may submit and cancel. If it throws, this sample
  // fails with that exception and the others go on.
  std::function<Verdict(int sample, std::span<const int32_t> new_tokens)> watch = {};
  // The answer prefix (the end of the reasoning and the opening of the answer), which
  // forces the model to give one: appended when the generation has ended by a stop id, the budget,
  // a full context, or a verdict that says so.
  Ids answer_prefix = {};
  // Continuations whose probabilities are read after the answer prefix (without one: after the last
  // kept token). Each is one or two ids long (an answer such as "10" is two); those that share a
  // first token are read in one extra position, and the first such position costs no extra pass.
  std::vector<Ids> choices = {};
  // Independent samples of the same prompt, which is computed once. Sample i draws with
  // sample_seed(sampling.seed, i).
  int num_samples = 1;
  bool log_probs = false;  // of the new tokens: Completion::log_probs
};

enum class Finish {
  kStopped,    // the model wrote a stop id
  kWatched,    // the watcher stopped it
  kBudget,     // max_new_tokens reached
  kContext,    // only the answer prefix and a choice still fit the model's context
  kCancelled,  // by Engine::cancel: the rest is what there was by then
};

// What became of one sample.
struct Completion {
  int sample = 0;
  Ids new_tokens;  // what the model wrote and was kept (no stop id, no answer prefix)
  Finish finish = Finish::kBudget;
  int32_t stop_id = -1;  // with kStopped
  bool forced = false;   // the answer prefix was appended
  // With Request::log_probs, one a new token, with kStopped one more for the stop id: its natural
  // log-probability over the full vocabulary at temperature 1, and at the request's (0 when that is
  // 0).
  struct LogProb {
    double at_one = 0, at_temperature = 0;
  };
  std::vector<LogProb> log_probs;
  // One a choice: its probability at temperature 1 over the full vocabulary, the product of its
  // tokens'; and whether its last token is the most probable of all at its position.
  std::vector<double> p_choices;
  std::vector<bool> last_is_argmax;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, found in the cache instead of computed
  std::exception_ptr fault;   // set: nothing but `sample` is; Error when it can never fit
};

struct EngineOptions {
  // The most that keys and values take; less is there when max_sequences full contexts need less.
  // 0: 2 GiB. Raise it for many long answers at once.
  int64_t kv_cache_bytes = 0;
  // Of it, what holds prefixes that no request uses at the moment, before they are given up rather
  // than memory that was never used. Raise it when prefixes come again after long.
  int64_t unused_prefix_bytes = int64_t{128} << 20;
  int64_t max_batch_tokens = 0;  // tokens a forward pass; 0: the network's usual
  int64_t max_sequences = 256;   // samples in flight
  bool share_prefixes = true;    // off only to measure what it brings
};

struct EngineStats {
  int64_t steps = 0;
  int64_t computed_tokens = 0;                              // tokens that went through the network
  int64_t cached_tokens = 0;                                // prompt tokens that did not have to
  int64_t new_tokens = 0;                                   // sampled
  int64_t num_waiting = 0, num_running = 0;                 // samples now
  int64_t num_done = 0, num_failed = 0, num_cancelled = 0;  // samples handed on, by how they ended
  int64_t page_bytes = 0;
  int64_t pages = 0;          // the cache's limit
  int64_t pages_used = 0;     // by samples that run; the others are free, findable or not
  int64_t pages_touched = 0;  // used at some time: those for which the system has given memory
  int64_t evictions = 0;      // findable pages that others needed
};

// Owns its scheduler and cache, borrows the network. One thread only, the one that owns the
// network.
class Engine {
 public:
  // Throws Error{kExhausted} when kv_cache_bytes does not hold one page, or memory is short, and
  // Error{kInvalidInput} for an option outside its range.
  Engine(model::Network& network, const EngineOptions& options);
  ~Engine();  // requests in flight are dropped without a completion
  Engine(const Engine&) = delete;

  using OnDone = std::function<void(Completion)>;
  // Queues a request and returns its number; `on_done` is called from step() exactly once a sample
  // and may submit and cancel. Requests start in the order of submission. Never throws for a bad
  // request: its completions carry the fault (Error{kExhausted} when prompt + budget can never fit
  // the cache, Error{kInvalidInput} for an empty prompt, an id outside the vocabulary, a prompt
  // that with answer prefix and choices exceeds the model's context, a field out of range, or a
  // choice of no or three ids).
  int64_t submit(Request request, OnDone on_done);
  // Ends what is not done of a request before the next pass; step() hands on the completions with
  // Finish::kCancelled. Does nothing for a request that is done.
  void cancel(int64_t request);
  // One forward pass. False when there was nothing to do. A pass that fails (memory) fails the
  // samples that are running, not those that wait. An exception that `on_done` throws passes
  // through; what else is done is handed on in the next step.
  bool step();
  // step() until nothing is left.
  void run();
  // Loads the network anew and forgets all cached prefixes. REQUIRES: no request in flight, a
  // source of the same configuration. Throws as the source does.
  void weights_changed(const model::WeightSource& source);

  EngineStats stats() const;
  // Throws InternalError when the bookkeeping contradicts itself.
  void check_integrity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::engine
