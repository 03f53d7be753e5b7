#include "erank/serve/http_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/json.h"
#include "erank/serve/access.h"
#include "erank/serve/exchange.h"

namespace erank::serve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

std::string parts(std::string_view text) {
  const auto target = parse_target(text);
  return target ? target->path + " " + target->query : "none";
}

TEST(HttpText, TakesTargetsApart) {
  EXPECT_EQ(parts("/v1/rerank"), "/v1/rerank ");
  EXPECT_EQ(parts("/a?b=c%20d?e"), "/a b=c%20d?e");
  EXPECT_EQ(parts("/a%2Fb%20c"), "/a/b c ");
  EXPECT_EQ(parts("/%C3%a4"), "/ä ");
  EXPECT_EQ(parts("http://h:1/x?y"), "/x y");
  EXPECT_EQ(parts("HTTPS://h"), "/ ");
  EXPECT_EQ(parts("http://h?q"), "/ q");
  EXPECT_EQ(parts("/a#b"), "/a ");
  EXPECT_EQ(parts("*"), "* ");
  for (const char* bad : {"", "a", "h:80", "http://", "http:///x", "ftp://h/x", "/%", "/%1", "/%1g",
                          "/%00", "/%0a", "/%ff", "/a\tb"})
    EXPECT_EQ(parts(bad), "none") << bad;
}

TEST(HttpText, TakesIdsThatAreFitForALog) {
  EXPECT_EQ(request_id("a-Z_0.9:/+=@", "fresh"), "a-Z_0.9:/+=@");
  EXPECT_EQ(request_id(std::string(128, 'x'), "fresh"), std::string(128, 'x'));
  for (const auto& bad : {std::string(), std::string(129, 'x'), std::string("a b"),
                          std::string("a\"b"), std::string("ä")})
    EXPECT_EQ(request_id(bad, "fresh"), "fresh");
}

TEST(HttpText, ReadsTraceparent) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  EXPECT_EQ(trace_id("00-" + trace + "-00f067aa0ba902b7-01"), trace);
  EXPECT_EQ(trace_id("01-" + trace + "-00f067aa0ba902b7-01-more"), trace);
  for (const std::string& bad :
       {std::string(), "00-" + trace + "-00f067aa0ba902b7-01-more",
        "ff-" + trace + "-00f067aa0ba902b7-01", "00-" + trace + "-0000000000000000-01",
        "00-" + std::string(32, '0') + "-00f067aa0ba902b7-01",
        "00-" + std::string(32, 'A') + "-00f067aa0ba902b7-01", "00-" + trace + "-00f067aa0ba902b7"})
    EXPECT_EQ(trace_id(bad), "") << bad;
}

TEST(HttpText, WritesHeadsThatCannotBeSplit) {
  const std::string text =
      head_text(429, {.http10 = true, .length = 5, .id = "id", .type = "text/x"},
                {{"X-A\r\nB", "1\r\n\r\n2"}});
  EXPECT_TRUE(text.starts_with("HTTP/1.0 429 Too Many Requests\r\nDate: ")) << text;
  EXPECT_TRUE(
      text.ends_with("GMT\r\nContent-Type: text/x\r\nContent-Length: 5\r\nConnection: "
                     "keep-alive\r\nX-Request-Id: id\r\nX-A  B: 1    2\r\n\r\n"))
      << text;
  EXPECT_THAT(head_text(200, {.close = true, .chunked = true}, {}),
              HasSubstr("\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"));
}

TEST(HttpText, WritesErrorsForEveryReader) {
  const HttpReply reply = error_reply(400, "invalid_request_error", "no \"query\"", "7");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.body,
            "{\"error\":{\"message\":\"no \\\"query\\\"\",\"type\":\"invalid_request_error\","
            "\"param\":null,\"code\":400},\"message\":\"no \\\"query\\\"\",\"detail\":\"no "
            "\\\"query\\\"\",\"id\":\"7\"}");
}

TEST(HttpText, WritesEventsAndChunks) {
  EXPECT_EQ(event_text("result", "{\"a\":1}"), "event: result\ndata: {\"a\":1}\n\n");
  EXPECT_EQ(event_text("a\nb", "1\n2\r3"), "event: a b\ndata: 1\ndata: 2 3\n\n");
  EXPECT_EQ(chunk_text(std::string(27, 'x')), "1b\r\n" + std::string(27, 'x') + "\r\n");
  EXPECT_EQ(chunk_text(""), "0\r\n\r\n");
}

