#include "erank/train/rewards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/train/advantages.h"

namespace erank::train {
namespace {

constexpr int kNone = kUnformatted;
constexpr double kTolerance = 1e-12;

struct Query {
  std::vector<int> grades;
  std::vector<double> reference;
  std::vector<int> scores;  // [N, G]

  int64_t num_rollouts() const { return std::ssize(scores) / std::ssize(grades); }
};

std::vector<double> values(const Query& query, const RewardOptions& options) {
  return rollout_rewards(RewardTable(query.grades, query.reference, query.num_rollouts(), options),
                         query.scores)
      .values;
}

void expect_values(const Query& query, const RewardOptions& options,
                   const std::vector<double>& expected) {
  const auto found = values(query, options);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], kTolerance) << "rollout " << i;
}

double f(double rank) { return 1 / std::log2(rank + 1); }

// The paper's situation: N = 3, G = 2, one positive. The order of all six is 9 8 7 7 3 2, their
// ranks 1 2 3 3 5 6; the positive's are 2 and 3.
const Query kPaper = {{1, 0, 0}, {8, 4, 3}, {8, 7, 9, 3, 7, 2}};

TEST(Rewards, OfThePapersSituation) {
  const double third = 1 - 0.01, fourth = 1 - 0.16, last = 1 - 0.01;  // (3-4), (7-3), (2-3)
  expect_values(kPaper, {.reward = Reward::kRr}, {1. / 2, 1. / 3, -1, third, fourth, last});
  const double ideal = f(1) + f(2);
  expect_values(kPaper, {.reward = Reward::kNdcg},
                {f(2) / ideal, f(3) / ideal, -1, third, fourth, last});
  expect_values(kPaper, {.reward = Reward::kSe}, {1, 0.99, 0.75, third, fourth, last});
}

TEST(Rewards, OfTheOtherReadingOfTheConstants) {
  // Phi_min = 2, Phi_max = 3.
  const RewardOptions rr{.reward = Reward::kRr, .scale_above = true, .scale_otherwise = true};
  expect_values(kPaper, rr, {1. / 2, 1. / 3, -1. / 2, 0.99 / 3, 0.84 / 3, 0.99 / 3});
  const RewardOptions ndcg{.reward = Reward::kNdcg, .scale_above = true, .scale_otherwise = true};
  const double ideal = f(1) + f(2), least = f(3) / ideal;
  expect_values(kPaper, ndcg,
                {f(2) / ideal, least, -f(2) / ideal, 0.99 * least, 0.84 * least, 0.99 * least});
}

// An error is measured by the scale's width; which case it is depends on ranks alone.
TEST(Rewards, OnTheOtherScalesMeasureTheErrorByTheirWidth) {
  const std::vector<int> grades = {1, 0, 0};
  const RewardTable three(grades, std::vector<double>{3, 1, 2}, 1, {}, text::Scale::kZeroToThree);
  const auto found = rollout_rewards(three, std::vector<int>{2, 3, 0}).values;
  EXPECT_NEAR(found[0], 1. / 2, kTolerance);
  EXPECT_NEAR(found[1], -1, kTolerance);
  EXPECT_NEAR(found[2], 1 - 4. / 9, kTolerance);
  const RewardTable yes_no(grades, std::vector<double>{1, 0, 0.5}, 1, {.reward = Reward::kSe},
                           text::Scale::kYesNo);
  const auto squared = rollout_rewards(yes_no, std::vector<int>{1, 1, 0}).values;
  EXPECT_NEAR(squared[0], 1, kTolerance);
  EXPECT_NEAR(squared[1], 0, kTolerance);
  EXPECT_NEAR(squared[2], 0.75, kTolerance);
  EXPECT_THROW(rollout_rewards(yes_no, std::vector<int>{1, 2, 0}), base::InternalError);
}

