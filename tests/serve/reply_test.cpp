#include "erank/serve/reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace erank::serve {
namespace {

using base::Json;
using base::OrderedJson;
using rank::PassageResult;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const ReplyContext kContext{.id = "r-1", .model = "tiny", .created = 1700000000};

RerankCall call_of(const std::string& body) { return parse_call(PostRoute::kRerank, body, {}); }
RerankCall three(const std::string& fields = "") {
  return call_of(R"({"query": "q", "documents": ["a", "b", "c"])" + fields + "}");
}

PassageResult scored(size_t index, double score) {
  PassageResult r;
  r.index = index;
  r.docid = std::to_string(index);
  r.score = score;
  r.integer = static_cast<int>(std::clamp(score, 0.0, 10.0));
  r.probability = 0.75;
  r.distribution.p[static_cast<size_t>(r.integer)] = 0.75;
  r.distribution.p_other = 0.25;
  r.prompt_tokens = 10;
  r.new_tokens = 3;
  r.reasoning = "because";
  return r;
}

PassageResult failed(size_t index) {
  PassageResult r;
  r.index = index;
  r.error = {rank::PassageError::Kind::kTooLong, "document: too long"};
  return r;
}

rank::Ranking ranked(const RerankCall& call, std::vector<PassageResult> results) {
  return rank::make_ranking("0", std::move(results), call.options);
}

Json reply(const RerankCall& call, std::vector<PassageResult> results) {
  const rank::Ranking ranking = ranked(call, std::move(results));
  return Json::parse(base::dump_json(reply_json(call, {&ranking, 1}, kContext)));
}

template <typename T = double>
std::vector<T> column(const Json& list, const char* key) {
  std::vector<T> values;
  for (const Json& item : list) values.push_back(item.at(key).get<T>());
  return values;
}

TEST(Reply, HasTheUnionOfTheClientsKeys) {
  const Json json = reply(three(), {scored(0, 2), scored(1, 8), scored(2, 5)});
  EXPECT_EQ(json["id"], "r-1");
  EXPECT_EQ(json["object"], "rerank");
  EXPECT_EQ(json["created"], 1700000000);
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["usage"],
            Json({{"prompt_tokens", 30}, {"completion_tokens", 9}, {"total_tokens", 39}}));
  EXPECT_EQ(json["meta"], Json::parse(R"({"api_version": {"version": "2", "is_experimental": false},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": 30, "output_tokens": 9}})"));
  EXPECT_FALSE(json.contains("data"));
  EXPECT_FALSE(json.contains("rankings"));
  EXPECT_EQ(json["results"][0], Json::parse(R"({"index": 1, "relevance_score": 0.8,
      "document": {"text": "b"}, "score": 8.0, "integer": 8, "probability": 0.75,
      "finish": "answered", "flags": [], "prompt_tokens": 10, "new_tokens": 3})"));
  EXPECT_THAT(column<size_t>(json["results"], "index"), ElementsAre(1, 2, 0));
}

TEST(Reply, KeepsLowerIndicesFirstAmongEquals) {
  EXPECT_THAT(column<size_t>(reply(three(), {scored(2, 5), scored(0, 5), scored(1, 5)})["results"],
                             "index"),
              ElementsAre(0, 1, 2));
}

TEST(Reply, IsCutToTopN) {
  const Json json = reply(three(R"(, "top_n": 2)"), {scored(0, 2), scored(1, 8), scored(2, 5)});
  EXPECT_THAT(column<size_t>(json["results"], "index"), ElementsAre(1, 2));
  EXPECT_EQ(json["usage"]["prompt_tokens"], 30);  // what was computed
  EXPECT_EQ(
      reply(three(R"(, "top_n": 9)"), {scored(0, 2), scored(1, 8), scored(2, 5)})["results"].size(),
      3u);
}

TEST(Reply, LeavesOutAndPutsInWhatIsAskedFor) {
  const Json json = reply(three(R"(, "return_documents": false, "return_reasoning": true,
                                    "return_distribution": true, "raw_scores": true)"),
                          {scored(0, 2), scored(1, 8), scored(2, 5)});
  const Json& first = json["results"][0];
  EXPECT_FALSE(first.contains("document"));
  EXPECT_EQ(first["reasoning"], "because");
  EXPECT_EQ(first["distribution"].size(), 11u);
  EXPECT_EQ(first["distribution"][8], 0.75);
  EXPECT_EQ(first["relevance_score"], 8.0);
}

TEST(Reply, PutsWhatFailedLastWithItsReason) {
  const Json list = reply(three(), {failed(0), scored(1, 0), scored(2, 5)})["results"];
  EXPECT_THAT(column<size_t>(list, "index"), ElementsAre(2, 1, 0));
  EXPECT_EQ(list[2]["relevance_score"], 0.0);
  EXPECT_EQ(list[2]["error"], Json({{"kind", "too_long"}, {"message", "document: too long"}}));
  EXPECT_EQ(list[2]["document"]["text"], "a");
  EXPECT_FALSE(list[2].contains("score"));
}

