// The order in which training takes its data.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "erank/base/random.h"

namespace erank::train {

// Every order with the same probability (Fisher and Yates), the same on every machine.
template <typename T>
void shuffle(std::vector<T>& values, base::Random& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

}  // namespace erank::train
