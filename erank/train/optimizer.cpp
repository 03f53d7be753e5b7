#include "erank/train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "erank/base/error.h"

namespace erank::train {

AdamW::AdamW(std::vector<model::NamedParameter> parameters, const AdamWOptions& options)
    : options_(options) {
  const at::NoGradGuard no_grad;
  ERANK_CHECK(!parameters.empty());
  for (auto& parameter : parameters) {
    parameter.tensor.set_requires_grad(true);
    const at::Tensor plain = parameter.tensor.detach();
    Slot slot{
        parameter, plain.scalar_type() == at::kFloat ? plain : plain.to(at::kFloat), {}, {}, {}};
    slot.gradient = at::zeros_like(slot.master);
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
    slot.gradient.add_(grad);
    grad.reset();
  }
}

double AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (const Slot& slot : slots_) {
    const double norm = at::linalg_vector_norm(slot.gradient).item<double>();
    sum += norm * norm;
  }
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm))
    base::fail(base::ErrorKind::kInvalidInput, "train", "the gradients of step ", num_steps_ + 1,
               " are not finite; a smaller --learning-rate or --precision fp32 may help");
  // As torch.nn.utils.clip_grad_norm_.
  const double scale =
      options_.clip_norm > 0 ? std::min(1.0, options_.clip_norm / (norm + 1e-6)) : 1.0;
  ++num_steps_;
  const auto t = static_cast<double>(num_steps_);
  const double correction1 = 1 - std::pow(options_.beta1, t);
  const double correction2 = std::sqrt(1 - std::pow(options_.beta2, t));
  for (Slot& slot : slots_) {
    at::Tensor& g = slot.gradient;
    if (scale < 1) g.mul_(scale);
    if (options_.weight_decay != 0) slot.master.mul_(1 - learning_rate * options_.weight_decay);
    slot.exp_avg.lerp_(g, 1 - options_.beta1);
    slot.exp_avg_sq.mul_(options_.beta2).addcmul_(g, g, 1 - options_.beta2);
    const at::Tensor denominator = slot.exp_avg_sq.sqrt().div_(correction2).add_(options_.epsilon);
    slot.master.addcdiv_(slot.exp_avg, denominator, -learning_rate / correction1);
    if (slot.parameter.tensor.scalar_type() != at::kFloat)
      slot.parameter.tensor.detach().copy_(slot.master);
    g.zero_();
  }
  return norm;
}

std::vector<model::NamedParameter> AdamW::state() {
  std::vector<model::NamedParameter> all;
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