TEST(Access, AdmitsByAnyKeyWithOrWithoutBearer) {
  const Keys keys({"one", "two words"}, {"/health"});
  for (const char* good : {"Bearer one", "bearer  one ", "one", "Bearer two words", "two words"})
    EXPECT_TRUE(keys.admit("/v1/rerank", good)) << good;
  for (const char* bad :
       {"", "Bearer", "Bearer ", "Bearer onee", "on", "Basic one", "oneone", "Bearer Bearer one"})
    EXPECT_FALSE(keys.admit("/v1/rerank", bad)) << bad;
  EXPECT_TRUE(keys.admit("/health", ""));
  EXPECT_FALSE(keys.admit("/health/", ""));
  EXPECT_TRUE(Keys({}, {}).admit("/v1/rerank", ""));
}

TEST(Access, AllowsTheOriginsThatAreListed) {
  EXPECT_THAT(Origins({}).reply_headers("https://a"), IsEmpty());
  const Origins some({"https://a", "https://b"});
  EXPECT_THAT(some.reply_headers("https://b"),
              ElementsAre(Pair("Vary", "Origin"), Pair("Access-Control-Allow-Origin", "https://b"),
                          Pair("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")));
  for (const char* bad : {"https://c", "https://a.evil", "", "null"}) {
    EXPECT_THAT(some.reply_headers(bad), ElementsAre(Pair("Vary", "Origin")));
    EXPECT_THAT(some.preflight_headers(bad), IsEmpty());
  }
  EXPECT_THAT(some.preflight_headers("https://a"), Not(IsEmpty()));
  EXPECT_THAT(Origins({"*"}).reply_headers("https://c")[1].second, "https://c");
}

TEST(Access, WritesALineOfARequest) {
  AccessRecord record;
  record.begin = std::chrono::system_clock::time_point(std::chrono::microseconds(1700000000000042));
  record.id = "i", record.peer = "::1", record.method = "GET", record.path = "/a\"\n";
  record.status = 200, record.bytes_in = 1, record.bytes_out = 2, record.seconds = 0.5;
  EXPECT_EQ(access_line(record),
            "{\"time\":\"2023-11-14T22:13:20.000042Z\",\"id\":\"i\",\"peer\":\"::1\",\"method\":"
            "\"GET\",\"path\":\"/a\\\"\\n\",\"status\":200,\"bytes_in\":1,\"bytes_out\":2,"
            "\"seconds\":0.5,\"stream\":false,\"complete\":true}");
  record.trace_id = "t";
  EXPECT_THAT(access_line(record), HasSubstr("\"id\":\"i\",\"trace_id\":\"t\",\"peer\""));
}

TEST(Exchange, RefusesEventsThatNobodyTakes) {
  int woken = 0;
  const auto exchange = std::make_shared<Exchange>([&] { ++woken; }, 10);
  const auto responder = exchange->responder("id");
  responder->begin_events();
  EXPECT_TRUE(responder->event("a", std::string(1000, 'x')));  // one of any size
  EXPECT_EQ(woken, 1);                                         // until it is looked at
  EXPECT_FALSE(responder->event("a", "y"));
  EXPECT_EQ(woken, 2);
  EXPECT_TRUE(exchange->too_slow());
  EXPECT_TRUE(exchange->take().too_slow);
  EXPECT_FALSE(responder->event("a", "z"));
}

TEST(Exchange, AnswersForAHandlerThatGivesUp) {
  const auto exchange = std::make_shared<Exchange>([] {}, 10);
  exchange->responder("id-7").reset();
  const auto out = exchange->take();
  ASSERT_TRUE(out.reply);
  EXPECT_EQ(out.reply->status, 500);
  EXPECT_THAT(out.reply->body, HasSubstr("id-7"));
  const auto other = std::make_shared<Exchange>([] {}, 10);
  other->responder("x")->begin_events();
  EXPECT_TRUE(other->take().ended);
}

TEST(Exchange, TellsOnceThatTheClientLeft) {
  int left = 0, woken = 0;
  const auto exchange = std::make_shared<Exchange>([&] { ++woken; }, 10);
  const auto responder = exchange->responder("id");
  responder->on_client_left([&] { ++left; });
  EXPECT_EQ(left, 0);
  exchange->close(true);
  exchange->close(true);
  EXPECT_EQ(left, 1);
  responder->on_client_left([&] { ++left; });
  EXPECT_EQ(left, 2);
  responder->send({});
  EXPECT_EQ(woken, 0);

  const auto complete = std::make_shared<Exchange>([] {}, 10);
  const auto other = complete->responder("id");
  other->on_client_left([&] { ++left; });
  complete->close(false);
  other->on_client_left([&] { ++left; });
  EXPECT_EQ(left, 2);
}

}  // namespace
}  // namespace erank::serve
