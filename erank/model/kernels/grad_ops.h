// The operations of a training pass that have their own backward: fewer passes over memory than
// libtorch's autograd would make. CPU tensors, but for lora_linear, which takes any device's;
// contiguous, fp32 or bf16; gradients once (no second derivatives). Each equals its plain
// composition of ATen operations (tests/model/grad_ops_test.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>
#include <vector>

#include "erank/model/decoder.h"

namespace erank::model::kernels {

// x [T, H] + delta [T, H] (when defined), and rms_norm of the sum * weight -> both [T, H].
std::pair<at::Tensor, at::Tensor> add_rms_norm_grad(const at::Tensor& x, const at::Tensor& delta,
                                                    const at::Tensor& weight, double eps);

// gate_up [T, 2 F] -> silu(gate) * up, [T, F].
at::Tensor silu_mul_grad(const at::Tensor& gate_up);

// x [T, in] -> x weight^T + bias with the parts' adapters, the parts' outputs side by side [T,
// out]. weight [out, in] and bias [out] are frozen; part i has the next parts[i]->weight.size(0)
// outputs. The products run in x's dtype, the adapters' gradients are of the adapters' own.
// REQUIRES: no dropout, adapters of one rank and scaling each where they are.
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const std::vector<const Linear*>& parts);

// Which keys each sequence of a batch without a cache sees, for attention padded by classes of
// similar length. Computed once a batch, used by every layer.
struct TreePlan {
  struct Class {
    int64_t queries = 0, keys = 0;    // padded counts of each sequence
    std::vector<int32_t> sequences;   // S of them
    std::vector<int32_t> query_rows;  // [S, queries] the token, -1 for padding
    std::vector<int32_t> key_rows;    // [S, keys] ancestors' tokens, then its own; -1 for padding
    std::vector<int32_t> ancestors;   // [S] how many tokens stand before its own
  };
  std::vector<Class> classes;
  std::vector<int32_t> positions;  // [T]
};
// A class ends before a sequence shorter than `fill` of its longest.
std::shared_ptr<const TreePlan> plan_tree(const Batch& batch, double fill = 0.75);

// Rotation and attention of one layer: qkv [T', (N + 2 K) D], T' >= T -> [T', N D] (rows behind T
// are zero; with gradients T' = T).
at::Tensor tree_attention(const at::Tensor& qkv, const std::shared_ptr<const TreePlan>& plan,
                          const ModelConfig& config, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace erank::model::kernels
