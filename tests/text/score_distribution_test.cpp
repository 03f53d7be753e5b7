#include "erank/text/score_distribution.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "erank/base/error.h"

namespace erank::text {
namespace {

using Digits = std::array<double, 10>;

// What a decoder sees: the digits' share of the vocabulary, and what follows "1".
struct Seen {
  Digits digits{};
  double zero_after_one = 0;
  bool ten_follows_one = false;
};

// Few distinct weights, so that digits are often exactly as probable as each other.
Seen any_seen() {
  Seen seen;
  const auto weights = *rc::gen::container<std::vector<int>>(11, rc::gen::inRange(0, 6));
  double sum = 0;
  for (const int w : weights) sum += std::exp(w);
  for (size_t d = 0; d < 10; ++d) seen.digits[d] = std::exp(weights[d]) / sum;
  seen.zero_after_one = *rc::gen::inRange(0, 1001) / 1000.0;
  seen.ten_follows_one = seen.zero_after_one > 0.5;
  return seen;
}

ScoreDistribution distribution_of(const Seen& seen) {
  return ScoreDistribution::from_digits(seen.digits, seen.zero_after_one, seen.ten_follows_one);
}

TEST(ScoreDistribution, SplitsTheOneBetweenOneAndTen) {
  const Seen seen = {{0.05, 0.4, 0.1, 0, 0, 0, 0, 0.2, 0.05, 0.1}, 0.75, true};
  const ScoreDistribution d = distribution_of(seen);
  EXPECT_DOUBLE_EQ(d.p[1], 0.1);
  EXPECT_DOUBLE_EQ(d.p[10], 0.3);
  EXPECT_DOUBLE_EQ(d.p[7], 0.2);
  EXPECT_NEAR(d.p_other, 0.1, 1e-15);
  EXPECT_EQ(d.greedy(), 10);
  EXPECT_NEAR(d.expected(), (0.1 + 0.2 + 1.4 + 0.4 + 0.9 + 3.0) / 0.9, 1e-12);
}

TEST(ScoreDistribution, OfOneTokenAnswersIsWhatItIsGiven) {
  const auto d =
      ScoreDistribution::from_answers(Scale::kZeroToThree, std::array{0.1, 0.3, 0.3, 0.1});
  EXPECT_EQ(d.answers().size(), 4u);
  EXPECT_EQ(d.greedy(), 1);  // the lowest of equals
  EXPECT_NEAR(d.expected(), (0.3 + 0.6 + 0.3) / 0.8, 1e-12);
  EXPECT_NEAR(d.p_other, 0.2, 1e-12);
  const auto yes_no = ScoreDistribution::from_answers(Scale::kYesNo, std::array{0.02, 0.06});
  EXPECT_EQ(yes_no.greedy(), 1);
  EXPECT_NEAR(yes_no.expected(), 0.75, 1e-12);
  EXPECT_NEAR(yes_no.entropy(), -0.75 * std::log(0.75) - 0.25 * std::log(0.25), 1e-12);
  EXPECT_EQ(ScoreDistribution::from_answers(Scale::kYesNo, std::array{0.0, 0.0}).expected(), 0);
  EXPECT_THROW(ScoreDistribution::from_answers(Scale::kYesNo, std::array{0.1, 0.1, 0.1}),
               base::InternalError);
}

TEST(ScoreDistribution, EmitsTenOnlyWhenTheOneWinsAndTheZeroFollows) {
  Seen seen = {{0.3, 0.4, 0, 0, 0, 0, 0, 0, 0, 0.1}, 0.9, true};
  EXPECT_EQ(distribution_of(seen).greedy(), 10);
  seen.ten_follows_one = false;  // another token beats "0" after "1"
  EXPECT_EQ(distribution_of(seen).greedy(), 1);
  seen.ten_follows_one = true;
  seen.digits[9] =
      0.5;  // Pr(10) = 0.36 is above every other integer's but 9's, and "9" comes first
  EXPECT_EQ(distribution_of(seen).greedy(), 9);
}

TEST(ScoreDistribution, DecodesDigitByDigitEvenWhereTenIsTheMostProbableInteger) {
  // "1" is split: neither 1 nor 10 is the most probable integer, yet "1" is the most probable
  // digit.
  const Seen seen = {{0.30, 0.36, 0, 0, 0, 0, 0, 0, 0, 0}, 0.5, true};
  const ScoreDistribution d = distribution_of(seen);
  EXPECT_LT(std::max(d.p[1], d.p[10]), d.p[0]);
  EXPECT_EQ(d.greedy(), 10);
}

TEST(ScoreDistribution, KeepsTheTiesThatTheDecoderSees) {
  // 1 and 9 are exactly as probable, and the lower one wins, however "1" is split.
  for (int d1 = 1; d1 <= 50; ++d1) {
    for (int z = 0; z <= 1000; ++z) {
      const double p = std::exp(-d1 / 7.0) / 3;
      const ScoreDistribution d =
          distribution_of({{0, p, 0, 0, 0, 0, 0, 0, 0, p}, z / 1000.0, false});
      ASSERT_EQ(d.p[1] + d.p[10], p) << d1 << " " << z;
      ASSERT_EQ(d.greedy(), 1) << d1 << " " << z;
    }
  }
}

TEST(ScoreDistribution, IsEmptyWhereNoAnswerIsPossible) {
  const ScoreDistribution d = distribution_of(Seen{});
  EXPECT_EQ(d.p_other, 1);
  EXPECT_EQ(d.expected(), 0);
  EXPECT_EQ(d.entropy(), 0);
  EXPECT_EQ(d.greedy(), 0);
}

TEST(ScoreDistribution, RefusesWhatIsNoProbability) {
  Seen seen;
  seen.digits[3] = -0.1;
  EXPECT_THROW(distribution_of(seen), base::InternalError);
  seen.digits[3] = std::nan("");
  EXPECT_THROW(distribution_of(seen), base::InternalError);
  seen.digits[3] = 0.1;
  seen.zero_after_one = 1.5;
  EXPECT_THROW(distribution_of(seen), base::InternalError);
}

TEST(ScoreDistribution, HasTheEntropyOfItsShares) {
  const Seen even = {{0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05}, 0, false};
  EXPECT_NEAR(distribution_of(even).entropy(), std::log(10), 1e-12);
  const Seen sure = {{0, 0, 0, 0, 0, 0, 0, 0.4, 0, 0}, 0, false};
  EXPECT_EQ(distribution_of(sure).entropy(), 0);
}

TEST(ScoreDistribution, SumsToOneAndStaysInItsRange) {
  EXPECT_TRUE(rc::check("sums and ranges", [] {
    const ScoreDistribution d = distribution_of(any_seen());
    const double sum = std::accumulate(d.p.begin(), d.p.end(), 0.0);
    RC_ASSERT(std::abs(sum + d.p_other - 1) < 1e-12);
    for (const double p : d.p) RC_ASSERT(p >= 0 && p <= 1);
    RC_ASSERT(d.p_other >= 0);
    const double lowest =
        std::find_if(d.p.begin(), d.p.end(), [](double p) { return p > 0; }) - d.p.begin();
    RC_ASSERT(d.expected() >= lowest - 1e-12 && d.expected() <= 10);
    RC_ASSERT(d.entropy() >= 0 && d.entropy() <= std::log(11) + 1e-12);
  }));
}

TEST(ScoreDistribution, EmitsWhatDigitByDigitGreedyDecodingEmits) {
  EXPECT_TRUE(rc::check("greedy", [] {
    const Seen seen = any_seen();
    const auto first =
        std::max_element(seen.digits.begin(), seen.digits.end());  // the lowest of equals
    const int digit = static_cast<int>(first - seen.digits.begin());
    RC_CLASSIFY(std::count(seen.digits.begin(), seen.digits.end(), *first) > 1, "tied");
    const int expected = digit == 1 && seen.ten_follows_one ? 10 : digit;
    RC_ASSERT(distribution_of(seen).greedy() == expected);
  }));
}

}  // namespace
}  // namespace erank::text
