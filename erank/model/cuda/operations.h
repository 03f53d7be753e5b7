// What a layer of the network computes besides matrix products and attention.
#pragma once

#include <ATen/core/Tensor.h>

#include "erank/model/cuda/kernels.h"

namespace erank::model::cuda {

// What a layer's queries and keys need before attention.
struct Heads {
  at::Tensor q_norm, k_norm;  // [D], or undefined
  at::Tensor angles;          // [positions, D] fp32: D / 2 cosines, D / 2 sines
  at::Tensor positions;       // [T] int64
  at::Tensor slots;           // [T] int64, all different
  at::Tensor keys, values;    // [slots, K, D], written to
};

// By kernels of our own, or by libtorch's operations: these say what the kernels compute and round,
// on the CPU or a GPU. Work for a GPU is put on the calling thread's current stream.
class Operations {
 public:
  // `kernels`: null for libtorch's operations. `eps`: of the norms.
  Operations(const Kernels* kernels, double eps) : kernels_(kernels), eps_(eps) {}

  // Adds `added` to x, both [T, H], where it is defined, and returns rms_norm(x) * weight.
  at::Tensor add_norm(at::Tensor& x, const at::Tensor& added, const at::Tensor& weight) const;
  // [T, 2 F], gate and up, -> [T, F]: silu(gate) * up.
  at::Tensor silu_product(const at::Tensor& gate_up) const;
  // qkv [T, (N + 2 K) D] -> q [T, N, D]; keys and values go to their slots. q and k are normed by
  // head where there are weights for it, then rotated.
  at::Tensor rotate_and_store(const at::Tensor& qkv, Heads heads) const;
  // Rows of blocks [n, bytes] uint8 -> their values in `out` [n, in] bf16.
  void unpack(data::DType format, const at::Tensor& rows, at::Tensor& out) const;

 private:
  const Kernels* kernels_;
  double eps_;
};

// Those that this build has for the device, or null.
const Kernels* kernels_of(at::Device device);

}  // namespace erank::model::cuda
