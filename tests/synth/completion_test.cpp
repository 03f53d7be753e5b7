#include "erank/synth/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace erank::synth {
namespace {

using ::testing::HasSubstr;

TEST(Completion, HasWhatServersSayInTheirSeveralWays) {
  const auto plain = read_completion(
      R"({"model": "m", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
          "usage": {"prompt_tokens": 7, "completion_tokens": 3}})");
  ASSERT_TRUE(plain.completion);
  EXPECT_EQ(plain.completion->content, "hi");
  EXPECT_EQ(plain.completion->reasoning, "");
  EXPECT_EQ(plain.completion->finish_reason, "stop");
  EXPECT_EQ(plain.completion->model, "m");
  EXPECT_EQ(plain.completion->prompt_tokens, 7);
  EXPECT_EQ(plain.completion->completion_tokens, 3);

  const auto content_of = [](const std::string& message) {
    const auto read = read_completion("{\"choices\": [{\"message\": " + message + "}]}");
    return read.completion ? read.completion->reasoning + "|" + read.completion->content
                           : read.reason;
  };
  EXPECT_EQ(content_of(R"({"content": "a", "reasoning_content": "r"})"), "r|a");
  EXPECT_EQ(content_of(R"({"content": "a", "reasoning": "r", "reasoning_content": null})"), "r|a");
  EXPECT_EQ(content_of(R"({"content": null, "reasoning": "r"})"), "r|");
  EXPECT_EQ(content_of(R"({"content": [{"type": "text", "text": "a"}, {"text": "b"}, 3]})"), "|ab");
  EXPECT_EQ(content_of(R"({"content": "half \ud800 a pair"})"), "|half \xef\xbf\xbd a pair");
}

TEST(Completion, KeepsItselfFromCountsAndNamesThatAreNone) {
  const auto read = read_completion(
      R"({"model": 3, "choices": [{"message": {"content": ""}, "finish_reason": null}],
          "usage": {"prompt_tokens": -7, "completion_tokens": "3"}})");
  ASSERT_TRUE(read.completion);
  EXPECT_EQ(read.completion->model, "");
  EXPECT_FALSE(read.completion->prompt_tokens);
  EXPECT_FALSE(read.completion->completion_tokens);
}

TEST(Completion, SaysWhyAReplyIsNone) {
  const auto reason = [](const std::string& body) {
    const auto read = read_completion(body);
    EXPECT_FALSE(read.completion) << body;
    EXPECT_EQ(read.reason.find('\n'), std::string::npos);
    return read.reason;
  };
  EXPECT_THAT(reason(""), HasSubstr("no JSON object: ''"));
  EXPECT_THAT(reason("<html>\n</html>"), HasSubstr("no JSON object: '<html>\\n</html>'"));
  EXPECT_THAT(reason("[1]"), HasSubstr("no JSON object"));
  EXPECT_THAT(reason("{\"choices\": [}"), HasSubstr("no JSON object"));
  EXPECT_THAT(reason(std::string(200000, '[')), HasSubstr("no JSON object"));
  EXPECT_THAT(reason("data: {}\n\n"), HasSubstr("stream of events"));
  EXPECT_THAT(reason("{}"), HasSubstr("has no choices: '{}'"));
  EXPECT_THAT(reason(R"({"choices": []})"), HasSubstr("has no choices"));
  EXPECT_THAT(reason(R"({"choices": {"a": 1}})"), HasSubstr("has no choices"));
  EXPECT_THAT(reason(R"({"choices": [3]})"), HasSubstr("has no choices"));
  EXPECT_THAT(reason(R"({"choices": [{"text": "a"}]})"), HasSubstr("no message with content"));
  EXPECT_THAT(reason(R"({"choices": [{"message": {"content": 3}}]})"), HasSubstr("no message"));
}

TEST(Completion, OfAnErrorInsideAReplyHasItsStatus) {
  const auto read = read_completion(R"({"error": {"message": "busy", "code": 503}})");
  EXPECT_FALSE(read.completion);
  EXPECT_EQ(read.status, 503);
  EXPECT_EQ(read.reason, "the reply is an error: busy");
  EXPECT_EQ(read_completion(R"({"error": {"message": "no", "code": 7}})").status, 200);
  EXPECT_EQ(read_completion(R"({"error": {"message": "no", "code": "x"}})").status, 200);
}

TEST(ErrorText, IsOneLineOfWhatTheServerSays) {
  EXPECT_EQ(error_text(R"({"error": {"message": "no\nkey", "code": "k"}})"), "no\\nkey");
  EXPECT_EQ(error_text(R"({"error": "no"})"), "no");
  EXPECT_EQ(error_text(R"({"detail": "no", "error": null})"), "no");
  EXPECT_EQ(error_text(R"({"message": "no"})"), "no");
  EXPECT_EQ(error_text("<b>\x1b[31m</b>"), "<b>\\x1b[31m</b>");
  EXPECT_EQ(error_text(""), "");
  EXPECT_EQ(error_text(std::string(5000, 'x')).size(), 303u);
  EXPECT_EQ(error_code(R"({"error": {"code": "a", "type": "b"}})"), "a");
  EXPECT_EQ(error_code(R"({"error": {"code": 3, "type": "b"}})"), "b");
  EXPECT_EQ(error_code("x"), "");
}

TEST(RequestBody, IsTheOptionsWithTheChangesMergedIn) {
  RequestOptions options{.model = "m", .temperature = 0.5, .max_tokens = 9, .changes = {}};
  options.changes = base::Json::object();
  EXPECT_EQ(request_body(options, "a \"b\""),
            R"({"max_tokens":9,"messages":[{"content":"a \"b\"","role":"user"}],"model":"m",)"
            R"("stream":false,"temperature":0.5})");
  options.changes = {{"max_tokens", nullptr}, {"max_completion_tokens", 9}, {"top_p", 0.9}};
  EXPECT_EQ(request_body(options, "q"),
            R"({"max_completion_tokens":9,"messages":[{"content":"q","role":"user"}],)"
            R"("model":"m","stream":false,"temperature":0.5,"top_p":0.9})");
}

}  // namespace
}  // namespace erank::synth
