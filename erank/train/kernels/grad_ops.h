// The operations of a training pass that have their own backward: fewer passes over memory than
// libtorch's autograd would make. CPU tensors, but for lora_linear, which takes any device's;
// contiguous, fp32 or bf16; gradients once (no second derivatives). Each equals its composition of
// ATen operations (tests/train/kernels_test.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "erank/model/parameters.h"

namespace erank::train::kernels {

// x [T, H] + delta [T, H] (when defined), and rms_norm of the sum * weight -> both [T, H].
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& delta,
                                               const at::Tensor& weight, double eps);

// gate_up [T, 2 F] -> silu(gate) * up, [T, F].
at::Tensor silu_mul(const at::Tensor& gate_up);

// x [T, in] -> x weight^T + bias with the parts' adapters, the parts' outputs side by side [T,
// out]. weight [out, in] and bias [out] are frozen; part i has the next parts[i]->weight.size(0)
// outputs. The matrix products run in x's dtype, the adapters' gradients are of the adapters' own.
// REQUIRES: an adapter on one part at least; no dropout.
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const std::vector<const model::Linear*>& parts);

// hidden [R, H]; weight [V, H], frozen; rows and tokens [M] int64 -> log softmax(hidden
// weight^T)[row][token], [M] fp32, and the entropy of each row's softmax in nats, [R] fp32, without
// a gradient. Logits are made some rows at a time and not kept: of the vocabulary the backward pass
// needs no more than each row's mean of `weight` under its softmax, which is taken at once.
std::pair<at::Tensor, at::Tensor> head_log_probs(const at::Tensor& hidden, const at::Tensor& weight,
                                                 const at::Tensor& rows, const at::Tensor& tokens);

}  // namespace erank::train::kernels
