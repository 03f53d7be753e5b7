#include "erank/train/rank_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>

#include <algorithm>

#include "erank/base/error.h"

namespace erank::train {

at::Tensor expected_scores(const at::Tensor& answers) {
  return (at::softmax(answers, 1) * at::arange(answers.size(1), answers.options())).sum(1);
}

at::Tensor margin_loss(const at::Tensor& z, const at::Tensor& targets) {
  // With e = z - t, the mean of (e_i - e_j)^2 over pairs is twice the sample variance of e.
  const at::Tensor error = z - targets, centred = error - error.mean();
  const auto others = static_cast<double>(std::max<int64_t>(1, z.size(0) - 1));
  return centred.square().sum() * (2 / others);
}

at::Tensor softmax_loss(const at::Tensor& z, const at::Tensor& targets, double temperature) {
  return -(at::softmax(targets / temperature, 0) * at::log_softmax(z / temperature, 0)).sum();
}

at::Tensor rank_loss(const at::Tensor& z, const at::Tensor& targets,
                     const std::vector<int64_t>& sizes, const RankLossOptions& options) {
  ERANK_CHECK(options.kind != RankLoss::kNone && !sizes.empty() && options.temperature > 0);
  at::Tensor sum;
  int64_t first = 0;
  for (const int64_t size : sizes) {
    const at::Tensor a = z.narrow(0, first, size), b = targets.narrow(0, first, size);
    const at::Tensor loss = options.kind == RankLoss::kMargin
                                ? margin_loss(a, b)
                                : softmax_loss(a, b, options.temperature);
    sum = sum.defined() ? sum + loss : loss;
    first += size;
  }
  ERANK_CHECK(first == z.size(0) && z.sizes() == targets.sizes());
  return sum;
}

}  // namespace erank::train
