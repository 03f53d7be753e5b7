// What is told of requests that are wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "erank/base/json.h"
#include "erank/serve/api.h"
#include "tests/serve/api_calls.h"

namespace erank::serve {
namespace {

using base::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(ApiFaults, OfJsonAre400WithTheirPlace) {
  for (const char* body : {"", " ", "{", "[]", "null", "3", "\"x\"", "{\"query\": }", "{]",
                           "{\"query\": \"q\",}", "{\"query\": NaN}", "\xff\xfe", "{\"a\":1}{}",
                           "{\"query\": \"a\", \"query\": \"b\"}", "{\"top_n\": 1e999}"}) {
    const ApiError error = error_of(body);
    EXPECT_EQ(error.status, 400) << body;
    EXPECT_EQ(error.shape, Shape::kEnvelope) << body;
    EXPECT_STRNE(error.what(), "") << body;
  }
  const ApiError deep = error_of("{\"documents\": " + std::string(100000, '['));
  EXPECT_EQ(deep.status, 400);
  EXPECT_THAT(deep.what(), HasSubstr("nested deeper than"));
}

TEST(ApiFaults, NameTheField) {
  EXPECT_EQ(error_of(R"({"documents": ["a"]})").param, "query");
  EXPECT_EQ(error_of(R"({"query": "", "documents": ["a"]})").param, "query");
  EXPECT_EQ(error_of(R"({"query": [], "documents": ["a"]})").param, "query");
  EXPECT_EQ(error_of(R"({"query": ["a", ""], "documents": ["a"]})").param, "query");
  EXPECT_EQ(error_of(R"({"query": "q"})").param, "documents");
  EXPECT_EQ(error_of(R"({"query": "q", "documents": 3})").param, "documents");
  EXPECT_EQ(error_of(R"({"query": "q", "documents": []})").param, "documents");
  EXPECT_THAT(error_of(R"({"query": "q", "documents": []})").what(),
              HasSubstr("list of documents must not be empty"));
  EXPECT_EQ(error_of(R"({"query": "q", "documents": ["a", {"image": "data:"}]})").param,
            "documents[1]");
  EXPECT_EQ(error_of(R"({"query": "q", "documents": [[["a"]]]})").param, "documents[0]");
  EXPECT_EQ(error_of(R"({"query": ["q", "r"], "documents": [["a"]]})").param, "documents");
  EXPECT_EQ(error_of(R"({"query": ["q"], "documents": [[]]})").param, "documents[0]");
  for (const char* field : {R"("top_n": -1)",
                            R"("top_n": 1.5)",
                            R"("top_n": "x")",
                            R"("top_n": true)",
                            R"("top_n": [1])",
                            R"("top_k": -1)",
                            R"("return_documents": "maybe")",
                            R"("raw_scores": 2)",
                            R"("stream": {})",
                            R"("deadline_ms": 0)",
                            R"("deadline_ms": -5)",
                            R"("explain_top": -1)",
                            R"("mode": "fast")",
                            R"("mode": 1)",
                            R"("score": "best")",
                            R"("long_docs": "skip")",
                            R"("max_think_tokens": 0)",
                            R"("temperature": -0.5)",
                            R"("temperature": "warm")",
                            R"("samples": 0)",
                            R"("samples": 1.5)",
                            R"("samples": 2)",
                            R"("samples": 2, "mode": "think")",
                            R"("samples": 2, "mode": "direct", "temperature": 1)",
                            R"("seed": -1)",
                            R"("seed": 9007199254740992)",
                            R"("instruction": 3)",
                            R"("rank_fields": [1])",
                            R"("hybrid": 3)"}) {
    const ApiError error = error_with(field);
    EXPECT_EQ(error.status, 400) << field;
    const std::string text = field;
    EXPECT_EQ(error.param, text.substr(1, text.find('"', 1) - 1)) << field;
    EXPECT_THAT(error.what(), HasSubstr("expected")) << field;
  }
}

// None of several names for one thing is wrong unseen.
TEST(ApiFaults, OfANameThatDoesNotCountAreToldToo) {
  const auto param = [](const std::string& fields) { return error_with(fields).param; };
  EXPECT_EQ(param(R"("return_documents": true, "return_text": 0.5)"), "return_text");
  EXPECT_EQ(param(R"("top_n": 1, "top_k": "many")"), "top_k");
  EXPECT_EQ(param(R"("instruction": "find", "task": 5)"), "task");
  EXPECT_EQ(param(R"("texts": [])"), "texts");
  EXPECT_EQ(param(R"("passages": 5)"), "passages");
  EXPECT_EQ(error_of(R"({"text_1": "a", "text_2": "b", "items": []})", {}, PostRoute::kScore).param,
            "items");
  EXPECT_EQ(with(R"("top_n": 1, "top_k": 2, "texts": ["c"])").top_n, 1);
}

TEST(ApiFaults, OfNumbersAsTexts) {
  EXPECT_EQ(with(R"("top_n": "0")").top_n, 0);
  EXPECT_EQ(with(R"("top_n": "999999999.0")").top_n, 999999999);
  for (const char* text : {"1e1", "1.5", "1.", "01", "+1", " 1", "1234567890", ""})
    EXPECT_EQ(error_with("\"top_n\": \"" + std::string(text) + "\"").param, "top_n") << text;
}

TEST(ApiFaults, OfQueriesThatAreNone) {
  const auto param = [](const std::string& query) {
    return error_of("{\"documents\": [\"a\"], \"query\": " + query + "}").param;
  };
  for (const char* query : {"true", "{}", R"({"a": "b"})", R"({"text": 5})", R"({"text": ""})",
                            "[]", R"({"content": []})", R"({"image": "x"})"})
    EXPECT_EQ(param(query).substr(0, 5), "query") << query;
  for (const char* query :
       {"[null]", "[true]", R"(["a", {}])", R"([["a"]])", R"([[{"type": "text", "text": {}}]])",
        R"([{"type": "text", "text": "a"}, {"type": "text", "text": ""}])"})
    EXPECT_EQ(param(query), "query") << query;
  EXPECT_THAT(error_of(R"({"documents": ["a"], "query": ["a", ""]})").what(),
              HasSubstr("query[1]"));
  EXPECT_EQ(rerank(R"({"query": 5, "documents": ["a"]})").queries[0].query, "5");
  EXPECT_EQ(rerank(R"({"query": ["a", {"text": "b"}], "documents": ["a"]})").queries[1].query, "b");
}

TEST(ApiFaults, OfABlendNameItsPart) {
  EXPECT_EQ(error_with(R"("hybrid": {})").param, "hybrid.scores");
  EXPECT_THAT(error_with(R"("hybrid": {"scores": [1]})").what(),
              HasSubstr("has 1 numbers, expected 2"));
  EXPECT_EQ(error_with(R"("hybrid": {"scores": [1, null]})").param, "hybrid.scores[1]");
  EXPECT_EQ(error_with(R"("hybrid": {"scores": [1, 1e31]})").param, "hybrid.scores[1]");
  EXPECT_EQ(error_with(R"("hybrid": {"scores": [1, 2], "weight": 1.5})").param, "hybrid.weight");
  EXPECT_EQ(error_with(R"("hybrid": {"scores": [1, 2], "method": "x"})").param, "hybrid.method");
  EXPECT_EQ(error_of(R"({"query": ["q", "r"], "documents": ["a"],
                         "hybrid": {"scores": [[1]]}})")
                .param,
            "hybrid.scores");
}

TEST(ApiFaults, OfMoreReasoningThanIsAllowedAre422) {
  const ApiLimits limits{.max_think_tokens = 100, .max_samples = 8};
  const auto error = [&](const std::string& field) {
    return error_of(
        R"({"query": "q", "documents": ["a"], "mode": "think", "temperature": 1, )" + field + "}",
        limits);
  };
  EXPECT_EQ(error(R"("max_think_tokens": 101)").status, 422);
  EXPECT_EQ(error(R"("max_think_tokens": 101)").param, "max_think_tokens");
  EXPECT_EQ(error(R"("samples": 9)").status, 422);
  EXPECT_EQ(error(R"("samples": 9)").param, "samples");
  EXPECT_STREQ(error(R"("samples": 9)").what(), "samples is 9, expected at most 8");
}

TEST(ApiErrors, HaveABodyForEachOfTheirReaders) {
  ApiError error(400, "top_n is -1, expected more", "top_n");
  const Json body = Json::parse(error_body(error, "r-1"));
  EXPECT_EQ(body, Json::parse(R"({"error": {"message": "top_n is -1, expected more",
      "type": "invalid_request_error", "param": "top_n", "code": 400},
      "error_type": "Validation", "message": "top_n is -1, expected more", "detail": "top_n is -1, expected more",
      "id": "r-1"})"));
  EXPECT_TRUE(Json::parse(error_body(ApiError(500, "x"), ""))["error"]["param"].is_null());
  error.shape = Shape::kTei;
  EXPECT_EQ(Json::parse(error_body(error, "r-1")),
            Json::parse(R"({"error": "top_n is -1, expected more", "error_type": "Validation"})"));
}

