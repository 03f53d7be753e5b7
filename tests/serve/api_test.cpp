#include "erank/serve/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "tests/serve/api_calls.h"

namespace erank::serve {
namespace {

using base::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

RerankCall score(const std::string& body) { return parse_call(PostRoute::kScore, body, {}); }

std::vector<std::string> documents(const RerankCall& call, size_t query = 0) {
  return *call.queries.at(query).documents;
}

TEST(ApiRoutes, AreThoseOfTheClients) {
  for (const char* path : {"/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking",
                           "/rerank/", "/v1/rerank/"})
    EXPECT_EQ(post_route(path), PostRoute::kRerank) << path;
  for (const char* path : {"/score", "/v1/score", "/score/"})
    EXPECT_EQ(post_route(path), PostRoute::kScore) << path;
  for (const char* path : {"", "/", "/rerank/x", "/v3/rerank", "rerank", "/RERANK", "/rerank//"})
    EXPECT_EQ(post_route(path), std::nullopt) << path;
}

TEST(ApiRequest, HasDefaultsWhereNothingIsSaid) {
  const RerankCall call = rerank(R"({"query": "q", "documents": ["a", "b"]})");
  EXPECT_EQ(call.shape, Shape::kEnvelope);
  EXPECT_FALSE(call.several);
  EXPECT_FALSE(call.voyage);
  ASSERT_EQ(call.queries.size(), 1u);
  EXPECT_EQ(call.queries[0].query, "q");
  EXPECT_THAT(documents(call), ElementsAre("a", "b"));
  EXPECT_EQ(call.num_pairs, 2);
  EXPECT_EQ(call.top_n, 0);
  EXPECT_TRUE(call.return_documents);
  EXPECT_FALSE(call.raw_scores);
  EXPECT_FALSE(call.return_reasoning);
  EXPECT_FALSE(call.return_distribution);
  EXPECT_FALSE(call.stream);
  EXPECT_EQ(call.deadline_ms, std::nullopt);
  EXPECT_EQ(call.explain_top, 0);
  EXPECT_EQ(call.options.instruction, std::nullopt);
  EXPECT_EQ(call.options.mode, std::nullopt);
  EXPECT_EQ(call.options.score, std::nullopt);
  EXPECT_EQ(call.options.max_think_tokens, std::nullopt);
  EXPECT_EQ(call.options.hybrid_weight, std::nullopt);
  EXPECT_EQ(call.options.temperature, 0);
  EXPECT_EQ(call.options.samples, 1);
  EXPECT_EQ(call.options.seed, 0u);
  EXPECT_EQ(call.options.long_documents, rank::LongDocuments::kWindows);
}

TEST(ApiRequest, TakesNullForAbsentAndIgnoresWhatItDoesNotKnow) {
  const RerankCall call = with(
      R"("top_n": null, "max_tokens_per_doc": null, "return_documents": null, "mode": null,
         "score": null, "instruction": null, "hybrid": null, "deadline_ms": null, "stream": null,
         "rank_fields": null, "texts": null, "explain_top": null, "long_docs": null,
         "max_think_tokens": null, "temperature": null, "samples": null, "seed": null,
         "raw_scores": null, "return_reasoning": null,
         "return_distribution": null, "priority": 3, "user": "u", "truncate": true,
         "truncation_direction": "right", "mm_processor_kwargs": {"a": [1]}, "model": 7,
         "max_chunks_per_doc": 10, "truncate_prompt_tokens": -1, "unheard_of": [[]])");
  EXPECT_EQ(call.top_n, 0);
  EXPECT_TRUE(call.return_documents);
  EXPECT_EQ(call.shape, Shape::kEnvelope);
  EXPECT_EQ(call.options.mode, std::nullopt);
}

TEST(ApiRequest, ReadsEveryFieldOfOurs) {
  const RerankCall call = with(
      R"("instruction": "be kind", "mode": "think", "max_think_tokens": 64, "score": "expected",
         "deadline_ms": 250, "return_reasoning": true, "return_distribution": true,
         "explain_top": 3, "long_docs": "cut", "stream": true, "raw_scores": true, "top_n": 1,
         "return_documents": false, "temperature": 0.7, "samples": 4, "seed": 9,
         "hybrid": {"scores": [1, 2.5], "weight": 0.4, "method": "rrf"})");
  EXPECT_EQ(call.options.instruction, "be kind");
  EXPECT_EQ(call.options.mode, rank::Mode::kThink);
  EXPECT_EQ(call.options.max_think_tokens, 64);
  EXPECT_EQ(call.options.temperature, 0.7);
  EXPECT_EQ(call.options.samples, 4);
  EXPECT_EQ(call.options.seed, 9u);
  EXPECT_EQ(call.options.score, rank::ScoreKind::kExpected);
  EXPECT_EQ(call.deadline_ms, 250);
  EXPECT_TRUE(call.return_reasoning);
  EXPECT_TRUE(call.return_distribution);
  EXPECT_EQ(call.explain_top, 3);
  EXPECT_EQ(call.options.long_documents, rank::LongDocuments::kCut);
  EXPECT_TRUE(call.stream);
  EXPECT_TRUE(call.raw_scores);
  EXPECT_EQ(call.top_n, 1);
  EXPECT_FALSE(call.return_documents);
  EXPECT_EQ(call.options.hybrid_weight, 0.4);
  EXPECT_EQ(call.options.hybrid_method, rank::FusionMethod::kRrf);
  EXPECT_THAT(call.queries[0].first_stage, ElementsAre(1, 2.5));
  EXPECT_EQ(with(R"("score": "integer", "mode": "direct")").options.score,
            rank::ScoreKind::kInteger);
  EXPECT_EQ(with(R"("score": "paper")").options.score, rank::ScoreKind::kPaper);
  EXPECT_EQ(with(R"("mode": "direct")").options.mode, rank::Mode::kDirect);
  EXPECT_EQ(with(R"("long_docs": "windows")").options.long_documents,
            rank::LongDocuments::kWindows);
}

TEST(ApiRequest, TakesTheInstructionUnderThreeNames) {
  EXPECT_EQ(with(R"("instruct": "x")").options.instruction, "x");
  EXPECT_EQ(with(R"("task": "y")").options.instruction, "y");
  EXPECT_EQ(with(R"("instruction": null, "instruct": "", "task": "z")").options.instruction, "z");
  EXPECT_EQ(with(R"("instruction": "x", "task": "z")").options.instruction, "x");
}

TEST(ApiRequest, ReturnsReasoningWhereItIsExplained) {
  EXPECT_TRUE(with(R"("explain_top": 2)").return_reasoning);
  EXPECT_FALSE(with(R"("explain_top": 2, "return_reasoning": false)").return_reasoning);
  EXPECT_FALSE(with(R"("explain_top": 0)").return_reasoning);
}

TEST(ApiRequest, TakesLooseTypes) {
  EXPECT_EQ(with(R"("top_n": "5")").top_n, 5);
  EXPECT_EQ(with(R"("top_n": 5.0)").top_n, 5);
  EXPECT_EQ(with(R"("top_n": "5.0")").top_n, 5);
  EXPECT_EQ(with(R"("top_n": 0)").top_n, 0);
  EXPECT_EQ(with(R"("top_n": 1e300)").top_n, int64_t{1} << 53);
  EXPECT_EQ(with(R"("top_n": 18446744073709551615)").top_n, int64_t{1} << 53);
  for (const char* yes : {"true", "\"true\"", "\"True\"", "1", "\"1\"", "\"yes\"", "1.0"})
    EXPECT_TRUE(with(std::string("\"raw_scores\": ") + yes).raw_scores) << yes;
  for (const char* no : {"false", "\"false\"", "\"FALSE\"", "0", "\"0\"", "\"no\"", "\"\""})
    EXPECT_FALSE(with(std::string("\"return_documents\": ") + no).return_documents) << no;
  EXPECT_EQ(with(R"("hybrid": {"scores": ["1.5", 2], "weight": "0.5"})").options.hybrid_weight,
            0.5);
}

TEST(ApiRequest, DrawsByTheServersDefaultsWhereThereIsSomethingToDraw) {
  const auto options = [](const std::string& fields, rank::Mode mode) {
    return parse_call(PostRoute::kRerank, R"({"query": "q", "documents": ["a"])" + fields + "}", {},
                      {.mode = mode, .samples = 3, .temperature = 0.5, .seed = 11})
        .options;
  };
  const auto think = options("", rank::Mode::kThink);
  EXPECT_EQ(think.samples, 3);
  EXPECT_EQ(think.temperature, 0.5);
  EXPECT_EQ(think.seed, 11u);
  EXPECT_EQ(options("", rank::Mode::kDirect).samples, 1);
  EXPECT_EQ(options(R"(, "mode": "think")", rank::Mode::kDirect).samples, 3);
  EXPECT_EQ(options(R"(, "explain_top": 1)", rank::Mode::kDirect).samples, 3);
  EXPECT_EQ(options(R"(, "mode": "direct")", rank::Mode::kThink).samples, 1);
  EXPECT_EQ(options(R"(, "temperature": 0)", rank::Mode::kThink).samples, 1);
  EXPECT_EQ(options(R"(, "samples": 1)", rank::Mode::kThink).samples, 1);
  EXPECT_EQ(options(R"(, "samples": "2.0", "temperature": "1.5", "seed": "7")", rank::Mode::kThink)
                .samples,
            2);
  const auto loose = options(R"(, "temperature": "1.5", "seed": "7")", rank::Mode::kThink);
  EXPECT_EQ(loose.temperature, 1.5);
  EXPECT_EQ(loose.seed, 7u);
}

TEST(ApiRequest, TakesTopKForTopN) {
  const RerankCall call = with(R"("top_k": 1)");
  EXPECT_EQ(call.top_n, 1);
  EXPECT_TRUE(call.voyage);
  EXPECT_TRUE(with(R"("top_k": null)").voyage);  // Voyage's client sends it so
  EXPECT_FALSE(with(R"("top_n": 1, "top_k": 2)").voyage);
  EXPECT_EQ(with(R"("top_n": 1, "top_k": 2)").top_n, 1);
}

TEST(ApiRequest, WithTextsIsTeis) {
  const RerankCall call = rerank(R"({"query": "q", "texts": ["a", "b"], "raw_scores": false,
                                     "truncate": true})");
  EXPECT_EQ(call.shape, Shape::kTei);
  EXPECT_THAT(documents(call), ElementsAre("a", "b"));
  EXPECT_FALSE(call.return_documents);
  EXPECT_TRUE(rerank(R"({"query": "q", "texts": ["a"], "return_text": true})").return_documents);
  // llama.cpp and others: documents decide.
  EXPECT_EQ(rerank(R"({"query": "q", "texts": ["a"], "documents": ["b"]})").shape,
            Shape::kEnvelope);
  EXPECT_THAT(documents(rerank(R"({"query": {"text": "q"}, "passages": [{"text": "a"}]})")),
              ElementsAre("a"));
}

TEST(ApiDocuments, MayBeTextsOrObjects) {
  const RerankCall call = rerank(R"({"query": "q", "documents": [
      "plain", {"text": "of text"}, {"text": "t", "title": "ignored"},
      {"title": "Sky", "year": 1871, "open": true, "tags": ["a", "b"], "none": null},
      {"type": "text", "text": "a part"}, [{"type": "text", "text": "two"},
      {"type": "text", "text": "parts"}], {"content": [{"type": "text", "text": "vLLM's"}]},
      null, 42, "", {}]})");
  EXPECT_THAT(documents(call),
              ElementsAre("plain", "of text", "t",
                          "none: \nopen: true\ntags: [\"a\",\"b\"]\ntitle: Sky\nyear: 1871",
                          "a part", "two\nparts", "vLLM's", "", "42", "", ""));
}

