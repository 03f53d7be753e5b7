#include "erank/train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "erank/base/error.h"
#include "erank/model/tensor_file.h"

namespace erank::train {

AdamW::AdamW(std::vector<model::NamedTensor> parameters, const AdamWOptions& options,
             Communicator& ranks)
    : options_(options), ranks_(ranks), starts_{0} {
  const at::NoGradGuard no_grad;
  ERANK_CHECK(!parameters.empty());
  std::vector<int64_t> sizes;
  for (const auto& parameter : parameters) sizes.push_back(parameter.tensor.numel());
  const auto owners = share_out(sizes, ranks.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].tensor.set_requires_grad(true);
    Slot slot{parameters[i], owners[i], {}, {}, {}};
    if (owns(slot)) {
      const at::Tensor plain = slot.parameter.tensor.detach();
      slot.master = slot.has_master() ? plain.to(at::kFloat) : plain;
      slot.exp_avg = at::zeros_like(slot.master);
      slot.exp_avg_sq = at::zeros_like(slot.master);
    }
    slots_.push_back(std::move(slot));
    starts_.push_back(starts_.back() + sizes[i]);
  }
}

at::Tensor AdamW::gradient(size_t slot) const {
  return gradients_.slice(0, starts_[slot], starts_[slot + 1])
      .view(slots_[slot].parameter.tensor.sizes());
}

void AdamW::backward(const at::Tensor& loss) {
  loss.backward();
  const at::NoGradGuard no_grad;
  const bool first = !gradients_.defined();
  if (first)
    gradients_ =
        at::empty({starts_.back()}, slots_.front().parameter.tensor.options().dtype(at::kFloat));
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor& grad = slots_[i].parameter.tensor.mutable_grad();
    const at::Tensor sum = gradient(i);
    if (!grad.defined()) {
      if (first) sum.zero_();
    } else if (first) {
      sum.copy_(grad);
    } else {
      sum.add_(grad);
    }
    grad.reset();
  }
}

double AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  const auto values = slots_.front().parameter.tensor.options().dtype(at::kFloat);
  if (!gradients_.defined()) gradients_ = at::zeros({starts_.back()}, values);
  ranks_.all_reduce(gradients_);
  std::vector<at::Tensor> norms;  // read at once: on a GPU every reading waits for it
  for (size_t i = 0; i < slots_.size(); ++i) norms.push_back(at::linalg_vector_norm(gradient(i)));
  const double norm =
      at::linalg_vector_norm(at::stack(norms), 2, std::nullopt, false, at::kDouble).item<double>();
  if (!std::isfinite(norm)) {
    gradients_.reset();
    return norm;
  }
  ++num_steps_;
  // One pass over memory: of a whole model's parameters that is what a step costs.
  std::vector<at::Tensor> masters, gradients, exp_avgs, exp_avg_sqs;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!owns(slots_[i])) continue;
    masters.push_back(slots_[i].master);
    gradients.push_back(gradient(i));
    exp_avgs.push_back(slots_[i].exp_avg);
    exp_avg_sqs.push_back(slots_[i].exp_avg_sq);
  }
  const std::vector<at::Tensor> steps(masters.size(),
                                      at::full({}, static_cast<double>(num_steps_), values));
  // As torch.nn.utils.clip_grad_norm_; gradients are divided by it.
  std::optional<at::Tensor> divisor;
  if (options_.clip_norm > 0 && norm + 1e-6 > options_.clip_norm)
    divisor = at::full({}, (norm + 1e-6) / options_.clip_norm, values);
  if (!masters.empty())
    at::_fused_adamw_(masters, gradients, exp_avgs, exp_avg_sqs, {}, steps, learning_rate,
                      options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, divisor);
  gradients_.reset();
  for (const Slot& slot : slots_)
    if (owns(slot) && slot.has_master()) slot.parameter.tensor.detach().copy_(slot.master);
  exchange_parameters();
  return norm;
}

