#include "erank/engine/sampler.h"

#include <ATen/ops/amax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/model/cuda/draws.h"

namespace erank::engine {
namespace {

std::vector<float> random_logits(size_t n, uint64_t seed) {
  base::Random random(seed);
  std::vector<float> logits(n);
  for (float& x : logits) x = static_cast<float>(4 * random.normal());
  return logits;
}

Draw drawn(const std::vector<float>& logits, const Sampling& sampling, uint64_t index) {
  return sample(logits, *std::max_element(logits.begin(), logits.end()), sampling, index);
}
int32_t token(const std::vector<float>& logits, const Sampling& sampling, uint64_t index) {
  return drawn(logits, sampling, index).token;
}

TEST(RowProbability, EqualsASumInLongDouble) {
  const auto logits = random_logits(150000, 1);
  model::RowResult row{.finite = true, .max = *std::max_element(logits.begin(), logits.end())};
  long double sum = 0;
  for (const float x : logits) {
    row.sum += std::exp(x - row.max);
    sum += std::exp(static_cast<long double>(x) - row.max);
  }
  for (size_t i = 0; i < logits.size(); i += 997) {
    const double expected = std::exp(static_cast<long double>(logits[i]) - row.max) / sum;
    EXPECT_NEAR(probability(row, logits[i]), expected, 1e-6 * expected);
    EXPECT_NEAR(log_probability(row, logits[i]), std::log(expected), 1e-6);
  }
}

// What the header says, by sorting everything.
std::vector<std::pair<int32_t, double>> naive_kept(const std::vector<float>& logits,
                                                   const Sampling& sampling) {
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<std::pair<int32_t, double>> kept;
  for (size_t i = 0; i < logits.size(); ++i)
    kept.emplace_back(static_cast<int32_t>(i),
                      std::exp((double{logits[i]} - max) / sampling.temperature));
  std::stable_sort(kept.begin(), kept.end(),
                   [&](const auto& a, const auto& b) { return logits[a.first] > logits[b.first]; });
  if (sampling.top_k > 0 && sampling.top_k < std::ssize(kept)) kept.resize(sampling.top_k);
  double total = 0, weighed = 0;
  for (const auto& [id, w] : kept) total += w;
  size_t n = 0;
  while (sampling.top_p < 1 && n < kept.size() && weighed < sampling.top_p * total)
    weighed += kept[n++].second;
  if (sampling.top_p < 1) kept.resize(n), total = weighed;
  // Without a filter the draw goes by id.
  if (sampling.top_p == 1 && kept.size() == logits.size()) std::sort(kept.begin(), kept.end());
  for (auto& [id, w] : kept) w /= total;
  return kept;
}

// Whether `draw` is the naive draw, but for the rounding at the border between two tokens.
void expect_naive(const std::vector<float>& logits, const Sampling& sampling, uint64_t index,
                  const Draw& draw) {
  const double u = base::Random(base::derived_seed(sampling.seed, index)).uniform();
  double begin = 0;
  bool found = false;
  for (const auto& [id, p] : naive_kept(logits, sampling)) {
    if (id == draw.token) {
      found = true;
      EXPECT_GE(u, begin - 1e-5);
      EXPECT_LE(u, begin + p + 1e-5);
    }
    begin += p;
  }
  EXPECT_TRUE(found) << draw.token << " is not kept";
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp((x - max) / sampling.temperature);
  const double expected = (logits[draw.token] - max) / sampling.temperature - std::log(sum);
  EXPECT_NEAR(draw.log_p, expected, 1e-5 * (1 + std::abs(expected)));
}

void expect_naive(const std::vector<float>& logits, const Sampling& sampling, uint64_t index) {
  expect_naive(logits, sampling, index, drawn(logits, sampling, index));
}

RC_GTEST_PROP(Sampler, EqualsSortingEverything, (uint64_t seed)) {
  base::Random random(seed);
  const size_t sizes[] = {1, 2, 255, 256, 257, 700, 5000};
  std::vector<float> logits(sizes[random.below(7)]);
  const double spread = random.below(3) == 0 ? 0.05 : 4;
  for (float& x : logits) x = static_cast<float>(spread * random.normal());
  if (random.below(3) == 0)
    for (float& x : logits) x = std::round(x);  // many equals
  if (random.below(4) == 0)
    for (size_t i = 1; i < logits.size(); i += 2) logits[i] = -INFINITY;
  Sampling sampling{.temperature = 0.1 + 3 * random.uniform(), .seed = random.next()};
  if (random.below(2) == 0) sampling.top_k = static_cast<int>(1 + random.below(logits.size() + 3));
  if (random.below(2) == 0) sampling.top_p = 0.01 + 0.98 * random.uniform();
  for (uint64_t index = 0; index < 20; ++index) expect_naive(logits, sampling, index);
  RC_ASSERT(!testing::Test::HasFailure());
}

TEST(Sampler, EqualsSortingEverythingOfALargeVocabulary) {
  const auto logits = random_logits(151936, 9);
  for (const Sampling& sampling :
       {Sampling{.temperature = 1, .seed = 1}, Sampling{.temperature = 0.6, .top_p = 0.95},
        Sampling{.temperature = 1, .top_k = 20}, Sampling{.temperature = 2, .top_k = 2000},
        Sampling{.temperature = 0.7, .top_p = 0.8, .top_k = 50}})
    for (uint64_t index = 0; index < 5; ++index) expect_naive(logits, sampling, index);
}

TEST(Sampler, ATinyOrHugeTemperatureIsStillADraw) {
  EXPECT_EQ(token({1, 3, 2}, {.temperature = 1e-300}, 0), 1);
  EXPECT_EQ(token({1, 3, 2}, {.temperature = 1e-300, .top_p = 0.5}, 0), 1);
  std::set<int32_t> seen;
  for (uint64_t i = 0; i < 100; ++i)
    seen.insert(token({1, 3, -INFINITY, 2}, {.temperature = 1e300}, i));
  EXPECT_EQ(seen, (std::set<int32_t>{0, 1, 3}));
}

TEST(Sampler, ADrawDependsOnSeedAndIndexAlone) {
  const auto logits = random_logits(500, 2);
  const Sampling sampling{.temperature = 1.5, .seed = 7};
  std::set<int32_t> over_draws, over_seeds;
  for (uint64_t draw = 0; draw < 50; ++draw) {
    const int32_t id = token(logits, sampling, draw);
    EXPECT_EQ(token(logits, sampling, draw), id);
    over_draws.insert(id);
    over_seeds.insert(token(logits, {.temperature = 1.5, .seed = draw}, 0));
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
      ++hits[token(logits, {.temperature = temperature, .seed = 5}, i)];
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
  for (int i = 0; i < 4000; ++i) ids.insert(token(logits, sampling, i));
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
    const int32_t unfiltered = token(logits, {.temperature = 1, .seed = 3}, i);
    EXPECT_EQ(token(logits, {.temperature = 1, .top_k = 300, .seed = 3}, i), unfiltered);
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

// --- draws on the device that has the logits, here on the CPU ----------------------------------

// A draw of each of the rows, which are of one width, each in its own way.
struct DeviceDraws {
  DeviceDraws(const std::vector<std::vector<float>>& rows, const std::vector<Sampling>& samplings,
              uint64_t index) {
    std::vector<float> all;
    std::vector<model::Drawing> drawings;
    for (size_t r = 0; r < rows.size(); ++r) {
      all.insert(all.end(), rows[r].begin(), rows[r].end());
      drawings.push_back(drawing(samplings[r], index));
    }
    const at::Tensor logits = at::tensor(all).view({std::ssize(rows), -1});
    draws = model::cuda::draw_tokens(logits, logits.amax(1, true), drawings);
  }
  int32_t token(int64_t row) const { return static_cast<int32_t>(value(row, 0)); }
  double value(int64_t row, int64_t i) const { return draws.const_data_ptr<double>()[3 * row + i]; }
  at::Tensor draws;
};

TEST(DeviceDraws, AreTheHostsButForRounding) {
  base::Random random(5);
  int num = 0, num_differing = 0;
  for (const size_t v : {1, 7, 300, 5000}) {
    std::vector<std::vector<float>> rows;
    std::vector<Sampling> samplings;
    for (int r = 0; r < 24; ++r) {
      std::vector<float> row = random_logits(v, random.next());
      if (r % 3 == 1)
        for (float& x : row) x = std::round(x);  // many equals
      if (r % 4 == 1)
        for (size_t i = 1; i < v; i += 2) row[i] = -INFINITY;
      rows.push_back(row);
      Sampling sampling{.temperature = 0.1 + 3 * random.uniform(), .seed = random.next()};
      if (r % 5 > 2) sampling.top_k = static_cast<int>(1 + random.below(v + 3));
      if (r % 5 % 2 == 1) sampling.top_p = 0.01 + 0.98 * random.uniform();
      if (r == 20) sampling.temperature = 1e-300;
      if (r == 21) sampling.temperature = 1e300;
      samplings.push_back(sampling);
    }
    for (uint64_t index = 0; index < 20; ++index) {
      const DeviceDraws found(rows, samplings, index);
      for (size_t r = 0; r < rows.size(); ++r) {
        const auto row = static_cast<int64_t>(r);
        const Draw expected = drawn(rows[r], samplings[r], index);
        ++num;
        if (found.token(row) != expected.token) {
          ++num_differing;
          expect_naive(rows[r], samplings[r], index, {found.token(row), found.value(row, 2)});
          continue;
        }
        EXPECT_EQ(found.value(row, 1), rows[r][static_cast<size_t>(expected.token)]);
        EXPECT_NEAR(found.value(row, 2), expected.log_p, 1e-5 * (1 + std::abs(expected.log_p)));
      }
    }
  }
  EXPECT_LE(num_differing, num / 1000) << "of " << num;
}

TEST(DeviceDraws, AreInProportion) {
  auto logits = random_logits(12, 3);
  for (float& x : logits) x /= 4;
  for (const Sampling& sampling :
       {Sampling{.temperature = 0.7}, Sampling{.temperature = 2, .top_k = 8},
        Sampling{.temperature = 1, .top_p = 0.8},
        Sampling{.temperature = 3, .top_p = 0.9, .top_k = 7}}) {
    constexpr int kDraws = 20000;
    std::vector<model::Drawing> drawings;
    for (int i = 0; i < kDraws; ++i)
      drawings.push_back(drawing(sampling, static_cast<uint64_t>(i)));
    const at::Tensor rows = at::tensor(logits).expand({kDraws, -1});
    const at::Tensor tokens =
        model::cuda::draw_tokens(rows, rows.amax(1, true), drawings).select(1, 0).contiguous();
    std::map<int32_t, int> hits;
    for (int i = 0; i < kDraws; ++i)
      ++hits[static_cast<int32_t>(tokens.const_data_ptr<double>()[i])];
    double chi = 0;
    const auto kept = naive_kept(logits, sampling);
    int num_hits = 0;
    for (const auto& [id, p] : kept) {
      num_hits += hits[id];
      chi += (hits[id] - p * kDraws) * (hits[id] - p * kDraws) / (p * kDraws);
    }
    EXPECT_EQ(num_hits, kDraws) << "a token was drawn that is not kept";
    // Its mean is the number of tokens less one, its deviation the root of twice that.
    ASSERT_GE(kept.size(), 4u);
    const auto freedom = static_cast<double>(kept.size() - 1);
    EXPECT_LT(chi, freedom + 5 * std::sqrt(2 * freedom));
  }
}

}  // namespace
}  // namespace erank::engine
