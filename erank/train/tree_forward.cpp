#include "erank/train/tree_forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "erank/base/error.h"
#include "erank/train/kernels/grad_ops.h"
#include "erank/train/kernels/reference_tree.h"
#include "erank/train/kernels/tree_attention.h"
#include "erank/train/log_probs.h"

namespace erank::train {
namespace {

// A GPU gets fewer and more padded classes: each costs it a dozen launches a layer.
constexpr double kCpuFill = 0.75, kGpuFill = 0.4;

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(x, {x.size(-1)}, weight, eps);
}

}  // namespace

// What all layers of one pass use: our kernels or libtorch's operations.
class TreeForward::Pass {
 public:
  Pass(const TreeBatch& batch, const TreeForward& owner)
      : config_(owner.parameters_.config()), cos_(owner.cos_), sin_(owner.sin_) {
    if (owner.own_kernels_)
      plan_ = kernels::plan_tree(batch, kCpuFill);
    else
      reference_.emplace(*kernels::plan_tree(batch, kGpuFill), config_, cos_, sin_,
                         owner.parameters_.dtype());
  }

  // x += delta (when defined); returns the sum's norm.
  at::Tensor add_norm(at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight) const {
    if (plan_) {
      at::Tensor y;
      std::tie(x, y) = kernels::add_rms_norm(x, delta, weight, config_.rms_norm_eps);
      return y;
    }
    if (delta.defined()) x = x + delta;
    return rms_norm(x, weight, config_.rms_norm_eps);
  }

  // RoPE and attention of a layer: qkv [T, (N + 2 K) D] -> [T, N D].
  at::Tensor attend(const at::Tensor& qkv, int64_t layer) const {
    const int64_t window = config_.window_of(layer);
    return plan_ ? kernels::tree_attention(qkv, plan_, config_, window, cos_, sin_)
                 : reference_->attend(qkv, window);
  }

  // gate_up [T, 2 F] -> [T, F].
  at::Tensor gate(const at::Tensor& gate_up) const {
    if (plan_) return kernels::silu_mul(gate_up);
    const int64_t f = config_.intermediate_size;
    return at::silu(gate_up.narrow(1, 0, f)) * gate_up.narrow(1, f, f);
  }

 private:
  const model::ModelConfig& config_;
  const at::Tensor &cos_, &sin_;
  std::shared_ptr<const kernels::TreePlan> plan_;    // of our kernels, else null
  std::optional<kernels::ReferenceTree> reference_;  // else
};

void TreeForward::reach_position(int64_t position) {
  if (!rotary_.reach(position)) return;
  // Backward saves the tables, and the caller may be in InferenceMode the first time.
  const c10::InferenceMode normal(false);
  const auto table = [&](const std::vector<float>& values) {
    return at::tensor(values, at::kFloat)
        .view({rotary_.num_positions(), -1})
        .to(parameters_.device());
  };
  cos_ = table(rotary_.cos());
  sin_ = table(rotary_.sin());
}

// One layer; y += scaling * (x A^T) B^T where it has an adapter, in x's precision.
at::Tensor TreeForward::project(const at::Tensor& x, const model::Linear& linear) const {
  const at::Tensor y = at::linear(x, linear.weight, linear.bias);
  if (!linear.lora) return y;
  const model::Lora& lora = *linear.lora;
  const at::Tensor input = training_ && lora.dropout > 0 ? at::dropout(x, lora.dropout, true) : x;
  const at::Tensor low = at::linear(input, lora.a.to(x.scalar_type()));
  return y + at::linear(low, lora.b.to(x.scalar_type())) * lora.scaling;
}

// Several layers of one input at once, their outputs side by side. `weight` and `bias` are what the
// parts are views of.
at::Tensor TreeForward::project_fused(const at::Tensor& x, const at::Tensor& weight,
                                      const at::Tensor& bias,
                                      std::initializer_list<const model::Linear*> parts) const {
  bool adapted = false, trained = false, dropped = false;
  for (const model::Linear* part : parts) {
    adapted |= part->lora != nullptr;
    trained |= part->weight.requires_grad();
    dropped |= part->lora && training_ && part->lora->dropout > 0;
  }
  if (!trained && !dropped)
    return adapted ? kernels::lora_linear(x, weight, bias, parts) : at::linear(x, weight, bias);
  std::vector<at::Tensor> outputs;
  for (const model::Linear* part : parts) outputs.push_back(project(x, *part));
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 1);
}

