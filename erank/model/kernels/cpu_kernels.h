// The arithmetic on CPUs that libtorch does not fuse: plain loops over plain pointers,
// compiled once for each instruction set and chosen when the program starts. Every output row is
// computed by the same order of additions, whatever else is computed in the same call: this is what
// DecoderOptions::deterministic rests on.
//
// Element types: float, and bf16 as uint16_t. All arithmetic is fp32; results are rounded once, to
// nearest even. No function allocates, throws or starts a thread; callers split rows over threads.
// Letters: see model/decoder.h.
#pragma once

#include <cstdint>

namespace erank::model::kernels {

// y[t, n] = sum_k x[t, k] w[n, k] + bias[n] for the rows [0, t_end) and the outputs [n_begin,
// n_end).
template <typename T>
struct LinearArgs {
  const T* x;     // [T, in]
  const T* w;     // [N, in]
  const T* bias;  // [N] or null
  T* y;           // [T, out], used when y_fp32 is null
  float* y_fp32;  // [T, out]
  int64_t rows, in, out;
};

// One layer's rotation, norm and cache write: q is normed (when q_norm) and rotated in place, k
// goes normed and rotated to its slot of the key pages, v to its slot of the value pages.
template <typename T>
struct RotaryArgs {
  T* qkv;                    // [T, (N + 2 K) D]
  const T *q_norm, *k_norm;  // [D] or null
  const float *cos, *sin;    // [positions, D / 2]
  const int32_t* positions;  // [T]
  const int32_t* slots;      // [T] slot = 16 page + offset
  T* keys;                   // [pages, K, D, 16]
  T* values;                 // [pages, K, 16, D]
  int64_t heads, kv_heads, head_dim;
  float eps;
};

// Queries of one sequence against its pages, one key/value head: softmax(q k^T scale) v over every
// position up to the query's own. REQUIRES: head_dim % 16 == 0, head_dim <= 256.
template <typename T>
struct AttentionArgs {
  const T* q;          // first query token's row in qkv, [tokens, row_stride]; head n starts at n D
  T* out;              // first query token's row, [tokens, N D]
  int64_t row_stride;  // (N + 2 K) D
  const T *keys, *values;
  const int32_t* pages;    // the sequence's pages in order
  int64_t first_position;  // of the first query token
  int64_t tokens;          // query tokens in this tile: tokens * (N / K) <= kAttentionRows
  int64_t heads, kv_heads, head_dim;
  int64_t kv_head;
  float scale;
};
inline constexpr int64_t kAttentionRows = 64;

template <typename T>
struct CpuKernels {
  void (*linear)(const LinearArgs<T>& args, int64_t n_begin, int64_t n_end);
  void (*rotary)(const RotaryArgs<T>& args, int64_t t_begin, int64_t t_end);
  void (*attention)(const AttentionArgs<T>& args);
  // x[t] += delta[t] (when delta), then y[t] = x[t] / rms(x[t]) * weight. All [T, H]; weight [H].
  void (*add_rms_norm)(T* x, const T* delta, const T* weight, T* y, int64_t hidden, float eps,
                       int64_t t_begin, int64_t t_end);
  // y[t, f] = silu(gate_up[t, f]) * gate_up[t, F + f]; gate_up [T, 2 F], y [T, F].
  void (*silu_mul)(const T* gate_up, T* y, int64_t width, int64_t t_begin, int64_t t_end);

  // The rest is for training. `grad_...` of a name is the gradient with respect to it.
  //
  // Of y = x / rms(x) * weight: grad_x[t] = what y passes back + through[t], the gradient that
  // reaches x past the norm; grad_weight [H] fp32, when not null, is added to. All else [T, H].
  void (*rms_norm_backward)(const T* x, const T* weight, const T* grad_y, const T* through,
                            T* grad_x, float* grad_weight, int64_t hidden, float eps,
                            int64_t t_begin, int64_t t_end);
  // Of silu_mul: grad_y [T, F] -> grad_gate_up [T, 2 F].
  void (*silu_mul_backward)(const T* gate_up, const T* grad_y, T* grad_gate_up, int64_t width,
                            int64_t t_begin, int64_t t_end);
  // Half-split rotation of the first `heads` heads of each row, in place; direction -1 turns back.
  void (*rotate)(T* x, int64_t row_stride, int64_t heads, int64_t head_dim, const float* cos,
                 const float* sin, const int32_t* positions, float direction, int64_t t_begin,
                 int64_t t_end);
  // scores[i] -> softmax(scale * scores) over the first `seen` of `width` columns, 0 behind them.
  void (*softmax)(T* scores, int64_t width, int64_t seen, float scale);
  // grad[i] (of softmax's result p) -> scale * p[i] (grad[i] - sum p grad), in place.
  void (*softmax_backward)(const T* p, T* grad, int64_t width, float scale);
  // sum[i] += x[i].
  void (*accumulate)(float* sum, const T* x, int64_t n);
};

// The kernels of the best instruction set of this processor. T: float or uint16_t (bf16).
template <typename T>
const CpuKernels<T>& cpu_kernels();

// "avx512", "avx2" or "generic": what cpu_kernels() chose.
const char* cpu_kernels_level();

}  // namespace erank::model::kernels
