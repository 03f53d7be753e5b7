// One pass of training as integers: sequences, and which precede which.
#pragma once

#include <cstdint>
#include <vector>

namespace erank::train {

// T tokens of B sequences, packed one after another. A sequence sees its own tokens and those of
// its ancestors, so that what prompts share is computed once.
struct TreeBatch {
  std::vector<int32_t> tokens;     // [T]
  std::vector<int32_t> positions;  // [T] 0 = the first token of a sequence without a parent
  std::vector<int32_t> starts;     // [B + 1] sequence b's tokens are [starts[b], starts[b + 1])
  // [B] parents[b] < b is the sequence whose tokens (after its own parents') precede sequence
  // b's, or -1. Empty: no sequence has one.
  std::vector<int32_t> parents;
  std::vector<int32_t> rows;  // [R] which of the T tokens' logits are asked, ascending

  int32_t parent(int32_t b) const { return parents.empty() ? -1 : parents[b]; }
  // Checks sizes, bounds and positions; throws InternalError. `vocab_size`, `context`: bounds of
  // ids and positions.
  void check(int64_t vocab_size, int64_t context) const;
};

}  // namespace erank::train
