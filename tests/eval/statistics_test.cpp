// Paired tests and intervals: against SciPy and ranx, and what must hold for any numbers.
#include "erank/eval/statistics.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>

#include "erank/base/random.h"
#include "tests/eval/eval_fixtures.h"
#include "tests/eval/oracle.h"

namespace erank::eval {
namespace {

using ::testing::ElementsAre;
using Values = std::vector<double>;

Values differences(const Values& a, const Values& b) {
  Values d;
  for (size_t i = 0; i < a.size(); ++i) d.push_back(b[i] - a[i]);
  return d;
}

TEST(Statistics, AreThoseOfSciPy) {
  base::Random random(3);
  base::Json input = base::Json::array();
  std::vector<Values> cases;
  for (const size_t n : {2u, 3u, 7u, 12u, 25u, 80u})
    for (const double gain : {0.02, 0.1, 0.4}) {
      Values a, b;
      for (size_t i = 0; i < n; ++i) {
        a.push_back(random.uniform());
        b.push_back(std::clamp(a.back() + gain * (random.uniform() - 0.2), 0.0, 1.0));
        if (random.below(3) == 0) b.back() = 1 - random.uniform();
      }
      input.push_back({{"a", a}, {"b", b}});
      cases.push_back(differences(a, b));
    }
  const auto expected = ask_python("statistics_oracle.py", "scipy", input);
  if (!expected) GTEST_SKIP() << "no test-time Python with scipy";
  for (size_t c = 0; c < cases.size(); ++c) {
    const base::Json& theirs = (*expected)["cases"][c];
    const double n = static_cast<double>(cases[c].size());
    EXPECT_NEAR(paired_t_test(cases[c]), theirs["t"].get<double>(), 1e-12) << c;
    const double p = theirs["randomization"].get<double>();
    // Two estimates of 100,000 draws each: five standard errors of their difference.
    const double error = theirs["exact"].get<bool>() ? 1e-12 : 5 * std::sqrt(2 * p * (1 - p) / 1e5);
    EXPECT_NEAR(paired_randomization_test(cases[c], 1), p, error + 2e-5 * (n > 16)) << c;
    if (n < 7) continue;  // few distinct means: quantiles jump from one to the next
    const Interval interval = bootstrap_mean(cases[c], 0.95, 1);
    const double width = theirs["high"].get<double>() - theirs["low"].get<double>();
    EXPECT_NEAR(interval.low, theirs["low"].get<double>(), 0.04 * width) << c;
    EXPECT_NEAR(interval.high, theirs["high"].get<double>(), 0.04 * width) << c;
  }
  for (const base::Json& tail : (*expected)["tails"])
    EXPECT_NEAR(student_t_two_sided(tail[0], tail[1]), tail[2].get<double>(),
                1e-13 + 1e-10 * tail[2].get<double>())
        << tail;
}

TEST(Statistics, AreThoseOfRanx) {
  const auto golden = base::parse_json(
      base::read_file(ERANK_SOURCE_DIR "/tests/golden/significance.json"), "significance.json");
  const double draws = golden["draws"].get<double>();
  ASSERT_EQ(golden["cases"].size(), 4u);
  for (const base::Json& test : golden["cases"]) {
    const Values d = differences(test["first"].get<Values>(), test["second"].get<Values>());
    EXPECT_NEAR(paired_t_test(d), test["student"].get<double>(), 1e-12);
    const double p = test["fisher"].get<double>();
    // Both draw signs: five standard errors of the difference.
    EXPECT_NEAR(paired_randomization_test(d, 1), p,
                5 * std::sqrt(p * (1 - p) * (1 / draws + 1 / 1e5)));
  }
}

TEST(Statistics, OfKnownNumbers) {
  // Student's sleep data (1908): p = 0.0028 of the paired differences.
  const Values sleep = {1.2, 2.4, 1.3, 1.3, 0, 1, 1.8, 0.8, 4.6, 1.4};
  EXPECT_NEAR(paired_t_test(sleep), 0.00283289, 1e-8);
  EXPECT_DOUBLE_EQ(paired_randomization_test(sleep, 1), 4.0 / 1024);  // one difference is 0
  EXPECT_DOUBLE_EQ(paired_randomization_test(Values{1, 1, 1}, 1), 2.0 / 8);
  // With one degree of freedom it is Cauchy's: 1 - 2 / pi atan(t). Near 0 SciPy loses digits.
  EXPECT_DOUBLE_EQ(student_t_two_sided(1, 1), 0.5);
  EXPECT_NEAR(student_t_two_sided(1e-8, 1), 1 - 2 / M_PI * std::atan(1e-8), 1e-15);
  EXPECT_THAT(holm(Values{0.01, 0.04, 0.03, 0.005}),
              ElementsAre(::testing::DoubleEq(0.03), ::testing::DoubleEq(0.06),
                          ::testing::DoubleEq(0.06), ::testing::DoubleEq(0.02)));
  EXPECT_THAT(holm(Values{0.6, 0.7}), ElementsAre(1, 1));
  EXPECT_THAT(holm(Values{}), ElementsAre());
  // Mean 1.58, deviation 1.23: (2.80158 x 0.77848)^2 = 4.76.
  EXPECT_EQ(queries_needed(sleep), 5);
}

TEST(Statistics, OfAlmostNothing) {
  EXPECT_EQ(paired_t_test(Values{}), 1);
  EXPECT_EQ(paired_t_test(Values{0.5}), 1);
  EXPECT_EQ(paired_t_test(Values{0, 0, 0}), 1);
  EXPECT_EQ(paired_t_test(Values{0.1, 0.1, 0.1}), 0);
  EXPECT_EQ(paired_randomization_test(Values{}, 1), 1);
  EXPECT_EQ(paired_randomization_test(Values(100, 0.0), 1), 1);
  const Interval one = bootstrap_mean(Values{0.3}, 0.95, 1);
  EXPECT_EQ(one.low, 0.3);
  EXPECT_EQ(one.high, 0.3);
  EXPECT_EQ(queries_needed(Values{1, -1}), 0);
  EXPECT_EQ(queries_needed(Values{1}), 0);
}

void check(const std::string& name, const std::function<void()>& body) {
  EXPECT_TRUE(rc::check(name, body));
}

// Differences in steps of a 64th, whose sums are exact in any order.
Values any_differences(size_t least) {
  const auto steps = *rc::gen::suchThat(
      rc::gen::resize(40, rc::gen::container<std::vector<int>>(rc::gen::inRange(-64, 65))),
      [&](const auto& x) { return x.size() >= least; });
  Values values;
  for (const int step : steps) values.push_back(step / 64.0);
  return values;
}

TEST(StatisticsProperties, PValuesAreProbabilitiesAndHeedNeitherSignNorScale) {
  check("0 <= p <= 1, p(d) = p(-d) = p(4d)", [] {
    const Values d = any_differences(0);
    Values flipped, scaled;
    for (const double x : d) flipped.push_back(-x), scaled.push_back(4 * x);
    for (const auto& test :
         {+[](const Values& v) { return paired_t_test(v); },
          +[](const Values& v) { return paired_randomization_test(v, 7, 500); }}) {
      const double p = test(d);
      RC_ASSERT(p >= 0 && p <= 1);
      RC_ASSERT(test(flipped) == p);
      RC_ASSERT(std::abs(test(scaled) - p) < 1e-12);
    }
  });
}

TEST(StatisticsProperties, TheExactTestHeedsNoOrder) {
  check("shuffled", [] {
    Values d = any_differences(1);
    if (d.size() > 12) d.resize(12);
    const double p = paired_randomization_test(d, 1);
    RC_ASSERT(p > 0);
    std::reverse(d.begin(), d.end());
    RC_ASSERT(paired_randomization_test(d, 2) == p);
    std::sort(d.begin(), d.end());
    RC_ASSERT(paired_randomization_test(d, 3) == p);
  });
}

TEST(StatisticsProperties, AnIntervalIsRepeatableLiesInTheRangeAndGrowsWithItsConfidence) {
  check("bootstrap", [] {
    const Values d = any_differences(1);
    const auto seed = *rc::gen::arbitrary<uint64_t>();
    const Interval a = bootstrap_mean(d, 0.9, seed, 200), b = bootstrap_mean(d, 0.9, seed, 200);
    RC_ASSERT(a.low == b.low && a.high == b.high);
    const auto [least, most] = std::minmax_element(d.begin(), d.end());
    RC_ASSERT(*least <= a.low && a.low <= a.high && a.high <= *most);
    const Interval wide = bootstrap_mean(d, 0.99, seed, 200);
    RC_ASSERT(wide.low <= a.low && a.high <= wide.high);
  });
}

TEST(StatisticsProperties, HolmKeepsTheOrderAndLiesBetweenPAndBonferroni) {
  check("holm", [] {
    const auto steps =
        *rc::gen::resize(12, rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 101)));
    Values p;
    for (const int step : steps) p.push_back(step / 100.0);
    const Values corrected = holm(p);
    for (size_t i = 0; i < p.size(); ++i) {
      RC_ASSERT(corrected[i] >= p[i] && corrected[i] <= 1);
      RC_ASSERT(corrected[i] <= std::min(1.0, static_cast<double>(p.size()) * p[i]));
      for (size_t j = 0; j < p.size(); ++j)
        if (p[i] < p[j]) RC_ASSERT(corrected[i] <= corrected[j]);
    }
  });
}

}  // namespace
}  // namespace erank::eval