TEST(Reply, TellsOfWindowsAndFlags) {
  PassageResult r = scored(1, 8);
  r.window = {2, 3, 100, 250};
  r.flags = {"document_truncated"};
  r.finish = rank::Finish::kForced;
  const Json first = reply(three(), {scored(0, 2), r, scored(2, 5)})["results"][0];
  EXPECT_EQ(first["window"], Json({{"number", 2}, {"of", 3}, {"begin", 100}, {"end", 250}}));
  EXPECT_THAT(first["flags"].get<std::vector<std::string>>(), ElementsAre("document_truncated"));
  EXPECT_EQ(first["finish"], "forced");
}

TEST(Reply, TellsTheProbabilityOfRelevanceWhereItIsKnown) {
  PassageResult known = scored(0, 8);
  known.relevance = 0.4;
  const std::vector<PassageResult> results = {known, scored(1, 2), failed(2)};
  const Json list = reply(three(), results)["results"];
  EXPECT_EQ(list[0]["relevance"], 0.4);
  EXPECT_EQ(list[0]["relevance_score"], 0.8);
  for (const size_t other : {1, 2}) EXPECT_FALSE(list[other].contains("relevance"));
  EXPECT_EQ(stream_item(three(), 0, known, kContext, false)["relevance"], 0.4);
  const RerankCall tei = call_of(R"({"query": "q", "texts": ["a", "b", "c"]})");
  EXPECT_EQ(reply(tei, results)[0], Json::parse(R"({"index": 0, "score": 0.8, "relevance": 0.4})"));
  const RerankCall pairs =
      parse_call(PostRoute::kScore, R"({"text_1": "q", "text_2": ["a", "b", "c"]})", {});
  EXPECT_EQ(reply(pairs, results)["data"][0]["relevance"], 0.4);
}

TEST(Reply, HasVoyagesDataForTopK) {
  const Json json = reply(three(R"(, "top_k": 1)"), {scored(0, 2), scored(1, 8), scored(2, 5)});
  EXPECT_EQ(json["data"], json["results"]);
  EXPECT_EQ(json["data"].size(), 1u);
}

TEST(Reply, OfTeiIsABareArray) {
  const RerankCall call = call_of(R"({"query": "q", "texts": ["a", "b"]})");
  EXPECT_EQ(reply(call, {scored(0, 2), scored(1, 8)}),
            Json::parse(R"([{"index": 1, "score": 0.8}, {"index": 0, "score": 0.2}])"));
  const RerankCall more = call_of(
      R"({"query": "q", "texts": ["a", "b"], "raw_scores": true, "return_text": true,
          "return_reasoning": true})");
  EXPECT_EQ(reply(more, {failed(0), scored(1, 8)}),
            Json::parse(R"([{"index": 1, "score": 8.0, "text": "b", "reasoning": "because"},
                {"index": 0, "score": 0.0, "text": "a",
                 "error": {"kind": "too_long", "message": "document: too long"}}])"));
}

TEST(Reply, OfSeveralQueriesHasRankings) {
  const RerankCall call = call_of(R"({"query": ["q", "r"], "documents": [["a"], ["b", "c"]]})");
  const std::vector<rank::Ranking> rankings = {ranked(call, {scored(0, 2)}),
                                               ranked(call, {scored(0, 1), scored(1, 4)})};
  const Json json = Json::parse(base::dump_json(reply_json(call, rankings, kContext)));
  EXPECT_FALSE(json.contains("results"));
  ASSERT_EQ(json["rankings"].size(), 2u);
  EXPECT_EQ(json["rankings"][0]["results"][0]["document"]["text"], "a");
  EXPECT_THAT(column<size_t>(json["rankings"][1]["results"], "index"), ElementsAre(1, 0));
  EXPECT_EQ(json["usage"]["prompt_tokens"], 30);
  EXPECT_EQ(json["meta"]["billed_units"]["search_units"], 2);
}

TEST(Reply, OfPairsIsInTheirOrder) {
  const RerankCall call = parse_call(
      PostRoute::kScore, R"({"text_1": ["x", "y", "x"], "text_2": ["a", "b", "c"]})", {});
  const std::vector<rank::Ranking> rankings = {ranked(call, {scored(0, 2), scored(1, 8)}),
                                               ranked(call, {scored(0, 5)})};
  const Json json = Json::parse(base::dump_json(reply_json(call, rankings, kContext)));
  EXPECT_EQ(json["data"], Json::parse(R"([{"index": 0, "object": "score", "score": 0.2},
      {"index": 1, "object": "score", "score": 0.5},
      {"index": 2, "object": "score", "score": 0.8}])"));
  EXPECT_EQ(json["object"], "list");
  EXPECT_EQ(json["usage"]["total_tokens"], 39);
}

