#include "erank/engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "erank/base/error.h"
#include "erank/base/random.h"

namespace erank::engine {
namespace {

std::vector<float> random_logits(size_t n, uint64_t seed) {
  base::Random random(seed);
  std::vector<float> logits(n);
  for (float& x : logits) x = static_cast<float>(4 * random.normal());
  return logits;
}

TEST(Softmax, EqualsASumInLongDouble) {
  const auto logits = random_logits(150000, 1);
  const Softmax softmax(logits);
  const float max = *std::max_element(logits.begin(), logits.end());
  long double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<long double>(x) - max);
  for (size_t i = 0; i < logits.size(); i += 997) {
    const double expected = std::exp(static_cast<long double>(logits[i]) - max) / sum;
    EXPECT_NEAR(softmax.p(logits[i]), expected, 1e-7 * expected);
  }
  EXPECT_EQ(logits[softmax.argmax], max);
}

TEST(Softmax, KeepsHugeAndMissingLogitsApart) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {1e30f, -kInf, 1e30f};
  const Softmax softmax(logits);
  EXPECT_TRUE(softmax.valid);
  EXPECT_EQ(softmax.argmax, 0);
  EXPECT_DOUBLE_EQ(softmax.p(1e30f), 0.5);
  EXPECT_EQ(softmax.p(-kInf), 0);
  EXPECT_FALSE(Softmax(std::vector<float>{1, NAN}).valid);
  EXPECT_FALSE(Softmax(std::vector<float>{1, kInf}).valid);
  EXPECT_FALSE(Softmax(std::vector<float>{-kInf}).valid);
}

TEST(Sampler, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 3, 2}, {}, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2}, {.temperature = 1e-300}, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{NAN, 3}, {}, 0), -1);
  EXPECT_EQ(sample(std::vector<float>{NAN, 3}, {.temperature = 1}, 0), -1);
}

TEST(Sampler, ADrawDependsOnSeedAndIndexAlone) {
  const auto logits = random_logits(500, 2);
  const Sampling sampling{.temperature = 1.5, .seed = 7};
  std::set<int32_t> over_draws, over_seeds;
  for (uint64_t draw = 0; draw < 50; ++draw) {
    const int32_t id = sample(logits, sampling, draw);
    EXPECT_EQ(sample(logits, sampling, draw), id);
    over_draws.insert(id);
    over_seeds.insert(sample(logits, {.temperature = 1.5, .seed = draw}, 0));
  }
  EXPECT_GT(over_draws.size(), 10u);
  EXPECT_GT(over_seeds.size(), 10u);
}

TEST(Sampler, DrawsInProportion) {
  const auto logits = random_logits(12, 3);
  for (const double temperature : {0.5, 1.0, 3.0}) {
    double sum = 0;
    for (const float x : logits) sum += std::exp(x / temperature);
    std::vector<int> hits(logits.size());
    constexpr int kDraws = 40000;
    for (int i = 0; i < kDraws; ++i) {
      ++hits[sample(logits, {.temperature = temperature, .seed = 5}, i)];
    }
    for (size_t i = 0; i < hits.size(); ++i) {
      const double p = std::exp(logits[i] / temperature) / sum;
      EXPECT_NEAR(hits[i] / double{kDraws}, p, 5 * std::sqrt(p * (1 - p) / kDraws) + 1e-4);
    }
  }
}

// The ids that can be drawn, found by drawing often from nearly equal logits.
std::set<int32_t> reachable(const std::vector<float>& logits, const Sampling& sampling) {
  std::set<int32_t> ids;
  for (int i = 0; i < 4000; ++i) ids.insert(sample(logits, sampling, i));
  return ids;
}

TEST(Sampler, TopKKeepsTheLargestAndOfEqualsTheLower) {
  const std::vector<float> logits = {0.1f, 0.5f, 0.2f, 0.2f, 0.4f, 0.2f};
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_k = 1}), (std::set<int32_t>{1}));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_k = 4}), (std::set<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_k = 99}).size(), 6u);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  // Probabilities 0.1, 0.4, 0.2, 0.2, 0.1.
  std::vector<float> logits;
  for (const double p : {0.1, 0.4, 0.2, 0.2, 0.1})
    logits.push_back(static_cast<float>(std::log(p)));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_p = 0.3}), (std::set<int32_t>{1}));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_p = 0.41}), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_p = 0.7}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_p = 0.85}), (std::set<int32_t>{0, 1, 2, 3}));
  // Among the two of top_k the first has 2/3.
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_p = 0.6, .top_k = 2}),
            (std::set<int32_t>{1}));
  EXPECT_EQ(reachable(logits, {.temperature = 1, .top_p = 1e-9}), (std::set<int32_t>{1}));
}

TEST(Sampler, FiltersThatKeepAllChangeNoDraw) {
  const auto logits = random_logits(300, 4);
  for (int i = 0; i < 200; ++i) {
    const int32_t plain = sample(logits, {.temperature = 1, .seed = 3}, i);
    EXPECT_EQ(sample(logits, {.temperature = 1, .top_k = 300, .seed = 3}, i), plain);
  }
}

TEST(Sampler, RefusesFieldsOutsideTheirRange) {
  EXPECT_NO_THROW(check(Sampling{}));
  EXPECT_THROW(check(Sampling{.temperature = -0.1}), base::Error);
  EXPECT_THROW(check(Sampling{.temperature = NAN}), base::Error);
  EXPECT_THROW(check(Sampling{.top_p = 0}), base::Error);
  EXPECT_THROW(check(Sampling{.top_p = 1.01}), base::Error);
  EXPECT_THROW(check(Sampling{.top_k = -1}), base::Error);
}

}  // namespace
}  // namespace erank::engine
