// What a server counts, in Prometheus' text format 0.0.4. No label takes a value that a client
// chooses.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "erank/serve/access.h"

namespace erank::serve {

// The engine's figures, read when somebody asks for the metrics. Counts are since the start.
struct EngineFigures {
  bool ready = false;  // false: the rest is not there yet
  int64_t waiting_calls = 0, running_calls = 0;
  int64_t queued_pairs = 0, max_queued_pairs = 0;
  int64_t cached_results = 0;
  int64_t running = 0, waiting = 0;  // sequences in the engine
  int64_t passes = 0;                // forward passes
  // Passes by their sequences and tokens: [i] at most 2^i and more than 2^(i - 1), the last one any
  // number above; and the sum of their sequences.
  std::array<int64_t, 16> passes_by_sequences = {}, passes_by_tokens = {};
  int64_t pass_sequences = 0;
  int64_t computed_tokens = 0;  // that went through the network
  int64_t reused_tokens = 0;    // of prompts, whose keys and values were there already
  int64_t new_tokens = 0;       // written by the model
  int64_t scored_pairs = 0, failed_pairs = 0, cancelled_pairs = 0;
  int64_t cache_pages = 0, cache_pages_used = 0;
};

// Thread-safe.
class Metrics {
 public:
  // `routes`: the paths that get a label of their own; every other one is "other".
  Metrics(std::vector<std::string> routes, std::function<EngineFigures()> engine);
  ~Metrics();
  Metrics(const Metrics&) = delete;

  // A request whose reply is complete.
  void add(const AccessRecord& record);
  // A call that was read and has ended. `first_seconds`: until its first pair had a score, 0 when
  // none had.
  void add_call(int64_t pairs, double first_seconds);
  // The tokens of reasoning that were written for one pair, in thinking mode.
  void add_reasoning(int64_t tokens);
  // The result of one pair came from the cache (hit) or had to be computed.
  void add_cache_lookup(bool hit);

  // The body of /metrics.
  std::string text() const;
  static constexpr const char* kType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::serve
