#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <tuple>

#include "erank/train/kernels/cpu_kernels.h"
#include "erank/train/kernels/element_type.h"
#include "erank/train/kernels/grad_ops.h"

namespace erank::train::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Logits that are held at once, and what rows are taken by: libtorch caches a compiled matrix
// product for every count.
constexpr int64_t kHeld = int64_t{1} << 24, kRowMultiple = 32;

// With softmax p and its greatest entry k, d log p[t] / d hidden = W[t] - sum_v p[v] W[v]. Where
// the model is sure, t is k and nearly all of the sum is W[t] itself; so the sum is taken without
// k, and (1 - p[k]) comes from the others' sum.
struct HeadLogProbs : torch::autograd::Function<HeadLogProbs> {
  static variable_list forward(AutogradContext* ctx, const Variable& hidden,
                               const at::Tensor& weight, const at::Tensor& rows,
                               const at::Tensor& tokens, bool differentiable) {
    const int64_t count = hidden.size(0), vocab = weight.size(0);
    const auto fp32 = hidden.options().dtype(at::kFloat);
    const at::Tensor most = at::empty({count}, fp32), rest = at::empty({count}, fp32),
                     distance = at::empty({count}, fp32),
                     peaks = at::empty({count}, rows.options()),
                     chosen = at::empty(tokens.sizes(), fp32);
    const auto [of_row, order] = rows.sort(/*stable=*/true, 0, false);
    const at::Tensor places = of_row * vocab + tokens.index_select(0, order);
    const int64_t* first_row = of_row.const_data_ptr<int64_t>();
    const int64_t held =
        std::min(count, std::max(kRowMultiple, kHeld / vocab / kRowMultiple * kRowMultiple));
    const at::Tensor buffer = at::empty({held, vocab}, hidden.options());
    at::Tensor others;
    if (differentiable) others = at::empty_like(hidden);
    for (int64_t first = 0, term = 0; first < count; first += held) {
      const int64_t n = std::min(held, count - first);
      at::Tensor logits = buffer.narrow(0, 0, n);
      at::mm_out(logits, hidden.narrow(0, first, n), weight.t());
      const int64_t last =
          std::lower_bound(first_row + term, first_row + rows.numel(), first + n) - first_row;
      chosen.narrow(0, term, last - term)
          .copy_(logits.view({-1}).index_select(
              0, places.narrow(0, term, last - term) - first * vocab));
      term = last;
      with_type(logits, [&](auto* type) {
        using T = Element<decltype(type)>;
        at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r) {
            const SoftmaxRest found =
                cpu_kernels<T>().softmax_rest(data<T>(logits) + r * vocab, vocab);
            data<int64_t>(peaks)[first + r] = found.peak;
            data<float>(most)[first + r] = found.most;
            data<float>(rest)[first + r] = found.rest;
            data<float>(distance)[first + r] = found.distance;
          }
        });
      });
      if (differentiable) {
        at::Tensor sum = others.narrow(0, first, n);
        at::mm_out(sum, logits, weight);
      }
    }
    const at::Tensor log_total = at::log1p(rest), entropies = log_total + distance / (rest + 1);
    const at::Tensor log_probs = at::empty_like(chosen).index_copy_(
        0, order, chosen - (most + log_total).index_select(0, of_row));
    ctx->mark_non_differentiable({entropies});
    if (differentiable) ctx->save_for_backward({weight, rows, tokens, peaks, rest, others});
    return {log_probs, entropies};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &weight = saved[0], &rows = saved[1], &tokens = saved[2], &peaks = saved[3],
                     &rest = saved[4], &others = saved[5], &grad = grads[0];
    const at::Tensor of_peak = 1 / (rest + 1);  // [R] probabilities
    const auto sum_by_row = [&](const at::Tensor& x) {
      return at::zeros(rest.sizes(), rest.options()).index_add_(0, rows, x);
    };
    const auto weights = [&](const at::Tensor& ids, const at::Tensor& by) {
      return weight.index_select(0, ids).to(at::kFloat).mul_(by.unsqueeze(1));
    };
    const at::Tensor is_peak = tokens.eq(peaks.index_select(0, rows));
    at::Tensor result = others.to(at::kFloat);
    result.mul_((sum_by_row(grad) * of_peak).neg_().unsqueeze(1));
    result.index_add_(
        0, rows,
        weights(tokens, at::where(is_peak, grad * (rest * of_peak).index_select(0, rows), grad)));
    result.sub_(weights(peaks, sum_by_row(grad.masked_fill(is_peak, 0)) * of_peak));
    return {result.to(others.scalar_type()), {}, {}, {}, {}};
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> head_log_probs(const at::Tensor& hidden, const at::Tensor& weight,
                                                 const at::Tensor& rows, const at::Tensor& tokens) {
  ERANK_CHECK(!weight.requires_grad() && hidden.size(1) == weight.size(1));
  const auto out = HeadLogProbs::apply(hidden.contiguous(), weight, rows, tokens,
                                       hidden.requires_grad() && at::GradMode::is_enabled());
  return {out[0], out[1]};
}

}  // namespace erank::train::kernels
