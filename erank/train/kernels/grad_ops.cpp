#include "erank/train/kernels/grad_ops.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "erank/train/kernels/cpu_kernels.h"
#include "erank/train/kernels/element_type.h"

namespace erank::train::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct AddRmsNorm : torch::autograd::Function<AddRmsNorm> {
  static variable_list forward(AutogradContext* ctx, const Variable& x,
                               const std::optional<at::Tensor>& delta, const Variable& weight,
                               double eps) {
    const at::Tensor sum = delta ? at::add(x, *delta) : x;
    at::Tensor y = at::empty_like(sum);
    const int64_t hidden = sum.size(1);
    with_type(sum, [&](auto* type) {
      using T = Element<decltype(type)>;
      const AddRmsNormArgs<T> args{data<T>(sum), nullptr, data<T>(weight),
                                   data<T>(y),   hidden,  static_cast<float>(eps)};
      at::parallel_for(0, sum.size(0), row_grain(hidden), [&](int64_t begin, int64_t end) {
        cpu_kernels<T>().add_rms_norm(args, begin, end);
      });
    });
    ctx->save_for_backward({sum, weight});
    ctx->set_materialize_grads(false);
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["has_delta"] = delta.has_value();
    return {sum.is_same(x) ? x.view_as(x) : sum, y};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto eps = static_cast<float>(ctx->saved_data["eps"].toDouble());
    const int64_t hidden = x.size(1);
    if (!grads[1].defined()) grads[1] = at::zeros_like(x);
    const at::Tensor grad_y = grads[1].contiguous();
    const at::Tensor through = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
    at::Tensor grad_x = at::empty_like(x), grad_weight;
    const bool has_delta = ctx->saved_data["has_delta"].toBool();
    const bool wants_weight = ctx->needs_input_grad(has_delta ? 2 : 1);
    const int threads = at::get_num_threads();
    at::Tensor sums;
    if (wants_weight) sums = at::zeros({threads, hidden}, x.options().dtype(at::kFloat));
    with_type(x, [&](auto* type) {
      using T = Element<decltype(type)>;
      // A fixed share of rows for each thread, so that the sums' order never changes.
      at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          cpu_kernels<T>().rms_norm_backward(
              {data<T>(x), data<T>(weight), data<T>(grad_y), data<T>(through), data<T>(grad_x),
               wants_weight ? data<float>(sums) + i * hidden : nullptr, hidden, eps},
              x.size(0) * i / threads, x.size(0) * (i + 1) / threads);
      });
    });
    if (wants_weight) grad_weight = sums.sum(0).to(weight.scalar_type());
    return {grad_x, has_delta ? grad_x : at::Tensor(), grad_weight, at::Tensor()};
  }
};

struct SiluMul : torch::autograd::Function<SiluMul> {
  static Variable forward(AutogradContext* ctx, const Variable& gate_up) {
    const int64_t width = gate_up.size(1) / 2;
    at::Tensor y = at::empty({gate_up.size(0), width}, gate_up.options());
    with_type(gate_up, [&](auto* type) {
      using T = Element<decltype(type)>;
      at::parallel_for(0, y.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
        cpu_kernels<T>().silu_mul(data<T>(gate_up), data<T>(y), width, begin, end);
      });
    });
    ctx->save_for_backward({gate_up});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0], grad_y = grads[0].contiguous();
    at::Tensor grad = at::empty_like(gate_up);
    const int64_t width = grad_y.size(1);
    with_type(gate_up, [&](auto* type) {
      using T = Element<decltype(type)>;
      const SiluMulBackwardArgs<T> args{data<T>(gate_up), data<T>(grad_y), data<T>(grad), width};
      at::parallel_for(0, grad_y.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
        cpu_kernels<T>().silu_mul_backward(args, begin, end);
      });
    });
    return {grad};
  }
};

// A part's share of the outputs, and its adapter's rank (0: none) and scaling. Lists, because that
// is what a context saves.
struct Parts {
  std::vector<int64_t> outputs, ranks;
  std::vector<double> scalings;
};

