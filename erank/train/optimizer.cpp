#include "erank/train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "erank/base/error.h"
#include "erank/model/tensor_file.h"

namespace erank::train {

AdamW::AdamW(std::vector<model::NamedTensor> parameters, const AdamWOptions& options)
    : options_(options) {
  const at::NoGradGuard no_grad;
  ERANK_CHECK(!parameters.empty());
  for (auto& parameter : parameters) {
    parameter.tensor.set_requires_grad(true);
    const at::Tensor plain = parameter.tensor.detach();
    Slot slot{
        parameter, plain.scalar_type() == at::kFloat ? plain : plain.to(at::kFloat), {}, {}, {}};
    slot.exp_avg = at::zeros_like(slot.master);
    slot.exp_avg_sq = at::zeros_like(slot.master);
    slots_.push_back(std::move(slot));
  }
}

void AdamW::backward(const at::Tensor& loss) {
  loss.backward();
  const at::NoGradGuard no_grad;
  for (Slot& slot : slots_) {
    at::Tensor& grad = slot.parameter.tensor.mutable_grad();
    if (!grad.defined()) continue;
    if (slot.gradient.defined())
      slot.gradient.add_(grad);
    else
      slot.gradient = grad.to(at::kFloat).contiguous();
    grad.reset();
  }
}

double AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> norms;  // read at once: on a GPU every reading waits for it
  for (Slot& slot : slots_) {
    if (!slot.gradient.defined()) slot.gradient = at::zeros_like(slot.master);
    norms.push_back(at::linalg_vector_norm(slot.gradient));
  }
  const double norm =
      at::linalg_vector_norm(at::stack(norms), 2, std::nullopt, false, at::kDouble).item<double>();
  if (!std::isfinite(norm)) {
    for (Slot& slot : slots_) slot.gradient.reset();
    return norm;
  }
  ++num_steps_;
  // One pass over memory: of a whole model's parameters that is what a step costs.
  std::vector<at::Tensor> masters, gradients, exp_avgs, exp_avg_sqs;
  for (const Slot& slot : slots_) {
    masters.push_back(slot.master);
    gradients.push_back(slot.gradient);
    exp_avgs.push_back(slot.exp_avg);
    exp_avg_sqs.push_back(slot.exp_avg_sq);
  }
  const auto scalar = masters.front().options();
  const std::vector<at::Tensor> steps(masters.size(),
                                      at::full({}, static_cast<double>(num_steps_), scalar));
  // As torch.nn.utils.clip_grad_norm_; gradients are divided by it.
  std::optional<at::Tensor> divisor;
  if (options_.clip_norm > 0 && norm + 1e-6 > options_.clip_norm)
    divisor = at::full({}, (norm + 1e-6) / options_.clip_norm, scalar);
  at::_fused_adamw_(masters, gradients, exp_avgs, exp_avg_sqs, {}, steps, learning_rate,
                    options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false, divisor);
  for (Slot& slot : slots_) {
    if (slot.parameter.tensor.scalar_type() != at::kFloat)
      slot.parameter.tensor.detach().copy_(slot.master);
    slot.gradient.reset();
  }
  return norm;
}

bool AdamW::is_finite() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return model::is_finite(slot.parameter.tensor) && model::is_finite(slot.master) &&
           model::is_finite(slot.exp_avg) && model::is_finite(slot.exp_avg_sq);
  });
}

std::vector<model::NamedTensor> AdamW::state() {
  std::vector<model::NamedTensor> all;
  for (const Slot& slot : slots_) {
    const std::string& name = slot.parameter.name;
    all.push_back({name + ".exp_avg", slot.exp_avg});
    all.push_back({name + ".exp_avg_sq", slot.exp_avg_sq});
    if (slot.parameter.tensor.scalar_type() != at::kFloat)
      all.push_back({name + ".master", slot.master});
  }
  return all;
}

void AdamW::restored(int64_t num_steps) {
  const at::NoGradGuard no_grad;
  num_steps_ = num_steps;
  for (Slot& slot : slots_)
    if (slot.parameter.tensor.scalar_type() != at::kFloat)
      slot.parameter.tensor.detach().copy_(slot.master);
}

int64_t AdamW::num_values() const {
  int64_t count = 0;
  for (const Slot& slot : slots_) count += slot.master.numel();
  return count;
}

int64_t AdamW::state_bytes() const {
  int64_t bytes = 0;
  for (const Slot& slot : slots_)
    bytes += slot.master.numel() * (slot.parameter.tensor.scalar_type() == at::kFloat ? 12 : 16);
  return bytes;
}

}  // namespace erank::train
