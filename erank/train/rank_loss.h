// Losses that compare a query's documents with each other, to be added to fine-tuning's. Pure;
// thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace erank::train {

// answers [D, K]: log-probabilities of the scale's answers (log_probs.h) -> z [D] = sum k p_k / sum
// p_k, the score that serving sorts by (text::ScoreDistribution::expected). Differentiable.
at::Tensor expected_scores(const at::Tensor& answers);

// z and targets t [n], of one query's n documents -> a scalar, differentiable in z; 0 for n = 1.
// The mean over pairs i < j of ((z_i - z_j) - (t_i - t_j))^2.
at::Tensor margin_loss(const at::Tensor& z, const at::Tensor& targets);
// The cross entropy of softmax(t / T) with softmax(z / T). Its least value is the entropy of the
// first.
at::Tensor softmax_loss(const at::Tensor& z, const at::Tensor& targets, double temperature);

enum class RankLoss { kNone, kMargin, kSoftmax };

struct RankLossOptions {
  RankLoss kind = RankLoss::kNone;
  double temperature = 1;  // kSoftmax
};

// The sum of the loss over queries; query q has the next sizes[q] documents of z and targets [D].
// REQUIRES: kind is not kNone, and at least one query.
at::Tensor rank_loss(const at::Tensor& z, const at::Tensor& targets,
                     const std::vector<int64_t>& sizes, const RankLossOptions& options);

}  // namespace erank::train