// The heads' own norms of queries and keys, where the model has them.
at::Tensor TreeForward::norm_heads(const at::Tensor& qkv,
                                   const model::LayerParameters& layer) const {
  const model::ModelConfig& config = parameters_.config();
  if (!config.qk_norm) return qkv;
  const int64_t rows = qkv.size(0), d = config.head_dim, q = config.q_size(), kv = config.kv_size();
  const auto normed = [&](int64_t begin, int64_t width, const at::Tensor& weight) {
    return rms_norm(qkv.narrow(1, begin, width).reshape({rows, width / d, d}), weight,
                    config.rms_norm_eps)
        .reshape({rows, width});
  };
  return at::cat(
      {normed(0, q, layer.q_norm), normed(q, kv, layer.k_norm), qkv.narrow(1, q + kv, kv)}, 1);
}

at::Tensor TreeForward::hidden(const TreeBatch& batch) {
  const model::ModelConfig& config = parameters_.config();
  batch.check(config.vocab_size, config.context());
  reach_position(*std::max_element(batch.positions.begin(), batch.positions.end()));
  const auto& layers = parameters_.layers();
  const at::Device device = parameters_.device();
  const Pass pass(batch, *this);

  at::Tensor x =
      at::embedding(parameters_.embed_tokens(), kernels::to_tensor(batch.tokens, device));
  const auto norm_before = [&](size_t i) {
    return i < layers.size() ? layers[i].input_layernorm : parameters_.norm();
  };
  at::Tensor h = pass.add_norm(x, {}, norm_before(0));
  for (size_t i = 0; i < layers.size(); ++i) {
    const model::LayerParameters& layer = layers[i];
    const at::Tensor qkv =
        project_fused(h, layer.qkv, layer.qkv_bias, {&layer.q_proj, &layer.k_proj, &layer.v_proj});
    at::Tensor attended = pass.attend(norm_heads(qkv, layer), static_cast<int64_t>(i));
    if (i + 1 == layers.size()) {  // after the last attention only the asked rows matter
      const at::Tensor rows = kernels::to_tensor(batch.rows, device);
      attended = attended.index_select(0, rows);
      x = x.index_select(0, rows);
    }
    h = pass.add_norm(
        x, project_fused(attended, layer.o_proj.weight, layer.o_proj.bias, {&layer.o_proj}),
        layer.post_attention_layernorm);
    const at::Tensor gated =
        pass.gate(project_fused(h, layer.gate_up, {}, {&layer.gate_proj, &layer.up_proj}));
    h = pass.add_norm(
        x, project_fused(gated, layer.down_proj.weight, layer.down_proj.bias, {&layer.down_proj}),
        norm_before(i + 1));
  }
  return h;
}

at::Tensor TreeForward::logits(const at::Tensor& hidden) const {
  if (!head_fp32_) return project(hidden, parameters_.lm_head()).to(at::kFloat);
  model::Linear head = parameters_.lm_head();
  head.weight = head.weight.to(at::kFloat);
  return project(hidden.to(at::kFloat), head);
}

at::Tensor TreeForward::log_probs(const at::Tensor& hidden, const at::Tensor& rows,
                                  const at::Tensor& tokens, at::Tensor* entropies) const {
  const model::Linear& head = parameters_.lm_head();
  at::Tensor result, of_rows;
  if (own_kernels_ && !head.lora && !head.bias.defined() && !head.weight.requires_grad()) {
    const auto dtype = head_fp32_ ? at::kFloat : head.weight.scalar_type();
    std::tie(result, of_rows) =
        kernels::head_log_probs(hidden.to(dtype), head.weight.to(dtype), rows, tokens);
  } else {
    const at::Tensor all = logits(hidden);
    result = train::log_probs(all, rows, tokens);
    if (entropies) of_rows = row_entropies(all.detach());
  }
  if (entropies) *entropies = of_rows;
  return result;
}

}  // namespace erank::train
