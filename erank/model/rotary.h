// The angles of rotary position embedding (RoFormer, arXiv 2104.09864) and their scaling for long
// texts, in fp32 as transformers computes them (modeling_rope_utils.py).
#pragma once

#include <cstdint>
#include <vector>

#include "erank/model/config.h"

namespace erank::model {

struct RotaryFrequencies {
  std::vector<float> inverse;  // [D / 2] radians a position
  float attention_factor = 1;  // what cosines and sines are multiplied by
};

// For sequences of `length` positions at most: dynamic takes a larger base when that exceeds
// max_position_embeddings, longrope its long factors when it exceeds the original length; the other
// kinds do not depend on it. yarn: arXiv 2309.00071, longrope: arXiv 2402.13753.
RotaryFrequencies rotary_frequencies(const ModelConfig& config, int64_t length);

// Those for config.context(): one table serves every sequence. Grows as far as it is used: a
// configuration may allow millions of positions. Not thread-safe.
class RotaryTable {
 public:
  explicit RotaryTable(const ModelConfig& config);

  // Makes rows for positions 0 .. position at least. Returns whether it grew.
  bool reach(int64_t position);
  int64_t num_positions() const { return num_positions_; }
  const std::vector<float>& cos() const { return cos_; }  // [num_positions, D / 2]
  const std::vector<float>& sin() const { return sin_; }

 private:
  int64_t max_positions_, num_positions_ = 0;
  RotaryFrequencies frequencies_;
  std::vector<float> cos_, sin_;
};

}  // namespace erank::model
