#include "erank/text/score_distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"

namespace erank::text {
namespace {

constexpr double kRounding = 1e-3;  // probabilities of a bf16 run may pass 1 by this much

}  // namespace

ScoreDistribution ScoreDistribution::from_digits(std::span<const double, 10> digits,
                                                 double zero_after_one, bool ten_follows_one) {
  ERANK_CHECK(zero_after_one >= 0 && zero_after_one <= 1 + kRounding, "Pr(0|1) = ", zero_after_one);
  ScoreDistribution result;
  double sum = 0;
  for (size_t d = 0; d < digits.size(); ++d) {
    ERANK_CHECK(digits[d] >= 0 && digits[d] <= 1 + kRounding, "Pr(", d, ") = ", digits[d]);
    result.p[d] = digits[d];
    sum += digits[d];
  }
  // By differences, so that p[1] + p[10] is exactly Pr("1") (the larger part is at least half of
  // it, hence taking it away rounds nothing), and greedy() sees the ties of equal logits as the
  // decoder sees them.
  result.p[1] = digits[1] - digits[1] * std::min(zero_after_one, 1.0);
  result.p[10] = digits[1] - result.p[1];
  result.p_other = std::max(0.0, 1.0 - sum);
  result.ten_follows_one = ten_follows_one;
  return result;
}

ScoreDistribution ScoreDistribution::from_answers(Scale scale, std::span<const double> answers) {
  ScoreDistribution result;
  result.scale = scale;
  ERANK_CHECK(scale != Scale::kZeroToTen && answers.size() == result.answers().size());
  double sum = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    ERANK_CHECK(answers[i] >= 0 && answers[i] <= 1 + kRounding, "Pr(", i, ") = ", answers[i]);
    sum += result.p[i] = answers[i];
  }
  result.p_other = std::max(0.0, 1.0 - sum);
  return result;
}

int ScoreDistribution::greedy() const {
  if (scale != Scale::kZeroToTen) {
    const auto all = answers();
    return static_cast<int>(std::max_element(all.begin(), all.end()) - all.begin());
  }
  int best = 0;
  double best_p = p[0];
  for (int d = 1; d <= 9; ++d) {
    const double digit = d == 1 ? p[1] + p[10] : p[d];
    if (digit > best_p) {
      best = d;
      best_p = digit;
    }
  }
  return best == 1 && ten_follows_one ? 10 : best;
}

double ScoreDistribution::expected() const {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  if (!(sum > 0)) return 0;
  double weighted = 0;
  for (size_t i = 0; i < p.size(); ++i) weighted += static_cast<double>(i) * p[i];
  return std::clamp(weighted / sum, 0.0, static_cast<double>(max_answer(scale)));
}

double ScoreDistribution::entropy() const {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  if (!(sum > 0)) return 0;
  double entropy = 0;
  for (const double value : p) {
    if (const double share = value / sum; share > 0) entropy -= share * std::log(share);
  }
  return std::max(entropy, 0.0);
}

}  // namespace erank::text
