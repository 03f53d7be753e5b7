#include "erank/model/quantize.h"

#include <algorithm>
#include <cmath>

namespace erank::model {

float quantize_row(const float* values, int64_t n, int8_t* out) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(values[i]));
  const float up = largest > 0 ? 127.0f / largest : 0.0f;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<int8_t>(static_cast<int32_t>((values[i] * up + kMagic) - kMagic));
  return largest / 127.0f;
}

}  // namespace erank::model
