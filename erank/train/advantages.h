// Advantages inside a group of rollouts of one prompt (GRPO, arXiv 2402.03300, section 4.1).
// Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace erank::train {

inline constexpr double kAdvantageEpsilon = 1e-6;

struct Advantages {
  std::vector<double> values;  // as the rewards
  int64_t num_flat = 0;        // groups whose rewards are all equal: their advantages are 0
};

// `rewards`: groups of `group_size`, one after another. A = (r - mean) / (std + 1e-6) with the
// group's sample standard deviation (n - 1); r - mean with `divide_by_std` false (Dr. GRPO, arXiv
// 2503.20783). A group of one is flat.
Advantages group_advantages(std::span<const double> rewards, int64_t group_size,
                            bool divide_by_std = true);

}  // namespace erank::train
