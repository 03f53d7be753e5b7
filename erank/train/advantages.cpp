#include "erank/train/advantages.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"

namespace erank::train {

Advantages group_advantages(std::span<const double> rewards, int64_t group_size,
                            bool divide_by_std) {
  ERANK_CHECK(group_size > 0 && std::ssize(rewards) % group_size == 0);
  Advantages advantages;
  advantages.values.reserve(rewards.size());
  for (int64_t begin = 0; begin < std::ssize(rewards); begin += group_size) {
    const auto group = rewards.subspan(begin, group_size);
    const auto [least, most] = std::minmax_element(group.begin(), group.end());
    if (*least == *most) {
      ++advantages.num_flat;
      advantages.values.insert(advantages.values.end(), group.size(), 0.0);
      continue;
    }
    const auto n = static_cast<double>(group_size);
    const double mean = std::accumulate(group.begin(), group.end(), 0.0) / n;
    double squares = 0;
    for (const double reward : group) squares += (reward - mean) * (reward - mean);
    const double scale = divide_by_std ? 1 / (std::sqrt(squares / (n - 1)) + kAdvantageEpsilon) : 1;
    for (const double reward : group) advantages.values.push_back((reward - mean) * scale);
  }
  return advantages;
}

}  // namespace erank::train
