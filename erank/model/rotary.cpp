#include "erank/model/rotary.h"

#include <algorithm>
#include <cmath>

namespace erank::model {

RotaryTable::RotaryTable(const ModelConfig& config)
    : max_positions_(config.max_position_embeddings) {
  const auto theta = static_cast<float>(config.rope_theta);
  for (int64_t i = 0; i < config.head_dim / 2; ++i)
    frequency_.push_back(
        1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(config.head_dim)));
}

bool RotaryTable::reach(int64_t position) {
  if (position < num_positions_) return false;
  constexpr int64_t kStep = 4096;
  const int64_t count =
      std::max(position + 1, std::min(max_positions_, (position / kStep + 1) * kStep));
  for (int64_t p = num_positions_; p < count; ++p)
    for (const float frequency : frequency_) {
      const float angle = static_cast<float>(p) * frequency;
      cos_.push_back(std::cos(angle));
      sin_.push_back(std::sin(angle));
    }
  num_positions_ = count;
  return true;
}

}  // namespace erank::model