TEST(ApiDocuments, TakeTheRankFieldsInTheirOrder) {
  const std::string body = R"({"query": "q", "documents": [
      {"title": "T", "body": "B", "text": "X"}, {"body": "B", "title": null}, {"text": "X"},
      {"other": 1}, "plain"], "rank_fields": )";
  EXPECT_THAT(documents(rerank(body + R"(["title", "body"]})")),
              ElementsAre("T\nB", "B", "X", "other: 1", "plain"));
  EXPECT_THAT(documents(rerank(body + R"("body"})")),
              ElementsAre("B", "B", "X", "other: 1", "plain"));
}

TEST(ApiDocuments, MayBeOneAlone) {
  EXPECT_THAT(documents(rerank(R"({"query": "q", "documents": "alone"})")), ElementsAre("alone"));
  EXPECT_THAT(documents(rerank(R"({"query": "q", "documents": {"text": "alone"}})")),
              ElementsAre("alone"));
  EXPECT_THAT(documents(rerank(R"({"query": "q", "documents": {"content":
                  [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}})")),
              ElementsAre("a", "b"));
}

TEST(ApiQuery, MayBeATextPartsOrSeveral) {
  EXPECT_EQ(rerank(R"({"query": {"text": "q"}, "documents": ["a"]})").queries[0].query, "q");
  const RerankCall parts = rerank(R"({"query": [{"type": "text", "text": "a"},
      {"type": "text", "text": "b"}], "documents": ["a"]})");
  EXPECT_FALSE(parts.several);
  EXPECT_EQ(parts.queries[0].query, "a\nb");
  EXPECT_EQ(rerank(R"({"query": 42, "documents": ["a"]})").queries[0].query, "42");
}

