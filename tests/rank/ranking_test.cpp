#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "erank/base/error.h"
#include "erank/rank/reranker.h"
#include "erank/rank/result_json.h"

namespace erank::rank {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<PassageResult> results_of(const std::vector<double>& scores,
                                      const std::vector<double>& first = {}) {
  std::vector<PassageResult> results(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    results[i].docid = "d" + std::to_string(i);
    results[i].index = i;
    results[i].score = scores[i];
    if (!first.empty()) results[i].first_stage_score = first[i];
  }
  return results;
}

std::vector<std::string> order(const Ranking& ranking) {
  std::vector<std::string> ids;
  for (const auto& r : ranking.results) ids.push_back(r.docid);
  return ids;
}

TEST(MakeRanking, SortsByScoreAndKeepsFirstStageOrderOfEquals) {
  auto results = results_of({1, 3, 3, 0, 3});
  std::swap(results[1], results[4]);  // results come as they are done
  const Ranking ranking = make_ranking("q", std::move(results), {});
  EXPECT_EQ(ranking.qid, "q");
  EXPECT_THAT(order(ranking), ElementsAre("d1", "d2", "d4", "d0", "d3"));
}

TEST(MakeRanking, BlendsStandardisedScoresWithTheFirstStagesWeight) {
  ScoreOptions options;
  options.hybrid_weight = 1;
  EXPECT_THAT(order(make_ranking("q", results_of({5, 6, 7}, {3, 2, 1}), options)),
              ElementsAre("d0", "d1", "d2"));
  options.hybrid_weight = 0;
  EXPECT_THAT(order(make_ranking("q", results_of({5, 6, 7}, {3, 2, 1}), options)),
              ElementsAre("d2", "d1", "d0"));
  options.hybrid_weight = 0.25;
  const Ranking ranking = make_ranking("q", results_of({1, 3}, {10, 20}), options);
  EXPECT_DOUBLE_EQ(ranking.results[0].score, 1.0);
  EXPECT_DOUBLE_EQ(ranking.results[1].score, -1.0);
}

TEST(MakeRanking, RefusesABlendWithoutFirstStageScoresOrWithAWeightOutsideItsRange) {
  ScoreOptions options;
  options.hybrid_weight = 0.2;
  auto results = results_of({1, 2}, {1, 2});
  results[1].first_stage_score.reset();
  try {
    make_ranking("q7", results, options);
    FAIL() << "no error";
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("q7"));
    EXPECT_THAT(e.what(), HasSubstr("d1"));
  }
  for (const double w : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    options.hybrid_weight = w;
    EXPECT_THROW(make_ranking("q", results_of({1}, {1}), options), base::Error) << w;
  }
}

TEST(MakeRanking, PutsApartWhatHasNoScore) {
  auto results = results_of({1, 0, 3, 0}, {1, 50, 2, 60});
  for (const size_t i : {3, 1}) results[i].error = PassageError{};
  std::swap(results[1], results[3]);
  ScoreOptions options;
  options.hybrid_weight = 0.5;
  const Ranking ranking = make_ranking("q", std::move(results), options);
  EXPECT_THAT(order(ranking), ElementsAre("d2", "d0"));
  EXPECT_DOUBLE_EQ(ranking.results[0].score, 1.0) << "blended with the scored ones alone";
  ASSERT_EQ(ranking.failed.size(), 2u);
  EXPECT_EQ(ranking.failed[0].docid, "d1");
  EXPECT_EQ(ranking.failed[1].docid, "d3");
}

TEST(MakeRanking, OfNothingIsEmpty) {
  ScoreOptions options;
  options.hybrid_weight = 0.5;
  EXPECT_TRUE(make_ranking("q", {}, options).results.empty());
}

PassageResult odd_result() {
  PassageResult r;
  r.docid = "doc \"1\"\n\xc3\xa9";
  r.score = 0.1 + 0.2;
  r.integer = 10;
  r.probability = 1.0 / 3;
  for (int i = 0; i <= 10; ++i) r.distribution.p[i] = 0.09 / (i + 1.1);
  r.distribution.p[4] = 5e-324;
  r.distribution.p[10] = 0.6;
  r.distribution.ten_follows_one = true;
  r.first_stage_score = -1e-17;
  r.reasoning = "a\tb </think> \xf0\x9f\x98\x80";
  r.finish = Finish::kClipped;
  r.flags = {"query_truncated", "unformatted"};
  r.prompt_tokens = 1234567890123;
  r.new_tokens = 3;
  return r;
}

