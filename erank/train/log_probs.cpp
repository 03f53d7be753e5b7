#include "erank/train/log_probs.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/log.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "erank/base/error.h"

namespace erank::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Calls body(first row, number of rows) for pieces of about 16 MB of fp32.
template <typename Body>
void by_rows(const at::Tensor& logits, const Body& body) {
  const int64_t rows = logits.size(0);
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 22) / logits.size(1));
  for (int64_t first = 0; first < rows; first += step) body(first, std::min(step, rows - first));
}

struct LogProbs : torch::autograd::Function<LogProbs> {
  static at::Tensor forward(AutogradContext* ctx, const Variable& logits, const at::Tensor& rows,
                            const at::Tensor& tokens, double temperature) {
    const at::Tensor log_total = at::empty({logits.size(0)}, logits.options());
    by_rows(logits, [&](int64_t first, int64_t n) {
      const at::Tensor part = logits.narrow(0, first, n);
      log_total.narrow(0, first, n)
          .copy_(at::logsumexp(temperature == 1 ? part : part / temperature, {1}));
    });
    const at::Tensor places = rows * logits.size(1) + tokens;
    ctx->save_for_backward({logits, log_total, rows, places});
    ctx->saved_data["temperature"] = temperature;
    return logits.reshape({-1}).index_select(0, places) / temperature -
           log_total.index_select(0, rows);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &log_total = saved[1], &rows = saved[2];
    const double temperature = ctx->saved_data["temperature"].toDouble();
    const at::Tensor grad = grads[0] / temperature;
    const at::Tensor of_row = at::zeros({logits.size(0)}, grad.options()).index_add_(0, rows, grad);
    at::Tensor result = logits / temperature;
    result.sub_(log_total.unsqueeze(1)).exp_().mul_(of_row.neg().unsqueeze(1));
    result.view({-1}).index_add_(0, saved[3], grad);
    return {result, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor indices(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values).to(device);
}

}  // namespace

at::Tensor log_probs(const at::Tensor& logits, const at::Tensor& rows, const at::Tensor& tokens,
                     double temperature) {
  ERANK_CHECK(logits.dim() == 2 && temperature > 0);
  return LogProbs::apply(logits.contiguous(), rows, tokens, temperature);
}

at::Tensor log_complement(const at::Tensor& log_p) {
  return at::log(-at::expm1(at::clamp(log_p, std::nullopt, -1e-6)));
}

at::Tensor row_entropies(const at::Tensor& logits, double temperature) {
  const at::NoGradGuard no_grad;
  const at::Tensor result = at::empty({logits.size(0)}, logits.options());
  by_rows(logits, [&](int64_t first, int64_t n) {
    const at::Tensor part = logits.narrow(0, first, n) / temperature;
    const at::Tensor mean = at::softmax(part, 1).mul_(part).sum(1);
    result.narrow(0, first, n).copy_(at::logsumexp(part, {1}) - mean);
  });
  return result;
}

at::Tensor answer_log_probs(const at::Tensor& logits, const AnswerRows& rows) {
  const auto documents = std::ssize(rows.first), width = std::ssize(rows.tokens);
  const bool ten = !rows.after_one.empty();
  ERANK_CHECK(!ten || (std::ssize(rows.after_one) == documents && width == 10));
  std::vector<int64_t> at_rows, tokens;
  for (const int64_t row : rows.first)
    for (const int32_t token : rows.tokens) {
      at_rows.push_back(row);
      tokens.push_back(token);
    }
  for (const int64_t row : rows.after_one) {
    at_rows.push_back(row);
    tokens.push_back(rows.tokens[0]);
  }
  const at::Tensor log_p =
      log_probs(logits, indices(at_rows, logits.device()), indices(tokens, logits.device()));
  const at::Tensor first = log_p.narrow(0, 0, documents * width).view({documents, width});
  if (!ten) return first;
  const at::Tensor zero = log_p.narrow(0, documents * 10, documents).unsqueeze(1);
  const at::Tensor one = first.narrow(1, 1, 1);
  return at::cat(
      {first.narrow(1, 0, 1), one + log_complement(zero), first.narrow(1, 2, 8), one + zero}, 1);
}

}  // namespace erank::train
