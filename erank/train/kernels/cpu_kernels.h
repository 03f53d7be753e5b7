// The arithmetic of training on CPUs that libtorch does not fuse: loops over pointers,
// compiled once for each instruction set and chosen when the program starts.
//
// Element types: float, and bf16 as uint16_t. All arithmetic is fp32; results are rounded once, to
// nearest even. No function allocates, throws or starts a thread; callers split rows over threads.
// Letters: model/parameters.h. `grad_...` of a name is the gradient with respect to it.
#pragma once

#include <cstdint>

namespace erank::train::kernels {

// x[t] += delta[t] (when delta is not null), then y[t] = x[t] / rms(x[t]) * weight.
template <typename T>
struct AddRmsNormArgs {
  T* x;             // [T, H]
  const T* delta;   // [T, H] or null; without it x is only read
  const T* weight;  // [H]
  T* y;             // [T, H]
  int64_t hidden;
  float eps;
};

// Of y = x / rms(x) * weight: grad_x[t] = what y passes back + through[t].
template <typename T>
struct RmsNormBackwardArgs {
  const T* x;          // [T, H]
  const T* weight;     // [H]
  const T* grad_y;     // [T, H]
  const T* through;    // [T, H] or null: the gradient that reaches x past the norm
  T* grad_x;           // [T, H]
  float* grad_weight;  // [H] or null; added to
  int64_t hidden;
  float eps;
};

// Of y = silu(gate) * up.
template <typename T>
struct SiluMulBackwardArgs {
  const T* gate_up;  // [T, 2 F]
  const T* grad_y;   // [T, F]
  T* grad_gate_up;   // [T, 2 F]
  int64_t width;     // F
};

// RoPE (half-split) of the first `heads` heads of each row, in place.
template <typename T>
struct RotateArgs {
  T* x;                      // [T, row_stride]
  const float *cos, *sin;    // [positions, D / 2]
  const int32_t* positions;  // [T]
  int64_t row_stride, heads, head_dim;
  float direction;  // 1, or -1: rotates back
};

// Of a row of logits: its first greatest one, and sums over the others.
struct SoftmaxRest {
  int64_t peak;    // its place
  float most;      // its value
  float rest;      // sum of exp(x - most)
  float distance;  // sum of (most - x) exp(x - most)
};

// Each works on the rows [t_begin, t_end).
template <typename T>
struct CpuKernels {
  void (*add_rms_norm)(const AddRmsNormArgs<T>& args, int64_t t_begin, int64_t t_end);
  void (*rms_norm_backward)(const RmsNormBackwardArgs<T>& args, int64_t t_begin, int64_t t_end);
  // y[t, f] = silu(gate_up[t, f]) * gate_up[t, F + f]; gate_up [T, 2 F], y [T, F], width F.
  void (*silu_mul)(const T* gate_up, T* y, int64_t width, int64_t t_begin, int64_t t_end);
  void (*silu_mul_backward)(const SiluMulBackwardArgs<T>& args, int64_t t_begin, int64_t t_end);
  void (*rotate)(const RotateArgs<T>& args, int64_t t_begin, int64_t t_end);
  // One row: scores[i] -> softmax(scale * scores) over the first `seen` of `width` columns, 0 after
  // them.
  void (*softmax)(T* scores, int64_t width, int64_t seen, float scale);
  // One row: grad[i] (of softmax's result p) -> scale * p[i] (grad[i] - sum p grad), in place.
  void (*softmax_backward)(const T* p, T* grad, int64_t width, float scale);
  // One row of logits: x[i] -> exp(x[i] - most), 0 at the peak. n > 0.
  SoftmaxRest (*softmax_rest)(T* x, int64_t n);
  // sum[i] += x[i].
  void (*accumulate)(float* sum, const T* x, int64_t n);
};

// The kernels of the best instruction set of this processor. T: float or uint16_t (bf16).
// ERANK_CPU_LEVEL=generic|avx2 in the environment chooses a lower level.
template <typename T>
const CpuKernels<T>& cpu_kernels();

}  // namespace erank::train::kernels
