// Values out of the blocks in which GGUF files keep weights, and out of floating-point types.
// Formats: ggml's block structs, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h.
//
// A block holds 32 values (Q8_0 ... Q5_1) or 256 (the K types): integers of 4 to 8 bits, and scales
// d (and offsets m) as half floats:
//   Q8_0, Q4_0, Q5_0   d * (q - c)         c = 0, 8, 16
//   Q4_1, Q5_1         d * q + m
//   Q4_K, Q5_K         (d * s) * q - (dmin * o)    s, o: 6-bit integers for each 32 values
//   Q6_K               (d * s) * (q - 32)          s: 8-bit integer for each 16 values
// Each operation rounds to float on its own, in this order, so that the results are bit for bit
// those of gguf.quants.dequantize.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "erank/data/tensor_info.h"

namespace erank::model {

// Writes the `num_values` values of `blocks` to `out`. Takes F32, F16, BF16 and every Q type; other
// types and sizes that do not agree are InternalErrors. `blocks` needs no alignment.
// Thread-safe; allocates nothing.
void dequantize(data::DType dtype, std::span<const uint8_t> blocks, float* out, size_t num_values);

// The same as bfloat16, each value rounded once to nearest even (BF16 itself is copied).
void dequantize_bf16(data::DType dtype, std::span<const uint8_t> blocks, uint16_t* out,
                     size_t num_values);

}  // namespace erank::model
