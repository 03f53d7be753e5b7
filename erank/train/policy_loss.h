// The losses of policy optimisation, from log-probabilities to a scalar. A mini batch may be spread
// over several passes: every sum is divided by the mini batch's own counts, so the passes' losses
// and figures add up to the whole's. Pure; thread-safe.
//
// Of token t, log-probabilities at the sampling temperature by: the trained weights, l; the weights
// of the iteration's beginning, l_old; the reference, l_ref. A is its sequence's advantage.
//   rho = exp(clamp(l - l_old, -20, 20))
//   policy = max(-A rho, -A clip(rho, 1 - low, 1 + high)), for A < 0 at most -dual_clip A
//   d = clamp(l_ref - l, -20, 20), kl = clamp(exp(d) - d - 1, -10, 10)
//   loss = sum over learned t of w (c policy + kl_coef kl)
// PPO's clip (arXiv 1707.06347), with two bounds (DAPO, 2503.14476) and the dual clip of
// 1912.09729; KL's estimator k3 of joschu.net/blog/kl-approx.html, verl's "low_var_kl".
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "erank/train/communicator.h"
#include "erank/train/exact_rewards.h"

namespace erank::train {

// What w of a token is; n its sequence's learned tokens.
enum class LossAggregation {
  kTokens,     // 1 / the mini batch's learned tokens (verl's mean; what the paper ran)
  kSequences,  // 1 / (n times the mini batch's sequences): the formula as GRPO prints it
  kConstant,   // 1 / (constant_length times the sequences): Dr. GRPO, arXiv 2503.20783
};

enum class RatioKind {
  kToken,
  // rho is the exponential of the sequence's mean of l - l_old, and its gradient at a token that
  // of l there: GSPO, arXiv 2507.18071, section 4.3.
  kSequence,
  // policy = -A clip(rho, 1 - low, 1 + high) l, the clipped weight without a gradient: CISPO,
  // arXiv 2506.13585.
  kCispo,
};

// Rollouts that were cut at their budget.
enum class Overlong {
  kMask,     // teach nothing
  kPenalty,  // teach what their reward says
};

// The defaults are the paper's where it says one.
struct PolicyLossOptions {
  LossAggregation aggregation = LossAggregation::kTokens;
  RatioKind ratio = RatioKind::kToken;
  double clip_low = 0.2, clip_high = 0.2;
  double dual_clip = 3;  // over 1 + clip_high; not with kCispo
  double kl_coef = 0.001;
  // c = min(exp(clamp(l_old - l_sampler, -20, 20)), correction_cap) without a gradient, the weight
  // of a token that another network drew (truncated importance sampling); else c = 1.
  bool rollout_correction = false;
  double correction_cap = 2;
  Overlong overlong = Overlong::kMask;
  int64_t constant_length = 1024;  // kConstant: tokens
};

// S whole sequences, T tokens one sequence after another.
struct PolicySequences {
  std::vector<int64_t> lengths;       // [S]
  std::vector<double> advantages;     // [S]
  std::vector<uint8_t> overlong;      // [S] 1: cut at its budget
  std::vector<uint8_t> sampled;       // [T] 0: forced on the policy, never learned
  at::Tensor old_log_probs;           // [T]
  at::Tensor reference_log_probs;     // [T]; may be undefined where kl_coef is 0
  at::Tensor sampler_log_probs = {};  // [T]; with rollout_correction
};

// What a mini batch is divided by: the sum over its passes.
struct PolicyCounts {
  int64_t num_tokens = 0;     // learned
  int64_t num_sequences = 0;  // with a learned token

  PolicyCounts& operator+=(const PolicyCounts& other);
};
PolicyCounts count_learned(const PolicySequences& sequences, const PolicyLossOptions& options);

// Sums over learned tokens (documents with exact_policy_loss), to be added over passes.
struct PolicyFigures {
  int64_t count = 0;
  double kl = 0, entropy = 0, ratio = 0;
  // Tokens on which a bound took the gradient away: rho under the lower one with A < 0, over the
  // upper one with A > 0, over dual_clip with A < 0. With kCispo rho under or over a bound.
  int64_t clipped_low = 0, clipped_high = 0, clipped_dual = 0;
  double ratio_min = std::numeric_limits<double>::infinity();
  double ratio_max = -std::numeric_limits<double>::infinity();

  PolicyFigures& operator+=(const PolicyFigures& other);
  double mean(double sum) const { return count > 0 ? sum / static_cast<double>(count) : 0; }
};

// A collective: those of all ranks.
void all_sum(Communicator& ranks, PolicyFigures& figures);

struct PolicyLoss {
  at::Tensor loss;  // scalar, differentiable
  PolicyFigures figures;
};

// `log_probs` [T]: l, differentiable. `counts`: of the whole mini batch. `entropies` [T]: of the
// tokens' distributions, for the figures; may be undefined.
PolicyLoss policy_loss(const at::Tensor& log_probs, const PolicySequences& sequences,
                       const PolicyCounts& counts, const PolicyLossOptions& options,
                       const at::Tensor& entropies = {});

struct ExactLossOptions {
  int64_t num_documents = 0;  // of the whole mini batch
  double kl_coef = 0.001;
};

// The loss whose gradient is that of exact_rewards.h. `answers` [D, K]: log-probabilities of the
// answers (log_probs.h), differentiable; advantages [D]; `reference` [D, K], may be undefined
// where kl_coef is 0.
//   loss = sum_i (- sum_k A_ik p_ik + kl_coef KL(p_i || ref_i)) / num_documents
// over the K + 1 outcomes, KL being the expectation of k3 under p; probabilities of the last, 1 -
// sum p, below 1e-6 count as 1e-6 in it.
struct ExactLoss {
  at::Tensor loss;         // scalar, differentiable
  at::Tensor entropy, kl;  // sums over the documents, scalars for the figures; kl may be undefined
};
ExactLoss exact_policy_loss(const at::Tensor& answers, std::span<const Outcomes> advantages,
                            const at::Tensor& reference, const ExactLossOptions& options);

}  // namespace erank::train
