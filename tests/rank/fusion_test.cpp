#include "erank/rank/fusion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "erank/base/error.h"
#include "erank/data/records.h"

namespace erank::rank {
namespace {

using ::testing::ElementsAre;
using enum FusionMethod;

using Values = std::vector<double>;

TEST(Fusion, ZScoresHaveMeanZeroAndPopulationDeviationOne) {
  const auto z = shares_of(kZScore, Values{1, 2, 3, 4});
  EXPECT_NEAR(z.of[0], -1.3416407864998738, 1e-15);
  EXPECT_NEAR(z.of[0] + z.of[1] + z.of[2] + z.of[3], 0, 1e-15);
  double squares = 0;
  for (double x : z.of) squares += x * x / 4;
  EXPECT_NEAR(squares, 1, 1e-15);
  EXPECT_EQ(z.missing, z.of[0]);
}

TEST(Fusion, MinMaxSumAndReciprocalRanksByHand) {
  const auto scaled = shares_of(kMinMax, Values{3, -1, 1});
  EXPECT_EQ(scaled.of, (Values{1, 0, 0.5}));
  EXPECT_EQ(scaled.missing, 0);
  EXPECT_EQ(shares_of(kSum, Values{3, -1}).of, (Values{3, -1}));
  EXPECT_EQ(shares_of(kSum, Values{3, -1}).missing, 0);
  // Equal scores keep the list's order.
  const auto ranks = shares_of(kRrf, Values{2, 5, 2, 9});
  EXPECT_EQ(ranks.of, (Values{1 / 63.0, 1 / 62.0, 1 / 64.0, 1 / 61.0}));
  EXPECT_EQ(ranks.missing, 0);
  EXPECT_EQ(shares_of(kRrf, Values{2, 5}, 1).of, (Values{1 / 3.0, 1 / 2.0}));
}

TEST(Fusion, AConstantListIsOneAlsoWhenItIsConstantOnlyUpToRounding) {
  for (const Values& constant :
       {Values{5, 5, 5}, Values{0.1, 0.1, 0.1}, Values{7}, Values{0.3, 0.1 + 0.2, 0.3}}) {
    const auto z = shares_of(kZScore, constant), scaled = shares_of(kMinMax, constant);
    EXPECT_EQ(z.of, Values(constant.size(), 0.0));
    EXPECT_EQ(z.missing, 0);
    EXPECT_EQ(scaled.of, Values(constant.size(), 1.0));
    EXPECT_EQ(scaled.missing, 0);
  }
  for (auto method : {kZScore, kMinMax, kSum, kRrf}) {
    EXPECT_TRUE(shares_of(method, Values{}).of.empty());
    EXPECT_EQ(shares_of(method, Values{}).missing, 0);
  }
}

TEST(Fusion, TheWeightBelongsToTheFirstStage) {
  const Values first = {1, 0}, model = {0, 1};
  EXPECT_EQ(blend(kZScore, first, model, 1.0), (Values{1, -1}));
  EXPECT_EQ(blend(kZScore, first, model, 0.0), (Values{-1, 1}));
  const auto mixed = blend(kZScore, first, model, 0.2);
  EXPECT_NEAR(mixed[0], -0.6, 1e-12);
  EXPECT_NEAR(mixed[1], 0.6, 1e-12);
  EXPECT_EQ(blend(kMinMax, first, model, 0.25), (Values{0.25, 0.75}));
  EXPECT_EQ(blend(kSum, Values{8, 0}, Values{2, 4}, 0.25), (Values{3.5, 3}));
  EXPECT_EQ(blend(kRrf, first, model, 0.5), (Values{0.5 / 61 + 0.5 / 62, 0.5 / 62 + 0.5 / 61}));
}

TEST(Fusion, NamesAreKnown) {
  EXPECT_EQ(parse_fusion_method("rrf", "x"), kRrf);
  EXPECT_EQ(parse_fusion_method("zscore", "x"), kZScore);
  EXPECT_THROW(parse_fusion_method("zscores", "x"), base::Error);
}

data::Run run_of(const std::vector<std::pair<std::string, std::vector<data::Hit>>>& lists) {
  data::Run run;
  for (const auto& [qid, hits] : lists) {
    run.qids.push_back(qid);
    run.hits[qid] = hits;
  }
  return run;
}

std::vector<std::string> ids_of(const data::Run& run, const std::string& qid) {
  std::vector<std::string> ids;
  for (const auto& hit : run.hits.at(qid)) ids.push_back(hit.docid);
  return ids;
}

TEST(Fusion, RunsAreAddedUpWithWhatTheyLack) {
  const std::vector<data::Run> runs = {
      run_of({{"q1", {{"a", 4}, {"b", 2}, {"c", 0}}}, {"q2", {{"x", 1}}}}),
      run_of({{"q3", {{"z", 5}}}, {"q1", {{"c", 30}, {"d", 10}}}})};
  const Values weights = {1, 0.5};
  const auto scaled = fuse(kMinMax, runs, weights);
  EXPECT_THAT(scaled.qids, ElementsAre("q1", "q2", "q3"));
  EXPECT_THAT(ids_of(scaled, "q1"), ElementsAre("a", "b", "c", "d"));  // 1, 0.5, 0.5, 0
  EXPECT_EQ(scaled.hits.at("q1")[2].score, 0.5);
  EXPECT_EQ(scaled.hits.at("q3")[0].score, 0.5);
  const auto sum = fuse(kSum, runs, weights);
  EXPECT_THAT(ids_of(sum, "q1"), ElementsAre("c", "d", "a", "b"));
  EXPECT_EQ(sum.hits.at("q1")[0].score, 15);
  // z: 4, 2, 0 -> 1.22, 0, -1.22, and d as c; 30, 10 -> 1, -1, and a and b as d.
  const auto z = fuse(kZScore, runs, weights);
  EXPECT_THAT(ids_of(z, "q1"), ElementsAre("a", "b", "c", "d"));
  EXPECT_NEAR(z.hits.at("q1")[0].score, std::sqrt(1.5) - 0.5, 1e-12);
  EXPECT_NEAR(z.hits.at("q1")[2].score, -std::sqrt(1.5) + 0.5, 1e-12);
  EXPECT_NEAR(z.hits.at("q1")[3].score, -std::sqrt(1.5) - 0.5, 1e-12);
  const auto rrf = fuse(kRrf, runs, weights, 0);
  EXPECT_THAT(ids_of(rrf, "q1"), ElementsAre("a", "c", "b", "d"));
  EXPECT_NEAR(rrf.hits.at("q1")[1].score, 1 / 3.0 + 0.5, 1e-12);
}

TEST(Fusion, EqualSumsComeInTheByteOrderOfIds) {
  const std::vector<data::Run> runs = {run_of({{"q", {{"b", 2}, {"a", 1}}}}),
                                       run_of({{"q", {{"a", 2}, {"b", 1}, {"B", 1.5}}}})};
  EXPECT_THAT(ids_of(fuse(kSum, runs, Values{1, 1}), "q"), ElementsAre("a", "b", "B"));
}

TEST(Fusion, SumsThatAreNotFiniteAreRefused) {
  const std::vector<data::Run> runs = {run_of({{"q", {{"a", 1e308}}}}),
                                       run_of({{"q", {{"a", 1e308}}}})};
  EXPECT_THROW(fuse(kSum, runs, Values{1, 1}), base::Error);
}

}  // namespace
}  // namespace erank::rank
