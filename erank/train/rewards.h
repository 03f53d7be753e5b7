// Rewards of one query's rollouts from how all its documents rank together (ERank, arXiv
// 2509.00520, section 3.3), and the pointwise reward that the paper compares with. Pure functions;
// thread-safe.
//
// N documents, G rollouts each; a rollout's score s is an answer on the model's scale, 0..S (10, 3
// or 1), or not formatted. phi = 1 + the number of formatted rollouts of the whole query with a
// greater score: all rollouts are sorted together, ties take the smallest rank. D_P are the
// documents graded at least `positive_grade`, D_N the others. Phi_min and Phi_max are the smallest
// and largest phi of the formatted rollouts of D_P. t is the document's reference score.
//
// clang-format off
//   case                rr                      ndcg                           se
//   formatted, D_P      1 / phi                 g f(phi) / IDCG                1 - ((s - t) / S)^2
//   D_N, phi < Phi_max  -1 (or -1 / Phi_min)    -1 (or -f(Phi_min) / IDCG)     the same
//   D_N, otherwise      1 - ((s - t) / S)^2     the same                       the same
//                       (or times 1 / Phi_max)  (or times f(Phi_max) / IDCG)
//   not formatted       -2                      -2                             -1
// clang-format on
//
// f(r) = 1 / log2(r + 1). g = the document's grade / the largest grade, IDCG = the sum of g f(r)
// over the best order of the G rollouts of every document of D_P; with equal grades these are the
// paper's. Where no rollout of D_P is formatted, every formatted one of D_N is "otherwise", times
// 1. Of equal scores none is above the other, as printed, so that one score for all documents is
// rewarded like a perfect order; or, with ties_above, one of D_N is above those of D_P.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "erank/text/scale.h"

namespace erank::train {

inline constexpr int kUnformatted = -1;  // a rollout without a score

enum class Reward { kRr, kNdcg, kSe };

// The paper prints the cases and their order; the two constants' readings are options.
struct RewardOptions {
  Reward reward = Reward::kRr;
  int positive_grade = 1;        // at least 1
  bool scale_above = false;      // negatives above a positive: by Phi_min instead of -1
  bool scale_otherwise = false;  // other negatives: times the value of Phi_max instead of 1
  bool ties_above = false;       // of equal scores those of D_N are sorted before those of D_P
};

enum class RewardCase { kPositive, kAbovePositive, kOtherwise, kUnformatted };

// The table above for one query.
class RewardTable {
 public:
  // `grades`, `reference`: [N]. `num_rollouts`: G, for IDCG. `scale`: of scores and reference.
  RewardTable(std::span<const int> grades, std::span<const double> reference, int64_t num_rollouts,
              const RewardOptions& options, text::Scale scale = text::Scale::kZeroToTen);

  const RewardOptions& options() const { return options_; }
  int max_score() const { return max_score_; }  // S
  int64_t num_documents() const { return static_cast<int64_t>(reference_.size()); }
  bool is_positive(int64_t document) const { return gains_[document] > 0; }

  // What rollouts are sorted by, 0..max_key(): phi counts those with a greater key.
  int key(int64_t document, int score) const;
  int max_key() const { return options_.ties_above ? 2 * max_score_ + 1 : max_score_; }

  // 1 / phi, or f(phi) / IDCG. REQUIRES: not kSe.
  double rank_value(int64_t phi) const;
  double positive(int64_t document, int64_t phi) const;
  double above_positive(int64_t phi_min) const;
  // `phi_max`: nullopt where no rollout of D_P is formatted.
  double otherwise(int64_t document, int score, std::optional<int64_t> phi_max) const;
  double squared_error(int64_t document, int score) const;  // 1 - ((s - t) / S)^2
  double unformatted() const { return options_.reward == Reward::kSe ? -1 : -2; }

 private:
  RewardOptions options_;
  int max_score_;
  std::vector<double> gains_;  // [N] g, 0 for D_N
  std::vector<double> reference_;
  double ideal_ = 0;  // IDCG
};

struct RolloutRewards {
  std::vector<double> values;     // [N, G]
  std::vector<RewardCase> cases;  // [N, G]; with kSe, kAbovePositive is not told from kOtherwise
};

// `scores` [N, G], row by row: 0..S or kUnformatted. REQUIRES: the table was made for G.
RolloutRewards rollout_rewards(const RewardTable& table, std::span<const int> scores);

}  // namespace erank::train
