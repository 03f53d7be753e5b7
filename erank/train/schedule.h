// The learning rate of each step.
#pragma once

#include <cstdint>

namespace erank::train {

struct Schedule {
  double peak = 1e-3;
  double warmup_ratio = 0.05;  // of all steps, rising in a line
  double floor_ratio = 0;      // of the peak, where the cosine ends
  bool constant = false;       // no cosine: the peak after the warm-up
};

// For step s of n, w = ceil(warmup_ratio n) (but at most n): peak (s + 1) / w while s < w, then
// peak (f + (1 - f) (1 + cos(pi (s - w) / (n - w))) / 2), f = floor_ratio.
double learning_rate(const Schedule& schedule, int64_t step, int64_t num_steps);

}  // namespace erank::train
