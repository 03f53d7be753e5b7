#include "erank/train/exact_rewards.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "erank/base/random.h"

namespace erank::train {
namespace {

std::vector<RewardOptions> every_option() {
  std::vector<RewardOptions> all = {{.reward = Reward::kSe}};
  for (const Reward reward : {Reward::kRr, Reward::kNdcg})
    for (const bool above : {false, true})
      for (const bool otherwise : {false, true})
        for (const bool ties : {false, true})
          all.push_back({.reward = reward,
                         .scale_above = above,
                         .scale_otherwise = otherwise,
                         .ties_above = ties});
  return all;
}

// 0-10 of the first `most` trials, then 0-3 and yes-no in turn.
text::Scale scale_of(int trial, int most) {
  if (trial < most) return text::Scale::kZeroToTen;
  return trial % 2 ? text::Scale::kYesNo : text::Scale::kZeroToThree;
}

Outcomes softmax(const std::vector<double>& logits) {
  Outcomes p;
  for (const double logit : logits) p.push_back(std::exp(logit));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

struct Query {
  text::Scale scale;
  std::vector<int> grades;
  std::vector<double> reference;
  std::vector<Outcomes> policies;

  size_t num_outcomes() const { return static_cast<size_t>(text::max_answer(scale)) + 2; }
  int score_of(size_t outcome) const {
    return outcome + 1 == num_outcomes() ? kUnformatted : static_cast<int>(outcome);
  }
};

// `support`: outcomes that have a probability; 0: all of them.
Query random_query(base::Random& random, text::Scale scale, size_t documents, uint64_t support) {
  Query query{scale, {}, {}, {}};
  for (size_t i = 0; i < documents; ++i) {
    query.grades.push_back(static_cast<int>(random.below(3)));
    query.reference.push_back(text::max_answer(scale) * random.uniform());
    std::vector<double> logits(query.num_outcomes(), support > 0 ? -INFINITY : 0);
    for (double& x : logits)
      if (support == 0) x = random.normal();
    for (uint64_t j = 0; j < support; ++j) logits[random.below(logits.size())] = random.normal();
    query.policies.push_back(softmax(logits));
  }
  return query;
}

TEST(ExactRewards, AreTheMeansOverEveryCombination) {
  base::Random random(5);
  for (int trial = 0; trial < 100; ++trial) {
    const Query query = random_query(random, scale_of(trial, 60), 1 + random.below(5), 3);
    const size_t n = query.grades.size();
    for (const RewardOptions& options : every_option()) {
      const RewardTable table(query.grades, query.reference, 1, options, query.scale);
      const auto found = expected_rewards(table, query.policies);
      for (size_t i = 0; i < n; ++i)
        for (size_t k = 0; k < query.num_outcomes(); ++k) {
          double expected = 0;
          std::vector<size_t> outcome(n, 0);
          while (true) {
            outcome[i] = k;
            double probability = 1;
            for (size_t j = 0; j < n; ++j)
              if (j != i) probability *= query.policies[j][outcome[j]];
            if (probability > 0) {
              std::vector<int> scores;
              for (const size_t o : outcome) scores.push_back(query.score_of(o));
              expected += probability * rollout_rewards(table, scores).values[i];
            }
            size_t j = 0;
            while (j < n && (j == i || ++outcome[j] == query.num_outcomes())) outcome[j++] = 0;
            if (j == n) break;
          }
          EXPECT_NEAR(found[i][k], expected, 1e-12) << "document " << i << " answer " << k;
        }
      ASSERT_EQ(found.front().size(), query.num_outcomes());
    }
  }
}

// d p_k / d logit_l = p_k ((k = l) - p_l).
Outcomes logit_gradient(const Outcomes& a, const Outcomes& p) {
  const double mean = std::inner_product(a.begin(), a.end(), p.begin(), 0.0);
  Outcomes gradient;
  for (size_t l = 0; l < p.size(); ++l) gradient.push_back(p[l] * (a[l] - mean));
  return gradient;
}

// 100,000 draws of every document's outcome; document i's REINFORCE gradient is r_i grad log
// p_i(a). A component may be off by five standard errors of its own draws: of the 576 that are
// looked at, one or more would be in one of 3,000 seeds. 1e-9 for those that never vary.
TEST(ExactRewards, GiveTheMeanOfSampledGradients) {
  base::Random random(6);
  constexpr int kDraws = 100000;
  double largest = 0;
  for (int trial = 0; trial < 8; ++trial) {
    const Query query = random_query(random, scale_of(trial, 4), 3, 0);
    const size_t num_outcomes = query.num_outcomes();
    std::vector<int> grades = query.grades;
    grades[0] = 1, grades[1] = 0;
    for (const RewardOptions& options :
         {RewardOptions{.reward = Reward::kRr}, RewardOptions{.reward = Reward::kSe},
          RewardOptions{.reward = Reward::kNdcg, .scale_above = true, .scale_otherwise = true}}) {
      const RewardTable table(grades, query.reference, 1, options, query.scale);
      const auto rewards = expected_rewards(table, query.policies);
      const auto exact = exact_advantages(rewards, query.policies, false);
      std::vector<Outcomes> sum(3, Outcomes(num_outcomes)), squares = sum;
      std::vector<size_t> outcomes(3);
      std::vector<int> scores(3);
      for (int draw = 0; draw < kDraws; ++draw) {
        for (size_t i = 0; i < 3; ++i) {
          double u = random.uniform();
          size_t k = 0;
          while (k + 1 < num_outcomes && u >= query.policies[i][k]) u -= query.policies[i][k++];
          outcomes[i] = k;
          scores[i] = query.score_of(k);
        }
        const auto values = rollout_rewards(table, scores).values;
        for (size_t i = 0; i < 3; ++i)
          for (size_t l = 0; l < num_outcomes; ++l) {
            const double g = values[i] * ((outcomes[i] == l) - query.policies[i][l]);
            sum[i][l] += g;
            squares[i][l] += g * g;
          }
      }
      for (size_t i = 0; i < 3; ++i) {
        const auto expected = logit_gradient(exact.values[i], query.policies[i]);
        for (size_t l = 0; l < num_outcomes; ++l) {
          const double mean = sum[i][l] / kDraws;
          const double error = std::sqrt((squares[i][l] / kDraws - mean * mean) / kDraws);
          EXPECT_LT(std::abs(mean - expected[l]), 5 * error + 1e-9) << i << " " << l;
          largest = std::max(largest, std::abs(expected[l]) / error);
        }
      }
    }
  }
  EXPECT_GT(largest, 100);  // the gradients exceed the noise: the comparison can fail
}

TEST(ExactRewards, PutTheReferenceInTheBaselineAndTheSpreadInTheScale) {
  const RewardTable table(std::vector<int>{0}, std::vector<double>{4}, 1, {.reward = Reward::kSe});
  Outcomes p(12);
  p[4] = 0.5, p[9] = 0.25, p[11] = 0.25;
  const std::vector<Outcomes> policies = {p};
  const auto rewards = expected_rewards(table, policies);
  EXPECT_NEAR(rewards[0][9], 0.75, 1e-15);
  const double mean = 0.5 + 0.25 * 0.75 - 0.25;
  const double variance = 0.5 * (1 - mean) * (1 - mean) + 0.25 * (0.75 - mean) * (0.75 - mean) +
                          0.25 * (1 + mean) * (1 + mean);
  const auto plain = exact_advantages(rewards, policies, false);
  const auto scaled = exact_advantages(rewards, policies, true);
  EXPECT_NEAR(plain.rewards[0], mean, 1e-15);
  EXPECT_NEAR(plain.values[0][9], 0.75 - mean, 1e-15);
  EXPECT_NEAR(scaled.values[0][9], (0.75 - mean) / (std::sqrt(variance) + 1e-6), 1e-12);
  EXPECT_EQ(plain.num_flat, 0);
}

TEST(ExactRewards, CountDocumentsThatHaveOnlyOneOutcome) {
  Outcomes certain(12);
  certain[7] = 1;
  const std::vector<Outcomes> policies = {certain, certain};
  const RewardTable table(std::vector<int>{1, 0}, std::vector<double>{5, 5}, 1, {});
  const auto found = exact_advantages(expected_rewards(table, policies), policies);
  EXPECT_EQ(found.num_flat, 2);
  EXPECT_EQ(found.values[0], Outcomes(12));
}

TEST(ExactRewards, ReadOutcomesFromAnswers) {
  EXPECT_EQ(outcomes_of(std::vector<double>{0.5, 0.25}), (Outcomes{0.5, 0.25, 0.25}));
  std::vector<double> answers(11);
  answers[3] = 0.5, answers[10] = 0.25;
  EXPECT_EQ(outcomes_of(answers)[11], 0.25);
  answers[0] = 0.2501;
  const Outcomes rounded = outcomes_of(answers);
  EXPECT_EQ(rounded[11], 0);
  EXPECT_NEAR(std::accumulate(rounded.begin(), rounded.end(), 0.0), 1, 1e-15);
}

}  // namespace
}  // namespace erank::train