TEST(Rewards, OfTiesAtTheBorder) {
  // 5 5 5 4: a negative that ties with the worst positive is not above it; ranks 1 1 1 4.
  const Query query = {{0, 1}, {5, 5}, {5, 4, 5, 5}};
  expect_values(query, {.reward = Reward::kRr}, {1, 0.99, 1, 1});
  // One step lower and the positive's second rollout has three before it.
  const Query lower = {{0, 1}, {5, 5}, {5, 4, 5, 3}};
  expect_values(lower, {.reward = Reward::kRr}, {-1, -1, 1, 1. / 4});
}

TEST(Rewards, OfTiesAboveThePositives) {
  // 5 5 5 4: both rollouts of the negative are before the positive's.
  const Query query = {{0, 1}, {5, 5}, {5, 4, 5, 5}};
  expect_values(query, {.reward = Reward::kRr, .ties_above = true}, {-1, 0.99, 1. / 2, 1. / 2});
  expect_values(query, {.reward = Reward::kNdcg, .ties_above = true},
                {-1, 0.99, f(2) / (f(1) + f(2)), f(2) / (f(1) + f(2))});
  // One score for all is a perfect order by the printed ranks, and worth the worst one by these.
  const Query same = {{1, 0, 0}, {5, 5, 5}, {5, 5, 5}};
  expect_values(same, {.reward = Reward::kRr}, {1, 1, 1});
  expect_values(same, {.reward = Reward::kRr, .ties_above = true}, {1. / 3, -1, -1});
}

TEST(Rewards, WithoutAFormattedPositiveLookAtTheReferenceAlone) {
  const Query none = {{0, 0}, {5, 2}, {10, 5, kNone, 2}};
  const Query unformatted = {{2, 0, 0}, {9, 5, 2}, {kNone, kNone, 10, 5, kNone, 2}};
  for (const bool scaled : {false, true})
    for (const Reward reward : {Reward::kRr, Reward::kNdcg}) {
      const RewardOptions options{
          .reward = reward, .scale_above = scaled, .scale_otherwise = scaled};
      expect_values(none, options, {0.75, 1, -2, 1});
      expect_values(unformatted, options, {-2, -2, 0.75, 1, -2, 1});
    }
}

TEST(Rewards, OfNothingFormatted) {
  const Query query = {{1, 0}, {5, 2}, {kNone, kNone, kNone, kNone}};
  expect_values(query, {.reward = Reward::kRr}, {-2, -2, -2, -2});
  expect_values(query, {.reward = Reward::kNdcg}, {-2, -2, -2, -2});
  expect_values(query, {.reward = Reward::kSe}, {-1, -1, -1, -1});
}

TEST(Rewards, OfSeveralPositivesWithGrades) {
  // 10 8 7 5 4: the grades 3, 1 and 2 have the ranks 2, 1 and 4, the last negative is below all.
  const Query query = {{3, 0, 1, 2, 0}, {0, 7, 0, 0, 0}, {8, 7, 10, 5, 4}};
  expect_values(query, {.reward = Reward::kRr}, {1. / 2, -1, 1, 1. / 4, 1 - 0.16});
  const double ideal = (3 * f(1) + 2 * f(2) + f(3)) / 3;
  expect_values(query, {.reward = Reward::kNdcg},
                {f(2) / ideal, -1, f(1) / 3 / ideal, f(4) * 2 / 3 / ideal, 1 - 0.16});
  // A higher threshold makes the grade 1 a negative, which is above the others.
  expect_values(query, {.reward = Reward::kRr, .positive_grade = 2},
                {1. / 2, -1, -1, 1. / 4, 1 - 0.16});
  const double two = (3 * f(1) + 2 * f(2)) / 3;
  expect_values(query, {.reward = Reward::kNdcg, .positive_grade = 2},
                {f(2) / two, -1, -1, f(4) * 2 / 3 / two, 1 - 0.16});
}

TEST(Rewards, OfOneRolloutAndOneDocument) {
  expect_values({{1}, {5}, {3}}, {.reward = Reward::kRr}, {1});
  expect_values({{1}, {5}, {3}}, {.reward = Reward::kNdcg}, {1});
  expect_values({{0}, {5}, {3}}, {.reward = Reward::kRr}, {0.96});
}

