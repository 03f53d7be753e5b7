// Many requests in, completions out: packed prefill, batched decode, shared prefixes, sampling, and
// the probabilities of given continuations. The engine knows ids alone, never text.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace erank::model {
class Decoder;
}

namespace erank::engine {

using Ids = std::vector<int32_t>;

struct Sampling {
  double temperature = 0;  // 0: greedy (the lowest id of equals)
  double top_p = 1;        // keep the smallest set of tokens whose probability reaches it
  int top_k = 0;           // keep the k most probable tokens; 0: all
  uint64_t seed = 0;       // a request's draws depend on this alone, not on what runs beside it
};

// What a watcher says after each new token.
struct Verdict {
  bool stop = false;
  int keep = -1;      // when stopping: how many of the new tokens stay; -1: all
  bool close = true;  // when stopping: append the request's closing
};

struct Request {
  Ids prompt = {};         // not empty
  int max_new_tokens = 0;  // 0: straight to the closing
  Sampling sampling = {};
  std::vector<int32_t> stop_ids = {};  // end the generation; not kept among the new tokens
  // Called on the thread that calls step(), after each new token but a stop id, with all of them.
  // May be empty; may submit. If it throws, this request fails with that exception and the others
  // go on.
  std::function<Verdict(std::span<const int32_t> new_tokens)> watch = {};
  // Appended when the generation has ended: by a stop id, the budget, a full context, or a verdict
  // that says so.
  Ids closing = {};
  // Continuations whose probabilities are read behind the closing (without one: behind the last
  // kept token). Each is one or two ids long (an answer such as "10" is two); those that share a
  // first token are read in one extra position, and the first such position costs no extra pass.
  std::vector<Ids> choices = {};
};

enum class Finish {
  kStopped,  // the model wrote a stop id
  kWatched,  // the watcher stopped it
  kBudget,   // max_new_tokens reached
  kContext,  // only the closing and a choice still fit the model's context, before the budget
};

struct Completion {
  Ids new_tokens;  // what the model wrote and was kept (no stop id, no closing)
  Finish finish = Finish::kBudget;
  bool closed = false;  // a closing was appended
  // One a choice: its probability at temperature 1 over the full vocabulary, the product of its
  // tokens'.
  std::vector<double> p_choices;
  std::vector<bool>
      last_is_argmax;  // one a choice: its last token is the most probable of all at its position
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, found in the cache instead of computed
  std::exception_ptr fault;   // set: nothing else is; Error when the request can never fit
};

struct EngineOptions {
  // The most that keys and values take; less is allocated when max_sequences full contexts need
  // less. Raise it for many long thoughts at once.
  int64_t kv_cache_bytes = int64_t{2} << 30;
  int64_t max_batch_tokens = 2048;  // tokens a forward pass; more helps GPUs, costs memory
  int64_t max_sequences = 256;      // requests in flight
  bool share_prefixes = true;       // off only to measure what it brings
};

struct EngineStats {
  int64_t steps = 0;
  int64_t computed_tokens = 0;  // tokens that went through the network
  int64_t cached_tokens = 0;    // prompt tokens that did not have to
  int64_t new_tokens = 0;       // sampled
  int64_t num_waiting = 0, num_running = 0;
  int64_t kv_cache_bytes = 0;  // allocated (the system gives memory only to pages that were used)
};

// Owns its scheduler and cache, borrows the decoder. One thread only, the one that owns the
// decoder's tensors.
class Engine {
 public:
  // Throws Error{kExhausted} when kv_cache_bytes does not hold one page of 16 tokens, or memory is
  // short.
  Engine(model::Decoder& decoder, const EngineOptions& options);
  ~Engine();  // requests in flight are dropped without a completion
  Engine(const Engine&) = delete;

  using OnDone = std::function<void(Completion)>;
  // Queues a request; `on_done` is called from step() exactly once and may submit. Requests start
  // in the order of submission. Never throws for a bad request: its completion carries the fault
  // (Error{kExhausted} when prompt + budget can never fit the cache, Error{kInvalidInput} for an
  // empty prompt, an id outside the vocabulary, a prompt that with closing and choices exceeds the
  // model's context, a sampling field out of range, or a choice of no or three ids).
  void submit(Request request, OnDone on_done);
  // One forward pass. False when there was nothing to do. A pass that fails (memory) fails the
  // requests that are running, not those that wait. An exception that `on_done` throws passes
  // through; what else is done is handed on in the next step.
  bool step();
  // step() until nothing is left.
  void run();
  // The weights are not those the cache was computed with: forgets all cached prefixes.
  // REQUIRES: no request in flight.
  void weights_changed();

  const EngineStats& stats() const;
  // Throws InternalError when the bookkeeping contradicts itself.
  void check_integrity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::engine
