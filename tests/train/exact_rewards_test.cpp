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
        all.push_back({.reward = reward, .scale_above = above, .scale_otherwise = otherwise});
  return all;
}

Outcomes softmax(const std::array<double, kNumOutcomes>& logits) {
  Outcomes p;
  double sum = 0;
  for (int k = 0; k < kNumOutcomes; ++k) sum += p[k] = std::exp(logits[k]);
  for (double& x : p) x /= sum;
  return p;
}

struct Query {
  std::vector<int> grades;
  std::vector<double> reference;
  std::vector<Outcomes> policies;
};

// `support`: outcomes that have a probability; 0: all of them.
Query random_query(base::Random& random, size_t documents, uint64_t support) {
  Query query;
  for (size_t i = 0; i < documents; ++i) {
    query.grades.push_back(static_cast<int>(random.below(3)));
    query.reference.push_back(10 * random.uniform());
    std::array<double, kNumOutcomes> logits;
    logits.fill(support > 0 ? -INFINITY : 0);
    for (double& x : logits)
      if (support == 0) x = random.normal();
    for (uint64_t j = 0; j < support; ++j) logits[random.below(kNumOutcomes)] = random.normal();
    query.policies.push_back(softmax(logits));
  }
  return query;
}

int score_of(int outcome) { return outcome == kMaxScore + 1 ? kUnformatted : outcome; }

TEST(ExactRewards, AreTheMeansOverEveryCombination) {
  base::Random random(5);
  for (int trial = 0; trial < 60; ++trial) {
    const Query query = random_query(random, 1 + random.below(5), 3);
    const size_t n = query.grades.size();
    for (const RewardOptions& options : every_option()) {
      const RewardTable table(query.grades, query.reference, 1, options);
      const auto found = expected_rewards(table, query.policies);
      for (size_t i = 0; i < n; ++i)
        for (int k = 0; k < kNumOutcomes; ++k) {
          double expected = 0;
          std::vector<int> outcome(n, 0);
          while (true) {
            outcome[i] = k;
            double probability = 1;
            for (size_t j = 0; j < n; ++j)
              if (j != i) probability *= query.policies[j][outcome[j]];
            if (probability > 0) {
              std::vector<int> scores;
              for (const int o : outcome) scores.push_back(score_of(o));
              expected += probability * rollout_rewards(table, scores).values[i];
            }
            size_t j = 0;
            while (j < n && (j == i || ++outcome[j] == kNumOutcomes)) outcome[j++] = 0;
            if (j == n) break;
          }
          EXPECT_NEAR(found[i][k], expected, 1e-12) << "document " << i << " answer " << k;
        }
    }
  }
}

// d p_k / d logit_l = p_k ((k = l) - p_l).
std::array<double, kNumOutcomes> logit_gradient(const Outcomes& a, const Outcomes& p) {
  const double mean = std::inner_product(a.begin(), a.end(), p.begin(), 0.0);
  std::array<double, kNumOutcomes> gradient;
  for (int l = 0; l < kNumOutcomes; ++l) gradient[l] = p[l] * (a[l] - mean);
  return gradient;
}

// 100,000 draws of every document's outcome; document i's REINFORCE gradient is r_i grad log
// p_i(a). A component may be off by five standard errors of its own draws: of the 720 that are
// looked at, one or more would be in one of 4,000 seeds. 1e-9 for those that never vary.
TEST(ExactRewards, GiveTheMeanOfSampledGradients) {
  base::Random random(6);
  constexpr int kDraws = 100000;
  double largest = 0;
  for (int trial = 0; trial < 4; ++trial) {
    const Query query = random_query(random, 3, 0);
    std::vector<int> grades = query.grades;
    grades[0] = 1, grades[1] = 0;
    for (const RewardOptions& options :
         {RewardOptions{.reward = Reward::kRr}, RewardOptions{.reward = Reward::kSe},
          RewardOptions{.reward = Reward::kNdcg, .scale_above = true, .scale_otherwise = true}}) {
      const RewardTable table(grades, query.reference, 1, options);
      const auto rewards = expected_rewards(table, query.policies);
      const auto exact = exact_advantages(rewards, query.policies, false);
      std::vector<std::array<double, kNumOutcomes>> sum(3), squares(3);
      for (auto* all : {&sum, &squares})
        for (auto& x : *all) x.fill(0);
      std::vector<int> outcomes(3), scores(3);
      for (int draw = 0; draw < kDraws; ++draw) {
        for (size_t i = 0; i < 3; ++i) {
          double u = random.uniform();
          int k = 0;
          while (k + 1 < kNumOutcomes && u >= query.policies[i][k]) u -= query.policies[i][k++];
          outcomes[i] = k;
          scores[i] = score_of(k);
        }
        const auto values = rollout_rewards(table, scores).values;
        for (size_t i = 0; i < 3; ++i)
          for (int l = 0; l < kNumOutcomes; ++l) {
            const double g = values[i] * ((outcomes[i] == l) - query.policies[i][l]);
            sum[i][l] += g;
            squares[i][l] += g * g;
          }
      }
      for (size_t i = 0; i < 3; ++i) {
        const auto expected = logit_gradient(exact.values[i], query.policies[i]);
        for (int l = 0; l < kNumOutcomes; ++l) {
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
  Outcomes p{};
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
  Outcomes certain{};
  certain[7] = 1;
  const std::vector<Outcomes> policies = {certain, certain};
  const RewardTable table(std::vector<int>{1, 0}, std::vector<double>{5, 5}, 1, {});
  const auto found = exact_advantages(expected_rewards(table, policies), policies);
  EXPECT_EQ(found.num_flat, 2);
  EXPECT_EQ(found.values[0], Outcomes{});
}

TEST(ExactRewards, ReadOutcomesFromAnswers) {
  std::array<double, kNumAnswers> answers{};
  answers[3] = 0.5, answers[10] = 0.25;
  EXPECT_EQ(outcomes_of(answers)[11], 0.25);
  answers[0] = 0.2501;
  const Outcomes rounded = outcomes_of(answers);
  EXPECT_EQ(rounded[11], 0);
  EXPECT_NEAR(std::accumulate(rounded.begin(), rounded.end(), 0.0), 1, 1e-15);
}

}  // namespace
}  // namespace erank::train
