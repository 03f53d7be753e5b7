#include "erank/synth/strengths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "erank/base/random.h"
#include "tests/eval/oracle.h"

namespace erank::synth {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(Strengths, OfTwoDocumentsAreWorkedByHand) {
  // Of equal and opposite strengths t the gradient is 1 - P(2t) + prior (1 - 2 P(t)); with x = e^t
  // it is 0 where 1 / (1 + x^2) = prior (x - 1) / (x + 1). For prior 0.2: x = 3, 1/10 = 0.2 / 2.
  const std::vector<Comparison> one = {{0, 1, 1}};
  const auto s = fit_strengths(2, one, 0.2);
  EXPECT_NEAR(s[0], std::log(3.0), 1e-9);
  EXPECT_NEAR(s[1], -std::log(3.0), 1e-9);
  // For the default, 0.1, the root over 1 of x^3 - x^2 - 9 x - 11, by Cardano.
  const double p = -9 - 1.0 / 3, q = -11 - 3 - 2.0 / 27;
  const double root = std::sqrt(q * q / 4 + p * p * p / 27);
  const double x = 1.0 / 3 + std::cbrt(-q / 2 + root) + std::cbrt(-q / 2 - root);
  EXPECT_NEAR(x * x * x - x * x - 9 * x - 11, 0, 1e-10);
  EXPECT_NEAR(fit_strengths(2, one)[0], std::log(x), 1e-9);
}

TEST(Strengths, AreZeroForTiesForABalanceAndForWhoWasNotCompared) {
  EXPECT_THAT(fit_strengths(3, std::vector<Comparison>{{0, 1, 0.5}}), ElementsAre(0, 0, 0));
  const std::vector<Comparison> circle = {{0, 1, 1}, {1, 2, 1}, {2, 0, 1}};
  for (const double s : fit_strengths(3, circle)) EXPECT_NEAR(s, 0, 1e-12);
  EXPECT_TRUE(fit_strengths(0, {}).empty());
}

TEST(Strengths, StayFiniteForOneThatAlwaysWinsOverManyComparisons) {
  std::vector<Comparison> comparisons;
  for (int i = 0; i < 10000; ++i)
    comparisons.push_back({0, 1, 1}), comparisons.push_back({1, 2, 1});
  const auto s = fit_strengths(3, comparisons);
  EXPECT_GT(s[0], s[1] + 5);
  EXPECT_GT(s[1], s[2] + 5);
  for (const double x : s) EXPECT_TRUE(std::isfinite(x)) << x;
  // Those that always win and lose are as far from the one between them.
  EXPECT_NEAR(s[0] + s[2], 0, 1e-6);
}

TEST(Strengths, AreThoseOfScipy) {
  base::Random random(7);
  for (const size_t count : {3, 20, 60}) {
    std::vector<Comparison> comparisons = random_cycles(count, 4, count);
    base::Json input = {{"count", count}, {"prior", 0.1}, {"comparisons", base::Json::array()}};
    for (Comparison& c : comparisons) {
      const double lead = (static_cast<double>(c.second) - static_cast<double>(c.first)) / 4;
      c.share = random.uniform() < 0.1 ? 0.5 : random.uniform() < 1 / (1 + std::exp(-lead)) ? 1 : 0;
      input["comparisons"].push_back({c.first, c.second, c.share});
    }
    const auto expected = eval::ask_python("../synth/strengths_oracle.py", "scipy", input);
    if (!expected) GTEST_SKIP() << "the test-time Python has no scipy";
    const auto strengths = fit_strengths(count, comparisons);
    ASSERT_EQ(expected->size(), count);
    for (size_t i = 0; i < count; ++i)
      EXPECT_NEAR(strengths[i], (*expected)[i].get<double>(), 1e-7) << count << ", " << i;
  }
}

TEST(Scores, LieInProportionBetweenTheWeakestAndTheStrongest) {
  EXPECT_THAT(scores_of_strengths(std::vector<double>{-1, 3, 0}), ElementsAre(0, 10, 2.5));
  EXPECT_THAT(scores_of_strengths(std::vector<double>{2, 2}), ElementsAre(5, 5));
  EXPECT_TRUE(scores_of_strengths({}).empty());
}

TEST(Cycles, CompareEachDocumentOnceAsFirstAndOnceAsSecond) {
  for (const size_t count : {2, 3, 20}) {
    const auto comparisons = random_cycles(count, 5, 9);
    ASSERT_EQ(comparisons.size(), 5 * count);
    for (size_t cycle = 0; cycle < 5; ++cycle) {
      std::set<size_t> first, second;
      for (size_t i = cycle * count; i < (cycle + 1) * count; ++i) {
        EXPECT_NE(comparisons[i].first, comparisons[i].second);
        first.insert(comparisons[i].first);
        second.insert(comparisons[i].second);
        // One cycle, not several: where one comparison ends the next begins.
        if (i + 1 < (cycle + 1) * count) {
          EXPECT_EQ(comparisons[i].second, comparisons[i + 1].first);
        }
      }
      EXPECT_EQ(first.size(), count);
      EXPECT_EQ(second.size(), count);
    }
  }
  EXPECT_TRUE(random_cycles(1, 5, 9).empty());
  EXPECT_TRUE(random_cycles(0, 5, 9).empty());
}

TEST(Cycles, StayTheSameWhenThereAreMoreOfThem) {
  const auto few = random_cycles(8, 2, 3), many = random_cycles(8, 6, 3),
             other = random_cycles(8, 2, 4);
  const auto same = [](const Comparison& a, const Comparison& b) {
    return a.first == b.first && a.second == b.second;
  };
  EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin(), same));
  EXPECT_FALSE(std::equal(few.begin(), few.end(), other.begin(), same));
}

}  // namespace
}  // namespace erank::synth
