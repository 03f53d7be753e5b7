// Many requests in, completions out: packed prefill, batched decode, shared prefixes, sampling, and
// the probabilities of given continuations. The engine knows ids alone, never text.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "erank/engine/request.h"

namespace erank::model {
class Network;
class WeightSource;
}  // namespace erank::model

namespace erank::engine {

struct EngineOptions {
  // The most that keys and values take; less is there when max_sequences full contexts need less.
  // 0: the network's usual, 2 GiB on the CPU. Raise it for many long answers at once.
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
  // Of the steps those with so many sequences or tokens: [i] at most 2^i and more than 2^(i - 1),
  // the last one any number above.
  using BySize = std::array<int64_t, 16>;
  BySize steps_by_sequences = {}, steps_by_tokens = {};
  int64_t step_sequences = 0;                               // their sum over all steps
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

  // Adds another engine's, of the same model.
  EngineStats& operator+=(const EngineStats& other);
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

  // Queues a request and returns its number; `on_done` is called from step() exactly once a sample
  // and may submit and cancel. Those of one queue start in the order of submission. Never throws
  // for a bad request: its completions carry the fault (Error{kExhausted} when prompt + budget can
  // never fit the cache, Error{kInvalidInput} for an empty prompt, an id outside the vocabulary, a
  // prompt that with answer prefix and choices exceeds the model's context, a field out of range,
  // or a choice of no or three ids).
  int64_t submit(Request request, OnDone on_done);
  // Ends what is not done of a request before the next pass; step() hands on the completions with
  // Finish::kCancelled. Does nothing for a request that is done.
  void cancel(int64_t request);
  // One forward pass. False when there was nothing to do. After a pass that finds no memory, what
  // runs is computed again in smaller passes; only samples in a pass of a page's tokens or fewer
  // fail with its Error{kExhausted}. A pass that fails otherwise fails the samples that are
  // running, not those that wait. An exception that `on_done` throws passes through; what else is
  // done is handed on in the next step.
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