TEST(ApiQuery, SeveralHaveTheirListsOrOneForAll) {
  const RerankCall own =
      rerank(R"({"query": ["q1", "q2"], "documents": [["a"], ["b", {"text": "c"}]]})");
  EXPECT_TRUE(own.several);
  ASSERT_EQ(own.queries.size(), 2u);
  EXPECT_EQ(own.queries[1].query, "q2");
  EXPECT_THAT(documents(own, 0), ElementsAre("a"));
  EXPECT_THAT(documents(own, 1), ElementsAre("b", "c"));
  EXPECT_EQ(own.num_pairs, 3);
  const RerankCall shared = rerank(R"({"query": ["q1", "q2"], "documents": ["a", "b"]})");
  EXPECT_THAT(documents(shared, 1), ElementsAre("a", "b"));
  EXPECT_EQ(shared.queries[0].documents, shared.queries[1].documents);
  EXPECT_EQ(shared.num_pairs, 4);
  EXPECT_TRUE(rerank(R"({"query": ["q1"], "documents": ["a"]})").several);
  const RerankCall hybrid = rerank(R"({"query": ["q1", "q2"], "documents": [["a"], ["b", "c"]],
      "hybrid": {"scores": [[1], [2, 3]]}})");
  EXPECT_THAT(hybrid.queries[0].first_stage, ElementsAre(1));
  EXPECT_THAT(hybrid.queries[1].first_stage, ElementsAre(2, 3));
  EXPECT_EQ(hybrid.options.hybrid_weight, 0.2);
  EXPECT_EQ(hybrid.options.hybrid_method, rank::FusionMethod::kZScore);
}