TEST(Rewards, SayTheirCases) {
  const RolloutRewards rewards = rollout_rewards(
      RewardTable(kPaper.grades, kPaper.reference, 2, {}), std::vector{8, kNone, 9, 3, 7, 2});
  using enum RewardCase;
  EXPECT_EQ(rewards.cases, (std::vector{kPositive, kUnformatted, kAbovePositive, kOtherwise,
                                        kOtherwise, kOtherwise}));
}

Query random_query(base::Random& random) {
  Query query;
  const uint64_t n = 1 + random.below(6), g = 1 + random.below(4), top = 2 + random.below(9);
  for (uint64_t i = 0; i < n; ++i) {
    query.grades.push_back(static_cast<int>(random.below(3)));
    query.reference.push_back(static_cast<double>(random.below(11)));
    for (uint64_t j = 0; j < g; ++j)
      query.scores.push_back(random.below(6) == 0 ? kNone : static_cast<int>(random.below(top)));
  }
  return query;
}

// The definitions word for word: one sorted list of all rollouts.
std::vector<double> by_sorting(const Query& query, const RewardOptions& options) {
  const int64_t g = query.num_rollouts(), size = std::ssize(query.scores);
  std::vector<int64_t> order;
  for (int64_t i = 0; i < size; ++i)
    if (query.scores[i] != kNone) order.push_back(i);
  const auto positive = [&](int64_t i) { return query.grades[i / g] >= options.positive_grade; };
  const auto place_of = [&](int64_t i) {
    return std::pair(query.scores[i], options.ties_above && !positive(i));
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return place_of(a) > place_of(b); });
  std::vector<int64_t> phi(size, 0), positives;
  for (size_t place = 0; place < order.size(); ++place) {
    const bool tied = place > 0 && place_of(order[place]) == place_of(order[place - 1]);
    phi[order[place]] = tied ? phi[order[place - 1]] : static_cast<int64_t>(place) + 1;
  }
  for (const int64_t i : order)
    if (positive(i)) positives.push_back(phi[i]);
  std::vector<double> gains;
  for (int64_t i = 0; i < size; ++i)
    if (positive(i)) gains.push_back(query.grades[i / g]);
  std::sort(gains.rbegin(), gains.rend());
  double ideal = 0;
  for (size_t r = 0; r < gains.size(); ++r)
    ideal += gains[r] / gains[0] * f(static_cast<double>(r) + 1);
  const auto value = [&](int64_t rank) {
    return options.reward == Reward::kRr ? 1. / static_cast<double>(rank)
                                         : f(static_cast<double>(rank)) / ideal;
  };
  std::vector<double> rewards;
  for (int64_t i = 0; i < size; ++i) {
    const double error = (query.scores[i] - query.reference[i / g]) / 10.0;
    if (query.scores[i] == kNone) {
      rewards.push_back(-2);
    } else if (positive(i)) {
      const double gain = query.grades[i / g] / gains[0];
      rewards.push_back((options.reward == Reward::kRr ? 1 : gain) * value(phi[i]));
    } else if (!positives.empty() && phi[i] < positives.back()) {
      rewards.push_back(options.scale_above ? -value(positives.front()) : -1);
    } else {
      const double factor =
          options.scale_otherwise && !positives.empty() ? value(positives.back()) : 1;
      rewards.push_back((1 - error * error) * factor);
    }
  }
  return rewards;
}

TEST(Rewards, AreThoseOfOneSortedList) {
  base::Random random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    const Query query = random_query(random);
    for (const Reward reward : {Reward::kRr, Reward::kNdcg})
      for (const int options : {0, 1, 2, 3, 4, 5, 6, 7}) {
        const RewardOptions o{.reward = reward,
                              .positive_grade = 1 + static_cast<int>(random.below(2)),
                              .scale_above = options % 2 == 1,
                              .scale_otherwise = options / 2 % 2 == 1,
                              .ties_above = options > 3};
        expect_values(query, o, by_sorting(query, o));
      }
  }
}