TEST(ResultJson, ComesBackBitForBit) {
  const PassageResult r = odd_result();
  const std::string line = base::dump_json(to_json("q", 3, r));
  const PassageResult back = result_from_json(base::parse_json(line, "test"), "test");
  EXPECT_EQ(back.docid, r.docid);
  EXPECT_EQ(back.score, r.score);
  EXPECT_EQ(back.integer, r.integer);
  EXPECT_EQ(back.probability, r.probability);
  EXPECT_EQ(back.distribution.p, r.distribution.p);
  EXPECT_EQ(back.first_stage_score, r.first_stage_score);
  EXPECT_EQ(back.reasoning, r.reasoning);
  EXPECT_EQ(back.finish, r.finish);
  EXPECT_EQ(back.flags, r.flags);
  EXPECT_EQ(back.prompt_tokens, r.prompt_tokens);
  EXPECT_EQ(back.new_tokens, r.new_tokens);
  EXPECT_EQ(back.distribution.greedy(), 10);
  EXPECT_EQ(base::dump_json(to_json("q", 3, back)), line);
}

TEST(ResultJson, HasTheDocumentedKeysInOrder) {
  std::vector<std::string> keys, unscored;
  const auto scored = to_json("q", 1, odd_result());
  for (const auto& [key, value] : scored.items()) keys.push_back(key);
  EXPECT_THAT(keys, ElementsAre("qid", "docid", "rank", "score", "integer", "probability",
                                "distribution", "first_stage_score", "reasoning", "finish", "flags",
                                "prompt_tokens", "new_tokens"));
  const auto json = unscored_json("q", 8, "d", 2.5);
  for (const auto& [key, value] : json.items()) unscored.push_back(key);
  EXPECT_EQ(unscored, keys);
  EXPECT_TRUE(json["score"].is_null());
  EXPECT_EQ(base::dump_json(json["flags"]), "[\"not_reranked\"]");
}

TEST(ResultJson, NamesARelevanceWhereItIsKnown) {
  PassageResult r = odd_result();
  r.relevance = 0.25;
  const std::string line = base::dump_json(to_json("q", 1, r));
  EXPECT_THAT(line, ::testing::HasSubstr(",\"relevance\":0.25,\"first_stage_score\":"));
  EXPECT_EQ(result_from_json(base::parse_json(line, "test"), "test").docid, r.docid);
}

TEST(ResultJson, RefusesWhatItDidNotWrite) {
  const base::Json good = base::parse_json(base::dump_json(to_json("q", 1, odd_result())), "test");
  const auto refused = [&](const char* key, const base::Json& value) {
    base::Json bad = good;
    bad[key] = value;
    EXPECT_THROW(result_from_json(bad, "test"), base::Error) << key << " " << value;
  };
  refused("score", "7");
  refused("score", nullptr);
  refused("integer", 1.5);
  refused("integer", 11);
  refused("distribution", {1, 2});
  refused("distribution", base::Json::array({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "x"}));
  refused("finish", "done");
  refused("flags", "unformatted");
  refused("flags", {1});
  EXPECT_THROW(result_from_json(base::Json::array(), "test"), base::Error);
}

TEST(Ranking, SamplesOfAPairGiveTheirMeanAndTheOneNearestToIt) {
  std::vector<PassageResult> samples(3);
  const double scores[] = {2, 7, 6};
  for (size_t i = 0; i < 3; ++i) {
    samples[i].docid = "d";
    samples[i].score = scores[i];
    samples[i].integer = static_cast<int>(scores[i]);
    samples[i].reasoning = std::string(1, static_cast<char>('a' + i));
    samples[i].distribution.p[samples[i].integer] = 0.9;
    samples[i].distribution.p_other = 0.1;
    samples[i].new_tokens = 10;
  }
  const PassageResult mean = mean_of_samples(samples);
  EXPECT_NEAR(mean.score, 5, 1e-12);
  EXPECT_EQ(mean.reasoning, "c");
  EXPECT_EQ(mean.integer, 6);
  EXPECT_NEAR(mean.distribution.p[7], 0.3, 1e-12);
  EXPECT_NEAR(mean.distribution.p_other, 0.1, 1e-12);
  EXPECT_NEAR(mean.distribution.expected(), 5, 1e-12);
  EXPECT_EQ(mean.new_tokens, 30);
  EXPECT_EQ(mean_of_samples({samples[0]}).reasoning, "a");
}

}  // namespace
}  // namespace erank::rank