TEST(ApiScore, TakesPairsUnderEveryName) {
  for (const auto& [first, second] :
       std::vector<std::pair<std::string, std::string>>{{"text_1", "text_2"},
                                                        {"queries", "documents"},
                                                        {"queries", "items"},
                                                        {"data_1", "data_2"},
                                                        {"query", "items"},
                                                        {"query", "documents"}}) {
    SCOPED_TRACE(first + second);
    const RerankCall one = score("{\"" + first + "\": \"q\", \"" + second + "\": [\"a\", \"b\"]}");
    EXPECT_EQ(one.shape, Shape::kScore);
    ASSERT_EQ(one.queries.size(), 1u);
    EXPECT_THAT(documents(one), ElementsAre("a", "b"));
    EXPECT_THAT(one.queries[0].positions, ElementsAre(0, 1));
    const RerankCall pair = score("{\"" + first + "\": \"q\", \"" + second + "\": \"a\"}");
    EXPECT_EQ(pair.num_pairs, 1);
  }
}

TEST(ApiScore, PutsPairsOfOneQueryTogether) {
  const RerankCall call =
      score(R"({"text_1": ["x", "y", "x"], "text_2": ["a", "b", {"text": "c"}]})");
  ASSERT_EQ(call.queries.size(), 2u);
  EXPECT_EQ(call.queries[0].query, "x");
  EXPECT_THAT(documents(call, 0), ElementsAre("a", "c"));
  EXPECT_THAT(call.queries[0].positions, ElementsAre(0, 2));
  EXPECT_THAT(documents(call, 1), ElementsAre("b"));
  EXPECT_THAT(call.queries[1].positions, ElementsAre(1));
  EXPECT_EQ(call.num_pairs, 3);
}

