#include "erank/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace erank::train {

double learning_rate(const Schedule& schedule, int64_t step, int64_t num_steps) {
  const auto total = static_cast<double>(num_steps), at = static_cast<double>(step);
  // A ratio that is meant to give a whole number does, whatever its binary form.
  const double warmup = std::min(total, std::ceil(schedule.warmup_ratio * total - 1e-9));
  if (at < warmup) return schedule.peak * (at + 1) / warmup;
  if (schedule.constant) return schedule.peak;
  const double way = (at - warmup) / std::max(1.0, total - warmup);
  const double f = schedule.floor_ratio;
  return schedule.peak * (f + (1 - f) * 0.5 * (1 + std::cos(std::numbers::pi * way)));
}

}  // namespace erank::train
