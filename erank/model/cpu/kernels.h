// The arithmetic of the CPU network: loops over pointers, compiled once for each instruction
// set and chosen when the program starts. Every output is computed by one order of additions that
// does not depend on how many rows are computed with it.
//
// Element types: float; bf16 as uint16_t; int8. Sums are fp32 (exact integers for int8); results
// are rounded once, to nearest even. No function allocates, throws or starts a thread. Letters: see
// model/parameters.h; D' is D padded to a multiple of kPanel.
#pragma once

#include <cstdint>

namespace erank::model::cpu {

// Outputs of one panel of a packed matrix; attention and the head work on multiples of it.
inline constexpr int64_t kPanel = 32;
// Logits are reduced in chunks of this size.
inline constexpr int64_t kChunk = 256;
// Queries (times heads of a group) that one call of attention takes.
inline constexpr int64_t kAttentionRows = 96;
// Positions of one step of attention; steps begin at multiples of it.
inline constexpr int64_t kAttentionStep = 64;

// y[r, n] = sum_k x[r, k] w[k, n] for one panel. The panel is [K / group][kPanel][group] with group
// 1 (float), 2 (bf16) or 4 (int8) neighbouring k together; K is padded with zeros.
struct MatmulArgs {
  const void* x;  // [rows, ldx]: float, bf16, or unsigned bytes (value + 128)
  int64_t ldx;    // elements
  const void* panel;
  int64_t groups;  // K / group
  int64_t rows;
  float* y;  // [rows, ldy], the first kPanel columns of each row
  int64_t ldy;
  // int8 only: the inputs are cut into sections, in which the activations of a row have one scale.
  const int32_t* section_groups;  // [num_sections]; they add up to `groups`
  int64_t num_sections;
  const float* x_scale;  // [rows, num_sections]
  const float* w_scale;  // [num_sections, kPanel]
  // [num_sections, kPanel] -128 times the sum of each output's weights, for the 128 of x.
  const int32_t* w_offset;
};

// int8 activations of a product: x [rows, ldx] to unsigned bytes y [rows, ldy] (value + 128), a
// section's values times 127 / its largest. Outliers, inputs with values far larger than the rest,
// are taken out of x, whose places are set to zero, and fill the last two sections: their values,
// and what rounding those left of them. A section that holds a NaN or an infinity has scale NaN.
template <typename T>
struct QuantizeArgs {
  T* x;
  int64_t ldx;
  int64_t rows;
  uint8_t* y;
  int64_t ldy;
  float* scale;                   // [rows, num_sections]
  const int32_t* section_groups;  // [num_sections], multiples of 4
  int64_t num_sections;
  const int32_t* outliers;  // [num_outliers] places in a row of x, or null
  int64_t num_outliers;     // a multiple of 16, at most kMaxOutliers
};
inline constexpr int64_t kMaxOutliers = 256;

// One head's columns y [rows, D'] of q, k or v after the matrix product.
struct HeadArgs {
  float* y;           // [rows, D'], changed
  const float* bias;  // [D'] or null
  const float* norm;  // [D] or null
  float eps;
  const float *cos, *sin;    // [positions, D / 2]
  const int32_t* positions;  // [rows]
  const int32_t* slots;      // [rows] kPageTokens * page + offset
  int64_t rows, head_dim, padded_dim;
  void* q;              // q: [rows, q_stride], the head's columns begin here
  int64_t q_stride;     // elements
  void* cache;          // k or v: the layer's pages of this head: page p begins at p * page_stride
  int64_t page_stride;  // elements
};

// Query tokens of one sequence inside one call of attention.
struct AttentionMember {
  int32_t first_row;       // of its queries in q
  int32_t first_out;       // of its results in out
  int32_t tokens;          // consecutive queries
  int32_t first_position;  // of the first one
  const int32_t* pages;    // the sequence's, in order
};

// softmax(q k^T scale) v over every position up to a query's own, or the last `window` of them, for
// one key/value head. A page of
// keys is [D' / group][16][group], a page of values [16 / group][D'][group]; group 2 for bf16, 1
// for float. REQUIRES: the members' tokens times the heads of the group are at most kAttentionRows.
struct AttentionArgs {
  const AttentionMember* members;
  int64_t num_members;
  const void* q;  // the group's first head in row 0, [tokens, stride]
  void* out;      // likewise
  int64_t stride;
  const void *keys, *values;  // of this head; page p begins at p * page_stride
  int64_t page_stride;
  int64_t group, padded_dim;
  int64_t window;  // 0: all
  float scale;
  float* work;  // attention_work(padded_dim) floats
};
constexpr int64_t attention_work(int64_t padded_dim) {
  return kAttentionRows * (2 * padded_dim + 2 * kAttentionStep + 16);
}

// What one chunk of a row of logits gives.
struct ChunkStats {
  float max;       // of the chunk
  float sum;       // of exp(x - max), when asked
  int32_t argmax;  // index in the chunk, the lowest of equals; -1 when a logit is NaN
};

// What differs between float and bf16 activations.
struct TypedKernels {
  void (*matmul)(const MatmulArgs&);
  // y[r] = x[r] / rms(x[r]) * weight: x [rows, width] fp32, weight [width], of which the first
  // `hidden` count and the rest is zero. width is a multiple of kPanel.
  void (*norm)(const float* x, const float* weight, void* y, int64_t rows, int64_t hidden,
               int64_t width, float eps);
  // out[r, i] = silu(y[r, i]) * y[r, 16 + i], i < 16: y [rows, kPanel], out [rows, stride].
  void (*silu_mul)(const float* y, void* out, int64_t rows, int64_t stride);
  void (*store_q)(const HeadArgs&);
  void (*store_k)(const HeadArgs&);
  void (*store_v)(const HeadArgs&);
  void (*attention)(const AttentionArgs&);
  // One token's key and value from slot to slot of one head's pages.
  void (*copy_token)(void* keys, void* values, int64_t page_stride, int64_t padded_dim,
                     int32_t from_slot, int32_t to_slot);
};

struct Kernels {
  TypedKernels f32, bf16;
  void (*matmul_int8)(const MatmulArgs&);
  void (*quantize_f32)(const QuantizeArgs<float>&);
  void (*quantize_bf16)(const QuantizeArgs<const uint16_t>&);
  // x[r, n] += y[r, n] + bias[n]: one panel; x [rows, ldx], y [rows, kPanel], bias may be null.
  void (*add)(const float* y, const float* bias, float* x, int64_t rows, int64_t ldx);
  // Of n <= kChunk logits.
  ChunkStats (*chunk_stats)(const float* x, int64_t n, bool sum);
  // sums[i] = sum of exp((x[j] - max) * scale) over chunk i of n logits.
  void (*exp_sums)(const float* x, int64_t n, float max, float scale, float* sums);
  // Called by a thread after products that it has done for now: frees the tile registers, which
  // every switch of threads would have to save.
  void (*release)();
  bool tiles;  // whether the products of bf16 and int8 are by tile registers
};

// The kernels of the best instruction set of this processor.
const Kernels& kernels();
// "amx", "avx512bf16", "avx512", "avx2" or "generic": what kernels() chose. ERANK_CPU_LEVEL names a
// lower level to test and to compare.
const char* kernels_level();

inline void exp_sums(const float* x, int64_t n, float max, float scale, float* sums) {
  kernels().exp_sums(x, n, max, scale, sums);
}

}  // namespace erank::model::cpu
