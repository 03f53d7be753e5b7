#include "erank/train/rewards.h"

#include <algorithm>
#include <cmath>

#include "erank/base/error.h"

namespace erank::train {
namespace {

double discount(int64_t rank) { return 1 / std::log2(static_cast<double>(rank) + 1); }

}  // namespace

RewardTable::RewardTable(std::span<const int> grades, std::span<const double> reference,
                         int64_t num_rollouts, const RewardOptions& options, text::Scale scale)
    : options_(options),
      max_score_(text::max_answer(scale)),
      reference_(reference.begin(), reference.end()) {
  ERANK_CHECK(grades.size() == reference.size() && num_rollouts > 0 && options.positive_grade > 0);
  const int largest = grades.empty() ? 0 : *std::max_element(grades.begin(), grades.end());
  for (const int grade : grades)
    gains_.push_back(grade >= options.positive_grade ? static_cast<double>(grade) / largest : 0);
  std::vector<double> best = gains_;
  std::sort(best.begin(), best.end(), std::greater<>());
  int64_t rank = 0;
  for (const double gain : best)
    for (int64_t i = 0; i < num_rollouts && gain > 0; ++i) ideal_ += gain * discount(++rank);
}

int RewardTable::key(int64_t document, int score) const {
  return options_.ties_above ? 2 * score + (is_positive(document) ? 0 : 1) : score;
}

double RewardTable::rank_value(int64_t phi) const {
  ERANK_CHECK(options_.reward != Reward::kSe && phi > 0);
  return options_.reward == Reward::kRr ? 1 / static_cast<double>(phi) : discount(phi) / ideal_;
}

double RewardTable::positive(int64_t document, int64_t phi) const {
  return options_.reward == Reward::kRr ? rank_value(phi) : gains_[document] * rank_value(phi);
}

double RewardTable::above_positive(int64_t phi_min) const {
  return options_.scale_above ? -rank_value(phi_min) : -1;
}

double RewardTable::otherwise(int64_t document, int score, std::optional<int64_t> phi_max) const {
  const double value = squared_error(document, score);
  return options_.scale_otherwise && phi_max ? value * rank_value(*phi_max) : value;
}

double RewardTable::squared_error(int64_t document, int score) const {
  const double error = (score - reference_[document]) / max_score_;
  return 1 - error * error;
}

RolloutRewards rollout_rewards(const RewardTable& table, std::span<const int> scores) {
  const int64_t num_documents = table.num_documents(), size = std::ssize(scores);
  ERANK_CHECK(num_documents > 0 && size % num_documents == 0);
  const int64_t num_rollouts = size / num_documents;
  const bool pointwise = table.options().reward == Reward::kSe;

  std::vector<int64_t> rank(static_cast<size_t>(table.max_key()) + 1);  // phi of each key
  std::optional<int> lowest, highest;  // keys of the formatted rollouts of D_P
  for (int64_t i = 0; i < size; ++i) {
    const int score = scores[i];
    if (score == kUnformatted) continue;
    ERANK_CHECK(score >= 0 && score <= table.max_score(), "score ", score);
    const int key = table.key(i / num_rollouts, score);
    for (int lower = 0; lower < key; ++lower) ++rank[lower];
    if (!table.is_positive(i / num_rollouts)) continue;
    lowest = std::min(lowest.value_or(key), key);
    highest = std::max(highest.value_or(key), key);
  }
  for (int64_t& phi : rank) ++phi;

  RolloutRewards rewards;
  const auto add = [&](RewardCase which, double value) {
    rewards.cases.push_back(which);
    rewards.values.push_back(value);
  };
  for (int64_t i = 0; i < size; ++i) {
    const int64_t document = i / num_rollouts;
    const int score = scores[i];
    const bool positive = table.is_positive(document);
    const int64_t phi = score == kUnformatted ? 0 : rank[table.key(document, score)];
    if (score == kUnformatted)
      add(RewardCase::kUnformatted, table.unformatted());
    else if (pointwise)
      add(positive ? RewardCase::kPositive : RewardCase::kOtherwise,
          table.squared_error(document, score));
    else if (positive)
      add(RewardCase::kPositive, table.positive(document, phi));
    else if (lowest && phi < rank[*lowest])
      add(RewardCase::kAbovePositive, table.above_positive(rank[*highest]));
    else
      add(RewardCase::kOtherwise,
          table.otherwise(document, score, lowest ? std::optional(rank[*lowest]) : std::nullopt));
  }
  return rewards;
}

}  // namespace erank::train