TEST(ApiScore, RefusesWhatIsNoPairs) {
  const auto error = [](const std::string& body) { return error_of(body, {}, PostRoute::kScore); };
  EXPECT_THAT(error(R"({"text_1": ["x", "y"], "text_2": ["a"]})").what(),
              HasSubstr("text_1 has 2 texts and text_2 1"));
  EXPECT_EQ(error(R"({"text_2": ["a"]})").param, "text_1");
  EXPECT_EQ(error(R"({"text_1": "q"})").param, "text_2");
  EXPECT_EQ(error(R"({"text_1": "", "text_2": ["a"]})").param, "text_1");
  EXPECT_EQ(error(R"({"text_1": "q", "text_2": []})").param, "text_2");
  EXPECT_EQ(error(R"({"text_1": "q", "text_2": ["a"], "hybrid": {"scores": [1]}})").param,
            "hybrid");
}

// What the clients of peers.md 1.4 send, key by key.
TEST(ApiClients, OpenWebUi) {
  const RerankCall call = rerank(R"({"model": "bge", "query": "why is the sky blue",
      "documents": ["Air scatters blue light.", "Bread rises."], "top_n": 2})");
  EXPECT_EQ(call.top_n, 2);
  EXPECT_EQ(call.num_pairs, 2);
}
TEST(ApiClients, Dify) {
  EXPECT_EQ(rerank(R"({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": null,
                       "return_documents": true})")
                .top_n,
            0);
  EXPECT_FALSE(rerank(R"({"model": "m", "query": "q", "documents": ["a"], "top_n": 1,
                          "return_documents": false})")
                   .return_documents);
  const RerankCall tei = rerank(R"({"query": "q", "texts": ["a"], "return_text": true})");
  EXPECT_EQ(tei.shape, Shape::kTei);
  EXPECT_TRUE(tei.return_documents);
}
TEST(ApiClients, RagFlow) {
  const RerankCall xinference = rerank(R"({"model": "m", "query": "q", "return_documents": "true",
      "return_len": "true", "documents": ["a", "b"]})");
  EXPECT_TRUE(xinference.return_documents);
  const RerankCall hugging = rerank(R"({"query": "q", "texts": ["a", "b"], "raw_scores": false,
      "truncate": true})");
  EXPECT_EQ(hugging.shape, Shape::kTei);
  EXPECT_EQ(rerank(R"({"model": "m", "query": "q", "documents": ["a"], "top_n": 1})").top_n, 1);
}
TEST(ApiClients, LiteLlm) {
  const RerankCall call = rerank(R"({"model": "m", "query": "q", "documents": ["a", {"title": "t",
      "text": "x"}], "return_documents": true, "rank_fields": ["title", "text"],
      "instruction": "i", "max_chunks_per_doc": 3})");
  EXPECT_THAT(documents(call), ElementsAre("a", "t\nx"));
  EXPECT_EQ(call.options.instruction, "i");
}
TEST(ApiClients, HaystackAndLlamaIndexAndLangChain) {
  EXPECT_EQ(rerank(R"({"model": "m", "query": "q", "documents": ["a", "b"],
                       "max_tokens_per_doc": 4096, "top_n": 1})")
                .top_n,
            1);
  EXPECT_EQ(rerank(R"({"query": "q", "texts": ["a"], "raw_scores": false, "truncate": null,
                       "truncation_direction": "right"})")
                .shape,
            Shape::kTei);
  EXPECT_EQ(rerank(R"({"model": "m", "query": "q", "documents": ["title: A\ntext: b\n"],
                       "top_n": null, "max_tokens_per_doc": null})")
                .num_pairs,
            1);
  EXPECT_TRUE(rerank(R"({"model": "rerank-2", "query": "q", "documents": ["a"], "top_k": null,
                         "truncation": true})")
                  .voyage);
}

