// Reinforcement learning of direct answers without sampling. Where there is no reasoning, what the
// model can do for a document is one of K + 1 outcomes: one of its scale's K answers (11, 4 or 2),
// k, with probability p_k (they are over the whole vocabulary), or anything else, not formatted,
// with p_K = 1 - sum p_k. With one rollout a document, the objective is
//
//   J = sum_i E[r_i(a_1, ..., a_N)],  a_j drawn from p_j independently,
//
// r_i being document i's reward (rewards.h, G = 1). As in GRPO a document's probabilities are moved
// by its own reward alone. With R_ik = E[r_i | a_i = k], taken over the others' draws, and b_i =
// sum_k p_ik R_ik, the gradient is
//
//   sum_i sum_k A_ik grad p_ik,  A_ik = R_ik - b_i  (or (R_ik - b_i) / (sqrt(Var) + 1e-6)),
//
// which is what REINFORCE with the mean as its baseline estimates. R is computed exactly: phi - 1
// of answer k is the number of other documents with an answer above k, a Poisson-binomial variable;
// k is above a positive unless every positive answers at least k or nothing; of Phi_min and Phi_max
// the joint distributions with that event are polynomials of the same kind. O(N^3) for a query.
// Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "erank/train/rewards.h"

namespace erank::train {

// [K + 1]: a number for each answer, then one for what is not formatted.
using Outcomes = std::vector<double>;

// The outcomes' probabilities from those of the K answers, whose sum may pass 1 by rounding.
Outcomes outcomes_of(std::span<const double> answers);

// policies [N] -> R [N]. REQUIRES: the table was made for one rollout a document and for the
// policies' scale; each policy sums to 1.
std::vector<Outcomes> expected_rewards(const RewardTable& table,
                                       std::span<const Outcomes> policies);

struct ExactAdvantages {
  std::vector<Outcomes> values;  // [N] A; where a document has no spread, 0
  std::vector<double> rewards;   // [N] b
  int64_t num_flat = 0;          // documents whose sqrt(Var) is below 1e-9
};

ExactAdvantages exact_advantages(std::span<const Outcomes> rewards,
                                 std::span<const Outcomes> policies, bool divide_by_std = true);

}  // namespace erank::train