TEST(Rewards, DoNotDependOnTheOrderOfDocumentsAndRollouts) {
  base::Random random(2);
  for (int trial = 0; trial < 300; ++trial) {
    const Query query = random_query(random);
    const int64_t n = std::ssize(query.grades), g = query.num_rollouts();
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t i = n; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    Query moved = query;
    for (int64_t i = 0; i < n; ++i) {
      moved.grades[i] = query.grades[order[i]];
      moved.reference[i] = query.reference[order[i]];
      for (int64_t j = 0; j < g; ++j)  // and the rollouts backwards
        moved.scores[i * g + j] = query.scores[order[i] * g + g - 1 - j];
    }
    for (const Reward reward : {Reward::kRr, Reward::kNdcg, Reward::kSe}) {
      const auto before = values(query, {.reward = reward}),
                 after = values(moved, {.reward = reward});
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < g; ++j)
          EXPECT_EQ(after[i * g + j], before[order[i] * g + g - 1 - j]);
    }
  }
}

TEST(Rewards, DoNotChangeWhenScoresAndReferencesShift) {
  base::Random random(3);
  for (int trial = 0; trial < 300; ++trial) {
    Query query = random_query(random);
    for (int& score : query.scores) score = std::min(score, 6);
    Query moved = query;
    for (int& score : moved.scores) score += score == kNone ? 0 : 4;
    for (double& t : moved.reference) t += 4;
    for (const Reward reward : {Reward::kRr, Reward::kNdcg, Reward::kSe}) {
      const RewardOptions options{.reward = reward, .scale_above = true, .scale_otherwise = true};
      if (reward == Reward::kSe)
        EXPECT_EQ(values(moved, {.reward = reward}), values(query, {.reward = reward}));
      else
        EXPECT_EQ(values(moved, options), values(query, options));
    }
  }
}

TEST(Rewards, OfACopiedNegativeLowerWhatIsRankedBelowIt) {
  base::Random random(4);
  int lowered = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const Query query = random_query(random);
    const int64_t n = std::ssize(query.grades), g = query.num_rollouts();
    const auto source = static_cast<int64_t>(random.below(n));
    if (query.grades[source] > 0) continue;
    Query doubled = query;
    doubled.grades.push_back(0);
    doubled.reference.push_back(query.reference[source]);
    for (int64_t j = 0; j < g; ++j) doubled.scores.push_back(query.scores[source * g + j]);
    const auto before = values(query, {}), after = values(doubled, {});
    for (int64_t i = 0; i < n * g; ++i) {
      if (query.grades[i / g] == 0 || query.scores[i] == kNone) {
        EXPECT_EQ(after[i], before[i]);  // its case is as it was
      } else {
        const auto above = std::count_if(doubled.scores.begin() + n * g, doubled.scores.end(),
                                         [&](int score) { return score > query.scores[i]; });
        EXPECT_NEAR(1 / after[i], 1 / before[i] + static_cast<double>(above), 1e-9);
        lowered += above > 0;
      }
    }
    for (int64_t j = 0; j < g; ++j) EXPECT_EQ(after[n * g + j], after[source * g + j]);
  }
  EXPECT_GT(lowered, 50);
}

TEST(Advantages, EqualAHandComputation) {
  // Mean 2, sample standard deviation 2; then a group without spread.
  const std::vector<double> rewards = {0, 4, 2, -2, -2, -2};
  const Advantages found = group_advantages(rewards, 3);
  const double unit = 2 / (2 + 1e-6);
  const std::vector<double> expected = {-unit, unit, 0, 0, 0, 0};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found.values[i], expected[i], 1e-15);
  EXPECT_EQ(found.num_flat, 1);
  EXPECT_EQ(group_advantages(rewards, 3, false).values, (std::vector<double>{-2, 2, 0, 0, 0, 0}));
  EXPECT_EQ(group_advantages(rewards, 1).values, std::vector<double>(6, 0.0));
  EXPECT_EQ(group_advantages(rewards, 1).num_flat, 6);
}

}  // namespace
}  // namespace erank::train