TEST(ApiLimitsOf, DocumentsTextAndReasoning) {
  const ApiLimits few{.max_documents = 2, .max_text_bytes = 10, .max_think_tokens = 5};
  EXPECT_EQ(rerank(R"({"query": "q", "documents": ["a", "b"]})", few).num_pairs, 2);
  EXPECT_EQ(error_of(R"({"query": "q", "documents": ["a", "b", "c"]})", few).status, 413);
  EXPECT_EQ(error_of(R"({"query": ["q", "r"], "documents": ["a", "b"]})", few).status, 413);
  EXPECT_EQ(error_of(R"({"query": "q", "documents": ["12345678901"]})", few).status, 413);
  EXPECT_EQ(error_of(R"({"query": ["q", "r"], "documents": ["123456"]})", few).status, 413);
  EXPECT_EQ(error_of(R"({"query": "q", "texts": ["a", "b", "c"]})", few).status, 413);
  // A query and an instruction are read with every document.
  EXPECT_EQ(error_of(R"({"query": "12345", "documents": ["a", "b"]})", few).status, 413);
  EXPECT_EQ(error_of(R"({"query": "q", "documents": ["a"], "task": "123456789"})", few).status,
            413);
  const ApiError error =
      error_of(R"({"query": "q", "documents": ["a"], "max_think_tokens": 6})", few);
  EXPECT_EQ(error.status, 422);
  EXPECT_EQ(error.param, "max_think_tokens");
}

TEST(Api, ObjectsWithATypeOfTheirOwnAreDocuments) {
  const RerankCall call = rerank(R"({"query": ["q", "r"], "documents":
      [[{"type": "a", "text": "one"}, {"type": "a", "text": "two"}], [{"type": "b", "text": "x"}]]})");
  ASSERT_EQ(call.queries.size(), 2u);
  EXPECT_EQ(*call.queries[0].documents, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(*call.queries[1].documents, std::vector<std::string>{"x"});
}

TEST(Api, ADeadlineFarAwayIsKept) {
  const auto deadline =
      rerank(R"({"query": "q", "documents": ["a"], "deadline_ms": 10000000000000})").deadline_ms;
  ASSERT_TRUE(deadline);
  EXPECT_GT(*deadline, 24 * 3600 * 1000);
  EXPECT_LT(*deadline, int64_t{1} << 40);  // nanoseconds of it and of now fit 64 bits
}

