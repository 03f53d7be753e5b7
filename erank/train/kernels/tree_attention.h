// RoPE and attention over shared prefixes on the CPU, with its own backward pass. Gradients
// once (no second derivatives). Equals ReferenceTree (tests/train/kernels_test.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "erank/model/config.h"
#include "erank/train/kernels/tree_plan.h"

namespace erank::train::kernels {

// Of one layer: qkv [T, (N + 2 K) D] fp32 or bf16, contiguous, on the CPU; cos and sin [positions,
// D / 2] fp32 -> [T, N D]. `window`: how many positions a query sees at most; 0: all before it.
at::Tensor tree_attention(const at::Tensor& qkv, const std::shared_ptr<const TreePlan>& plan,
                          const model::ModelConfig& config, int64_t window, const at::Tensor& cos,
                          const at::Tensor& sin);

}  // namespace erank::train::kernels