TEST(ApiErrors, HaveTheTypesOfTheirStatus) {
  const auto types = [](int status) {
    ApiError error(status, "m");
    const std::string ours = Json::parse(error_body(error, ""))["error"]["type"];
    error.shape = Shape::kTei;
    return std::pair(ours, Json::parse(error_body(error, ""))["error_type"].get<std::string>());
  };
  EXPECT_THAT(types(400), Pair("invalid_request_error", "Validation"));
  EXPECT_THAT(types(401), Pair("authentication_error", "Validation"));
  EXPECT_THAT(types(404), Pair("not_found_error", "Validation"));
  EXPECT_THAT(types(413), Pair("request_too_large", "Validation"));
  EXPECT_THAT(types(422), Pair("invalid_request_error", "Validation"));
  EXPECT_THAT(types(429), Pair("rate_limit_error", "Overloaded"));
  EXPECT_THAT(types(500), Pair("server_error", "Backend"));
  EXPECT_THAT(types(503), Pair("unavailable_error", "Unhealthy"));
  EXPECT_THAT(types(504), Pair("timeout_error", "Backend"));
  EXPECT_THAT(types(408), Pair("timeout_error", "Validation"));
  EXPECT_THAT(types(501), Pair("invalid_request_error", "Backend"));
}

TEST(ApiErrors, OfWhatWasNotReadHaveTheLikelyShape) {
  const auto shape = [](const std::string& path, const std::string& body) {
    return likely_shape(path, body);
  };
  const std::string half = R"({ "query" : "a \"texts\": b", "texts"
      : ["a", "b)";
  for (const char* path : {"/rerank", "/v1/rerank", "/rerank/"}) {
    EXPECT_EQ(shape(path, half), Shape::kTei) << path;
    EXPECT_EQ(shape(path, R"({"texts": ["a"], "documents": ["a"]})"), Shape::kEnvelope);
    EXPECT_EQ(shape(path, R"({"query": "texts\": 5", "documents": [{"texts": "a"}, "texts"]})"),
              Shape::kEnvelope);
    for (const char* nothing :
         {"", "texts", "\"texts\":", "{\"texts\"", "[{\"texts\": 1}]", "{\"\\"})
      EXPECT_EQ(shape(path, nothing), Shape::kEnvelope) << nothing;
  }
  EXPECT_EQ(shape("/score", half), Shape::kScore);
  EXPECT_EQ(shape("/info", ""), Shape::kTei);
  EXPECT_EQ(shape("/health", half), Shape::kEnvelope);

  HttpRequest request;
  request.path = "/rerank", request.body = half, request.id = "r-1";
  const HttpReply busy = fault_reply(request, 429, "busy");
  EXPECT_EQ(busy.status, 429);
  EXPECT_EQ(busy.body, R"({"error":"busy","error_type":"Overloaded"})");
  EXPECT_THAT(busy.headers, ElementsAre(Pair("Retry-After", "1")));
  request.body.clear();
  const HttpReply keyless = fault_reply(request, 401, "a key");
  EXPECT_THAT(keyless.headers, ElementsAre(Pair("WWW-Authenticate", "Bearer")));
  const Json body =
      Json::parse(keyless.body);  // which client it is cannot be told: for all of them
  EXPECT_EQ(body["error"]["type"], "authentication_error");
  EXPECT_EQ(body["error_type"], "Validation");
  EXPECT_EQ(body["message"], "a key");
  EXPECT_EQ(body["detail"], "a key");
}

TEST(ApiErrors, OfTeiAreValidationOrEmpty) {
  const ApiError error = error_of(R"({"query": "q", "texts": ["a"], "raw_scores": "maybe"})");
  EXPECT_EQ(error.status, 422);
  EXPECT_EQ(error.shape, Shape::kTei);
  const ApiError empty = error_of(R"({"query": "q", "texts": []})");
  EXPECT_EQ(empty.status, 400);
  EXPECT_EQ(Json::parse(error_body(empty, ""))["error_type"], "Empty");
}

TEST(ApiErrors, SayWhenToTryAgain) {
  ApiError error(429, "busy");
  error.retry_after_s = 7;
  const HttpReply reply = error_reply(error, "id");
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.type, "application/json");
  EXPECT_THAT(reply.headers, ElementsAre(Pair("Retry-After", "7")));
  EXPECT_TRUE(error_reply(ApiError(400, "x"), "").headers.empty());
}

}  // namespace
}  // namespace erank::serve
