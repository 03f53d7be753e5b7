// The loops that weights go through when they are loaded, compiled once for each instruction set
// and chosen when the program starts. No function allocates, throws or starts a thread; equal
// values give equal results wherever they are in a row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace erank::model {

// out = w + b a: w and out [rows, columns] (may be the same), b [rows, rank], a [rank, columns].
// Each sum over rank goes from first to last with fused products (where the machine has them),
// then is added to w.
struct MergeArgs {
  const float *w, *b, *a;
  int64_t rows, rank, columns;
  float* out;
};

struct WeightKernels {
  // n values of whole blocks; dequantize.h says what they are. `blocks` needs no alignment.
  using Dequantize = void (*)(const uint8_t* blocks, float* out, size_t n);
  Dequantize f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k;
  // Rounds to nearest even; NaN stays NaN.
  void (*to_bf16)(const float* values, uint16_t* out, size_t n);
  // round(values / scale); returns the scale, the largest value over 127; NaN when a value is.
  float (*quantize)(const float* values, int64_t n, int8_t* out);
  // The same, each four values `stride` bytes after those before; `sum`: of all in int8. REQUIRES:
  // n is a multiple of 16.
  float (*pack_int8)(const float* values, int64_t n, int8_t* out, int64_t stride, int32_t* sum);
  // sums[i] += min(values[r, i]^2, 1e6) in units of 2^-30, over all rows.
  void (*add_squares)(const float* values, int64_t rows, int64_t columns, int64_t* sums);
  void (*merge)(const MergeArgs&);
  // 16 rows of n units of 4 bytes, one after another, to n columns of 16 units, one every
  // `out_stride` bytes. REQUIRES: n is a multiple of 16.
  void (*transpose16)(const void* rows, int64_t n, void* out, int64_t out_stride);
};

// Those of the best instruction set, as cpu::kernels() chooses it.
const WeightKernels& weight_kernels();

}  // namespace erank::model
