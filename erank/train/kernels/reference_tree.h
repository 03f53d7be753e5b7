// Attention over a tree of sequences by libtorch's own operations: for devices without our kernels,
// and what tree_attention is tested against. Differentiable; any device, fp32 or bf16.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "erank/model/config.h"
#include "erank/train/kernels/tree_plan.h"

namespace erank::train::kernels {

at::Tensor to_tensor(const std::vector<int32_t>& values, at::Device device);

// RoPE (half-split) of x [T, heads, D] by cos, sin [T, 1, D / 2] fp32 -> fp32.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// What every layer of one batch needs, on the device of `cos` and `sin` [positions, D / 2] fp32.
// `dtype` is that of the activations.
class ReferenceTree {
 public:
  ReferenceTree(const TreePlan& plan, const model::ModelConfig& config, const at::Tensor& cos,
                const at::Tensor& sin, at::ScalarType dtype);

  // RoPE and attention of one layer: qkv [T, (N + 2 K) D] -> [T, N D]. `window`: 0, or the
  // configuration's sliding_window.
  at::Tensor attend(const at::Tensor& qkv, int64_t window = 0) const;

 private:
  struct Class {
    int64_t sequences = 0, queries = 0, keys = 0;
    at::Tensor query_rows, key_rows;  // [S queries], [S keys]; padding names row 0
    at::Tensor mask;         // [S, 1, group queries, keys]: 0, or -inf where a query sees no key
    at::Tensor window_mask;  // likewise of layers that slide, where there are any
  };
  int64_t heads_, kv_heads_, head_dim_;
  std::vector<Class> classes_;
  at::Tensor cos_, sin_;  // [T, 1, D / 2] fp32
  at::Tensor order_;      // [T]: where a token's row is in the classes' outputs
};

}  // namespace erank::train::kernels