TEST(Reply, SharesTheScaleAndTheBlend) {
  const RerankCall plain = three();
  EXPECT_EQ(relevance_of(scored(0, 7.5), plain, text::Scale::kZeroToTen, true), 0.75);
  EXPECT_EQ(relevance_of(scored(0, 1.5), plain, text::Scale::kZeroToThree, true), 0.5);
  EXPECT_EQ(relevance_of(scored(0, 0.25), plain, text::Scale::kYesNo, true), 0.25);
  const auto blend = [](const char* method, double x) {
    const RerankCall call =
        three(std::string(R"(, "hybrid": {"scores": [1, 2, 3], "method": ")") + method + "\"}");
    return relevance_of(scored(0, x), call, text::Scale::kZeroToTen, true);
  };
  EXPECT_EQ(blend("zscore", 0), 0.5);
  EXPECT_EQ(blend("zscore", 1), 0.75);
  EXPECT_EQ(blend("sum", -3), 0.125);
  EXPECT_EQ(blend("minmax", 0.3), 0.3);
  EXPECT_EQ(blend("rrf", 1.0 / 61), 1);
  // What a stream tells before there is a list to blend with.
  const RerankCall hybrid = three(R"(, "hybrid": {"scores": [1, 2, 3]})");
  EXPECT_EQ(relevance_of(scored(0, 7.5), hybrid, text::Scale::kZeroToTen, false), 0.75);
}

TEST(Reply, OfABlendHasTheFirstStagesScore) {
  const RerankCall call = three(R"(, "hybrid": {"scores": [9, 2, 3], "weight": 1},
                                   "raw_scores": true)");
  std::vector<PassageResult> results = {scored(0, 1), scored(1, 2), failed(2)};
  for (size_t i = 0; i < 3; ++i) results[i].first_stage_score = call.queries[0].first_stage[i];
  const Json list = reply(call, results)["results"];
  EXPECT_THAT(column<size_t>(list, "index"), ElementsAre(0, 1, 2));
  EXPECT_THAT(column(list, "first_stage_score"), ElementsAre(9, 2, 3));
  EXPECT_THAT(column(list, "relevance_score"), ElementsAre(1, -1, -1));  // z-scores; failed: least
}

TEST(ReplyStream, ItemsHaveNoDocumentAndSayWhenABetterScoreFollows) {
  const Json item =
      Json::parse(base::dump_json(stream_item(three(), 0, scored(1, 8), kContext, true)));
  EXPECT_EQ(item, Json::parse(R"({"index": 1, "relevance_score": 0.8, "score": 8.0, "integer": 8,
      "probability": 0.75, "finish": "answered", "flags": [], "prompt_tokens": 10,
      "new_tokens": 3, "provisional": true})"));
  EXPECT_FALSE(stream_item(three(), 0, failed(1), kContext, false).contains("provisional"));
  const RerankCall several = call_of(R"({"query": ["q", "r"], "documents": ["a"]})");
  EXPECT_EQ(stream_item(several, 1, scored(0, 8), kContext, false)["query"], 1);
  const RerankCall pairs =
      parse_call(PostRoute::kScore, R"({"text_1": ["x", "y"], "text_2": ["a", "b"]})", {});
  EXPECT_EQ(stream_item(pairs, 1, scored(0, 8), kContext, false)["index"], 1);
}

// Whatever the scores are, every index is there once, scores are finite, in [0, 1] and fall.
RC_GTEST_PROP(ReplyProperties, EveryIndexHasAFiniteScore, ()) {
  const auto n = *rc::gen::inRange<size_t>(1, 12);
  Json body = {{"query", "q"}, {"documents", std::vector<std::string>(n, "text")}};
  const bool raw = *rc::gen::arbitrary<bool>();
  body["raw_scores"] = raw;
  const bool hybrid = *rc::gen::arbitrary<bool>();
  if (hybrid) {
    std::vector<double> first;
    for (size_t i = 0; i < n; ++i)
      first.push_back(*rc::gen::element(0.0, 1.5, -1e30, 1e30, 27.25, -3.0));
    body["hybrid"] = {{"scores", first},
                      {"weight", *rc::gen::element(0.0, 0.2, 1.0)},
                      {"method", *rc::gen::element<std::string>("zscore", "minmax", "sum", "rrf")}};
  }
  const RerankCall call = call_of(base::dump_json(body));
  std::vector<PassageResult> results;
  for (size_t i = 0; i < n; ++i) {
    results.push_back(*rc::gen::inRange(0, 4) == 0 ? failed(i)
                                                   : scored(i, *rc::gen::element(0.0, 10.0, 7.3)));
    if (hybrid) results.back().first_stage_score = call.queries[0].first_stage[i];
  }
  const Json list = reply(call, results)["results"];
  std::set<size_t> indices;
  double last = INFINITY;
  for (const Json& item : list) {
    indices.insert(item["index"].get<size_t>());
    const double score = item["relevance_score"].get<double>();
    RC_ASSERT(std::isfinite(score));
    RC_ASSERT(raw || (score >= 0 && score <= 1));
    RC_ASSERT(score <= last);
    last = score;
  }
  RC_ASSERT(indices.size() == n);
  RC_ASSERT(list.size() == n);
}

}  // namespace
}  // namespace erank::serve