TEST(ApiText, IsRepairedNotRefused) {
  EXPECT_THAT(documents(rerank("{\"query\": \"q\", \"documents\": [\"a\xff\", \"\\ud800b\"]}")),
              ElementsAre("a\xef\xbf\xbd",
                          "\xef\xbf\xbd"
                          "b"));
  EXPECT_THAT(documents(rerank(R"({"query": "q", "documents": ["\ud83d\ude00 \u0000"]})")),
              ElementsAre(std::string("\xf0\x9f\x98\x80 \0", 6)));
  EXPECT_EQ(rerank("\xef\xbb\xbf{\"query\": \"q\", \"documents\": [\"a\"]}").num_pairs, 1);
}

// Any JSON value, some of it with our keys.
Json any_json(int depth) {
  switch (*rc::gen::inRange(0, depth > 0 ? 8 : 6)) {
    case 0:
      return nullptr;
    case 1:
      return *rc::gen::arbitrary<bool>();
    case 2:
      return *rc::gen::arbitrary<int64_t>();
    case 3:
      return *rc::gen::element(0.5, -1.0, 1e300, 3.0);
    case 4:
    case 5:
      return *rc::gen::element<std::string>("", "q", "true", "5", "think", "\xc3\xa9", "zscore");
    case 6: {
      Json list = Json::array();
      for (int n = *rc::gen::inRange(0, 4); n > 0; --n) list.push_back(any_json(depth - 1));
      return list;
    }
    default: {
      Json object = Json::object();
      for (int n = *rc::gen::inRange(0, 4); n > 0; --n)
        object[*rc::gen::element<std::string>("text", "type", "content", "scores", "weight",
                                              "method", "image", "title")] = any_json(depth - 1);
      return object;
    }
  }
}

RC_GTEST_PROP(ApiProperties, EveryBodyGivesACallOrAnApiError, ()) {
  Json body = Json::object();
  if (*rc::gen::inRange(0, 4) > 0) body["query"] = "q";
  if (*rc::gen::inRange(0, 4) > 0) body["documents"] = Json::array({"a", "b"});
  for (int n = *rc::gen::inRange(0, 5); n > 0; --n)
    body[*rc::gen::element<std::string>(
        "query", "documents", "texts", "passages", "top_n", "top_k", "return_documents", "hybrid",
        "rank_fields", "instruction", "mode", "score", "deadline_ms", "explain_top", "long_docs",
        "stream", "max_think_tokens", "raw_scores", "text_1", "text_2", "queries", "items")] =
        any_json(3);
  const auto route = *rc::gen::element(PostRoute::kRerank, PostRoute::kScore);
  try {
    const RerankCall call = parse_call(route, base::dump_json(body), {});
    RC_ASSERT(!call.queries.empty());
    int64_t pairs = 0;
    for (const QueryCall& query : call.queries) {
      RC_ASSERT(!query.query.empty());
      RC_ASSERT(!query.documents->empty());
      RC_ASSERT(query.first_stage.empty() || query.first_stage.size() == query.documents->size());
      RC_ASSERT(query.first_stage.empty() != call.options.hybrid_weight.has_value());
      pairs += std::ssize(*query.documents);
    }
    RC_ASSERT(pairs == call.num_pairs);
    RC_ASSERT(call.top_n >= 0);
  } catch (const ApiError& error) {
    RC_ASSERT(error.status == 400 || error.status == 413 || error.status == 422);
    RC_ASSERT(base::is_valid_utf8(error.what()));
    RC_ASSERT(Json::accept(error_body(error, "id")));
  }
}

RC_GTEST_PROP(ApiProperties, NoBytesEscapeTheParser, (const std::string& noise)) {
  std::string body = R"({"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1})";
  const auto place = *rc::gen::inRange<size_t>(0, body.size());
  body.replace(place, *rc::gen::inRange<size_t>(0, 5), noise);
  try {
    parse_call(PostRoute::kRerank, body, {});
  } catch (const ApiError& error) {
    RC_ASSERT(base::is_valid_utf8(error.what()));
    RC_ASSERT(std::string(error.what()).find('\n') == std::string::npos);
  }
}

}  // namespace
}  // namespace erank::serve
