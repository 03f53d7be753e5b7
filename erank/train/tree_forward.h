// Llama, Qwen2 and Qwen3 as training needs them: differentiable, with what sequences share computed
// once. The same mathematics as model::Network, on the tensors of model::Parameters themselves.
// Letters: model/parameters.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>

#include "erank/model/parameters.h"
#include "erank/model/rotary.h"
#include "erank/train/tree_batch.h"

namespace erank::train {

// Borrows the parameters and computes with their active adapter. With gradients on, what requires
// them gets them: adapters, or every parameter. Without gradients the numbers are the same bits.
// Usable after inference in the same process and thread, whatever mode that ran in. Not
// thread-safe.
class TreeForward {
 public:
  // `own_kernels` false: libtorch's operations on the CPU too, as on every other device (to
  // compare).
  explicit TreeForward(const model::Parameters& parameters, bool own_kernels = true)
      : parameters_(parameters),
        rotary_(parameters.config()),
        own_kernels_(own_kernels && parameters.device().is_cpu()) {}
  TreeForward(const TreeForward&) = delete;
  TreeForward& operator=(const TreeForward&) = delete;

  // Hidden states of the asked rows, after the final norm -> [R, H] in the parameters' dtype.
  // REQUIRES: batch.check passes.
  at::Tensor hidden(const TreeBatch& batch);
  // hidden [R, H] -> [R, V] fp32.
  at::Tensor logits(const at::Tensor& hidden) const;
  at::Tensor forward(const TreeBatch& batch) { return logits(hidden(batch)); }
  // hidden [R, H]; rows and tokens [M] int64 -> log softmax(logits[row])[token], [M] fp32, and when
  // asked the entropy of each row in nats, [R], without a gradient. Keeps no logits where the head
  // is frozen.
  at::Tensor log_probs(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& tokens,
                       at::Tensor* entropies = nullptr) const;

  // LoRA dropout on or off (off at first); it draws from libtorch's default generator.
  void set_training(bool training) { training_ = training; }
  // Logits by the head in fp32, whatever the parameters' dtype: they are not rounded to bf16 then.
  // Off at first.
  void set_head_fp32(bool on) { head_fp32_ = on; }
  bool head_fp32() const { return head_fp32_; }

 private:
  class Pass;

  void reach_position(int64_t position);
  at::Tensor project(const at::Tensor& x, const model::Linear& linear) const;
  at::Tensor project_fused(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           std::initializer_list<const model::Linear*> parts) const;
  at::Tensor norm_heads(const at::Tensor& qkv, const model::LayerParameters& layer) const;

  const model::Parameters& parameters_;
  model::RotaryTable rotary_;
  at::Tensor cos_, sin_;  // [positions so far, D / 2] fp32, never inference tensors
  const bool own_kernels_;
  bool training_ = false, head_fp32_ = false;
};

}  // namespace erank::train