// The parts' adapters as one: A stacked [R, in], scaling * B on a block diagonal [out, R].
struct StackedAdapters {
  at::Tensor a, b;
};
StackedAdapters stack(const at::Tensor& weight, const Parts& parts, at::TensorList adapters,
                      at::ScalarType dtype) {
  std::vector<at::Tensor> as;
  for (size_t i = 0; i < adapters.size(); i += 2) as.push_back(adapters[i]);
  StackedAdapters stacked;
  stacked.a = at::cat(as, 0).to(dtype);
  stacked.b = at::zeros({weight.size(0), stacked.a.size(0)}, weight.options().dtype(dtype));
  int64_t row = 0, rank = 0;
  size_t next = 1;
  for (size_t i = 0; i < parts.outputs.size();
       row += parts.outputs[i], rank += parts.ranks[i], ++i) {
    if (parts.ranks[i] == 0) continue;
    stacked.b.narrow(0, row, parts.outputs[i])
        .narrow(1, rank, parts.ranks[i])
        .copy_(adapters[next] * parts.scalings[i]);
    next += 2;
  }
  return stacked;
}

struct LoraLinear : torch::autograd::Function<LoraLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight,
                          const std::optional<at::Tensor>& bias, const Parts& parts,
                          at::TensorList adapters) {
    const auto [a, b] = stack(weight, parts, adapters, x.scalar_type());
    const at::Tensor low = at::mm(x, a.t());
    at::Tensor y = at::linear(x, weight, bias);
    y.addmm_(low, b.t());
    variable_list saved = {x, weight, low};
    saved.insert(saved.end(), adapters.begin(), adapters.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["outputs"] = parts.outputs;
    ctx->saved_data["ranks"] = parts.ranks;
    ctx->saved_data["scalings"] = parts.scalings;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &low = saved[2];
    const at::TensorList adapters = at::TensorList(saved).slice(3);
    const Parts parts{ctx->saved_data["outputs"].toIntVector(),
                      ctx->saved_data["ranks"].toIntVector(),
                      ctx->saved_data["scalings"].toDoubleVector()};
    const at::Tensor grad = grads[0].contiguous();
    const auto [a, b] = stack(weight, parts, adapters, x.scalar_type());
    const at::Tensor grad_low = at::mm(grad, b);  // scaled
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) {
      grad_x = at::mm(grad, weight);
      grad_x.addmm_(grad_low, a);
    }
    const at::Tensor grad_a = at::mm(grad_low.t(), x).to(at::kFloat);
    variable_list out = {grad_x, {}, {}, {}};
    int64_t row = 0, rank = 0;
    for (size_t i = 0; i < parts.outputs.size();
         row += parts.outputs[i], rank += parts.ranks[i], ++i) {
      const int64_t r = parts.ranks[i];
      if (r == 0) continue;
      out.push_back(grad_a.narrow(0, rank, r));
      const at::Tensor grad_b =
          at::mm(grad.narrow(1, row, parts.outputs[i]).t(), low.narrow(1, rank, r));
      out.push_back(grad_b.to(at::kFloat) * parts.scalings[i]);
    }
    return out;
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& delta,
                                               const at::Tensor& weight, double eps) {
  const auto out = AddRmsNorm::apply(
      x, delta.defined() ? std::optional<at::Tensor>(delta) : std::nullopt, weight, eps);
  return {out[0], out[1]};
}

at::Tensor silu_mul(const at::Tensor& gate_up) { return SiluMul::apply(gate_up); }

at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const std::vector<const model::Linear*>& parts) {
  Parts shares;
  variable_list adapters;
  for (const model::Linear* part : parts) {
    shares.outputs.push_back(part->weight.size(0));
    shares.ranks.push_back(part->lora ? part->lora->a.size(0) : 0);
    shares.scalings.push_back(part->lora ? part->lora->scaling : 0);
    if (part->lora) adapters.insert(adapters.end(), {part->lora->a, part->lora->b});
  }
  return LoraLinear::apply(x, weight,
                           bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, shares,
                           at::TensorList(adapters));
}

}  // namespace erank::train::kernels
