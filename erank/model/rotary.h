// The angles of rotary position embedding (RoFormer, arXiv 2104.09864), in fp32 as transformers
// computes them.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/model/config.h"

namespace erank::model {

// Grows as far as it is used: a configuration may allow millions of positions. Not thread-safe.
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
  std::vector<float> frequency_, cos_, sin_;
};

}  // namespace erank::model