// Each owner's as one tensor.
void AdamW::exchange_parameters() {
  if (ranks_.size() == 1) return;
  for (int owner = 0; owner < ranks_.size(); ++owner) {
    int64_t count = 0;
    for (const Slot& slot : slots_)
      count += slot.owner == owner ? slot.parameter.tensor.numel() : 0;
    const at::Tensor all = at::empty({count}, slots_.front().parameter.tensor.options());
    const auto for_each = [&](const auto& body) {
      int64_t first = 0;
      for (const Slot& slot : slots_) {
        if (slot.owner != owner) continue;
        const at::Tensor parameter = slot.parameter.tensor.detach();
        body(all.slice(0, first, first + parameter.numel()).view(parameter.sizes()), parameter);
        first += parameter.numel();
      }
    };
    if (owner == ranks_.rank())
      for_each([](const at::Tensor& in_all, const at::Tensor& p) { in_all.copy_(p); });
    ranks_.broadcast(all, owner);
    if (owner != ranks_.rank())
      for_each([](const at::Tensor& in_all, const at::Tensor& p) { p.copy_(in_all); });
  }
}

bool AdamW::is_finite() const {
  const auto part_is = [](const at::Tensor& tensor) {
    return !tensor.defined() || model::is_finite(tensor);
  };
  const bool finite = std::all_of(slots_.begin(), slots_.end(), [&](const Slot& slot) {
    return part_is(slot.parameter.tensor) && part_is(slot.master) && part_is(slot.exp_avg) &&
           part_is(slot.exp_avg_sq);
  });
  return !any(ranks_, !finite);
}

std::vector<AdamW::Part> AdamW::parts() const {
  std::vector<Part> all;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const std::string& name = slots_[i].parameter.name;
    all.push_back({name + ".exp_avg", i, &Slot::exp_avg});
    all.push_back({name + ".exp_avg_sq", i, &Slot::exp_avg_sq});
    if (slots_[i].has_master()) all.push_back({name + ".master", i, &Slot::master});
  }
  return all;
}

void AdamW::save(const std::string& path) const {
  const at::NoGradGuard no_grad;
  std::vector<model::NamedShape> shapes;
  const auto all = parts();
  for (const Part& part : all)
    shapes.push_back({part.name, slots_[part.slot].parameter.tensor.sizes().vec()});
  const auto fetch = [&](size_t i) {
    const Slot& slot = slots_[all[i].slot];
    const at::Tensor& own = slot.*all[i].tensor;
    if (slot.owner == 0) return own;  // of rank 0, which writes
    const at::Tensor there = own.defined()
                                 ? own.contiguous()
                                 : at::empty(slot.parameter.tensor.sizes(),
                                             slot.parameter.tensor.options().dtype(at::kFloat));
    ranks_.broadcast(there, slot.owner);
    return there;
  };
  if (ranks_.rank() == 0) return model::save_tensors(path, shapes, at::kFloat, fetch);
  for (size_t i = 0; i < all.size(); ++i) fetch(i);
}

void AdamW::load(const std::string& path, int64_t num_steps) {
  const at::NoGradGuard no_grad;
  std::vector<model::NamedTensor> tensors;
  for (const Part& part : parts()) tensors.push_back({part.name, slots_[part.slot].*part.tensor});
  model::load_tensors(path, tensors);
  num_steps_ = num_steps;
  for (const Slot& slot : slots_)
    if (owns(slot) && slot.has_master()) slot.parameter.tensor.detach().copy_(slot.master);
}

int64_t AdamW::num_values() const { return starts_.back(); }

int64_t AdamW::state_bytes() const {
  std::vector<int64_t> bytes(static_cast<size_t>(ranks_.size()), 0);
  for (const Slot& slot : slots_) {
    const auto width = static_cast<int64_t>(slot.parameter.tensor.element_size());
    for (int64_t& at_rank : bytes) at_rank += slot.parameter.tensor.numel() * (4 + width);
    bytes[static_cast<size_t>(slot.owner)] +=
        slot.parameter.tensor.numel() * (slot.has_master() ? 12 : 8);
  }
  return *std::max_element(bytes.begin(), bytes.end());
}

}  // namespace erank::train
