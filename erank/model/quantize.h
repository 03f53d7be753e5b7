// int8 weights: each output of a matrix has one scale, its largest weight over 127.
#pragma once

#include <cstdint>

namespace erank::model {

// Writes round(values / scale) to `out` and returns the scale. Zeros have scale 0. Thread-safe.
float quantize_row(const float* values, int64_t n, int8_t* out);

}  // namespace erank::model
