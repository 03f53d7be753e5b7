#include "erank/train/exact_rewards.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"
#include "erank/train/advantages.h"

namespace erank::train {
namespace {

// Coefficients of a polynomial in x. A document contributes the factor stay + count x, so that
// coefficient n is the probability that n of the documents are counted (and none is excluded).
using Polynomial = std::vector<double>;

void multiply(Polynomial& p, double stay, double count) {
  p.push_back(0);
  for (size_t n = p.size() - 1; n > 0; --n) p[n] = p[n] * stay + p[n - 1] * count;
  p[0] *= stay;
}

Polynomial multiply(const Polynomial& a, const Polynomial& b) {
  Polynomial product(a.size() + b.size() - 1);
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < b.size(); ++j) product[i + j] += a[i] * b[j];
  return product;
}

// Pr(first <= key <= last).
double between(const Outcomes& p, int first, int last) {
  double sum = 0;
  for (int k = first; k <= last; ++k) sum += p[k];
  return sum;
}

class Query {
 public:
  Query(const RewardTable& table, std::span<const Outcomes> policies)
      : table_(table), last_(table.max_key()) {
    for (int64_t j = 0; j < table.num_documents(); ++j) {
      has_positive_ |= table.is_positive(j);
      Outcomes& keys = keys_.emplace_back(last_ + 2);
      for (int k = 0; k <= table.max_score(); ++k) keys[table.key(j, k)] = policies[j][k];
      keys.back() = policies[j].back();
    }
  }

  Outcomes rewards_of(int64_t document) const {
    Outcomes rewards;
    for (int score = 0; score <= table_.max_score(); ++score) {
      const int k = table_.key(document, score);
      rewards.push_back(table_.options().reward == Reward::kSe
                            ? table_.squared_error(document, score)
                        : table_.is_positive(document)
                            ? positive(document, k)
                            : above_positive(document, k) + otherwise(document, k, score));
    }
    rewards.push_back(table_.unformatted());
    return rewards;
  }

 private:
  enum class Which { kAll, kPositive, kNegative };

  template <typename Visit>
  void for_others(int64_t document, Which which, const Visit& visit) const {
    for (int64_t j = 0; j < table_.num_documents(); ++j)
      if (j != document &&
          (which == Which::kAll || table_.is_positive(j) == (which == Which::kPositive)))
        visit(keys_[j]);
  }

  // How many other documents of a kind have a key above m.
  Polynomial count_above(int64_t document, Which which, int m) const {
    Polynomial counts = {1};
    for_others(document, which, [&](const Outcomes& p) {
      const double above = between(p, m + 1, last_);
      multiply(counts, 1 - above, above);
    });
    return counts;
  }

  double positive(int64_t document, int k) const {
    const Polynomial counts = count_above(document, Which::kAll, k);
    double expected = 0;
    for (size_t n = 0; n < counts.size(); ++n)
      expected += counts[n] * table_.positive(document, static_cast<int64_t>(n) + 1);
    return expected;
  }

  // Pr(every positive's key is within [first, last], or it is not formatted).
  double positives_within(int64_t document, int first, int last) const {
    double product = 1;
    for_others(document, Which::kPositive,
               [&](const Outcomes& p) { product *= between(p, first, last) + p.back(); });
    return product;
  }

  // E[reward; some positive's key is below k].
  double above_positive(int64_t document, int k) const {
    if (!has_positive_) return 0;
    if (!table_.options().scale_above) return -(1 - positives_within(document, k, last_));
    double expected = 0;
    for (int m = 0; m <= last_; ++m) {    // the highest key of a positive
      const auto up_to = [&](int last) {  // Pr(none above `last`, some below k)
        return positives_within(document, 0, last) - positives_within(document, k, last);
      };
      const double probability = up_to(m) - up_to(m - 1);
      const Polynomial counts = count_above(document, Which::kNegative, m);
      const int64_t own = k > m ? 1 : 0;
      for (size_t n = 0; n < counts.size(); ++n)
        expected +=
            probability * counts[n] * table_.above_positive(static_cast<int64_t>(n) + 1 + own);
    }
    return expected;
  }

  // E[reward; no positive's key is below k].
  double otherwise(int64_t document, int k, int score) const {
    if (!table_.options().scale_otherwise || !has_positive_)
      return positives_within(document, k, last_) * table_.otherwise(document, score, std::nullopt);
    double expected =
        positives_within(document, 1, 0) * table_.otherwise(document, score, std::nullopt);
    for (int m = k; m <= last_; ++m) {  // the lowest key of a positive
      // Of the positives at m or above, how many are above it; less those without one at m.
      Polynomial from = {1}, beyond = {1};
      for_others(document, Which::kPositive, [&](const Outcomes& p) {
        const double above = between(p, m + 1, last_);
        multiply(from, p[m] + p.back(), above);
        multiply(beyond, p.back(), above);
      });
      for (size_t n = 0; n < from.size(); ++n) from[n] -= beyond[n];
      const Polynomial counts = multiply(from, count_above(document, Which::kNegative, m));
      for (size_t n = 0; n < counts.size(); ++n)
        expected += counts[n] * table_.otherwise(document, score, static_cast<int64_t>(n) + 1);
    }
    return expected;
  }

  const RewardTable& table_;
  std::vector<Outcomes> keys_;  // [N] a document's outcomes by key in place of answer
  int last_;                    // the largest key
  bool has_positive_ = false;
};

}  // namespace

Outcomes outcomes_of(std::span<const double> answers) {
  Outcomes outcomes(answers.begin(), answers.end());
  const double sum = std::accumulate(answers.begin(), answers.end(), 0.0);
  ERANK_CHECK(sum >= 0 && sum < 1.01, "probabilities of the answers sum to ", sum);
  if (sum > 1)
    for (double& p : outcomes) p /= sum;
  outcomes.push_back(std::max(0.0, 1 - sum));
  return outcomes;
}

std::vector<Outcomes> expected_rewards(const RewardTable& table,
                                       std::span<const Outcomes> policies) {
  ERANK_CHECK(table.num_documents() == std::ssize(policies));
  for (const Outcomes& p : policies)
    ERANK_CHECK(std::ssize(p) == table.max_score() + 2 &&
                std::abs(std::accumulate(p.begin(), p.end(), 0.0) - 1) < 1e-6);
  const Query query(table, policies);
  std::vector<Outcomes> rewards;
  for (int64_t i = 0; i < table.num_documents(); ++i) rewards.push_back(query.rewards_of(i));
  return rewards;
}

ExactAdvantages exact_advantages(std::span<const Outcomes> rewards,
                                 std::span<const Outcomes> policies, bool divide_by_std) {
  ERANK_CHECK(rewards.size() == policies.size());
  constexpr double kFlat = 1e-9;
  ExactAdvantages advantages;
  for (size_t i = 0; i < rewards.size(); ++i) {
    const Outcomes &r = rewards[i], &p = policies[i];
    const double mean = std::inner_product(p.begin(), p.end(), r.begin(), 0.0);
    double variance = 0;
    for (size_t k = 0; k < p.size(); ++k) variance += p[k] * (r[k] - mean) * (r[k] - mean);
    const double deviation = std::sqrt(variance);
    advantages.rewards.push_back(mean);
    Outcomes& values = advantages.values.emplace_back(p.size());
    if (deviation < kFlat) {
      ++advantages.num_flat;
      continue;
    }
    const double scale = divide_by_std ? 1 / (deviation + kAdvantageEpsilon) : 1;
    for (size_t k = 0; k < p.size(); ++k) values[k] = (r[k] - mean) * scale;
  }
  return advantages;
}

}  // namespace erank::train
