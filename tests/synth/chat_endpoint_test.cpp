// The client against a real server that misbehaves on purpose.
#include "erank/synth/chat_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "erank/base/error.h"
#include "tests/synth/chat_server.h"

namespace erank::synth {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

constexpr const char* kKey = "sk-very-secret-0815";

class Endpoint : public ::testing::Test {
 protected:
  Endpoint() {
    options.url = server.url();
    options.key = kKey;
    options.first_wait_s = 0.02;
    options.retries = 3;
    options.timeout_s = 5;
  }

  // Sends `texts` and gives their replies in the same order.
  std::vector<ChatReply> ask(const std::vector<std::string>& texts) {
    ChatEndpoint endpoint(options);
    std::vector<ChatReply> replies(texts.size());
    size_t next = 0;
    ChatEndpoint::Callbacks callbacks;
    callbacks.next = [&]() -> std::optional<ChatRequest> {
      if (next == texts.size()) return std::nullopt;
      const size_t i = next++;
      if (before_request) before_request(i);
      return ChatRequest{static_cast<int64_t>(i),
                         request_body({.model = "m", .changes = base::Json::object()}, texts[i])};
    };
    callbacks.take = [&](ChatReply reply) {
      const auto i = static_cast<size_t>(reply.number);
      replies[i] = std::move(reply);
    };
    callbacks.stop = [&](const ChatCounts& now) {
      counts = now;
      return stop_when && stop_when(now);
    };
    const auto begin = Clock::now();
    whole = endpoint.run(callbacks);
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    return replies;
  }
  std::string fault(const std::vector<std::string>& texts) {
    try {
      ask(texts);
    } catch (const base::Error& error) {
      EXPECT_THAT(error.what(), Not(HasSubstr(kKey)));
      return error.what();
    }
    return "no error";
  }

  ChatServer server;
  EndpointOptions options;
  std::function<bool(const ChatCounts&)> stop_when;
  std::function<void(size_t i)> before_request;
  ChatCounts counts;
  bool whole = false;
  double seconds = 0;
};

TEST_F(Endpoint, AnswersManyRequestsAtATime) {
  std::vector<std::string> texts;
  for (int i = 0; i < 40; ++i)
    texts.push_back("[score " + std::to_string(i % 11) + "] [slowx1 0.2]");
  options.concurrency = 20;
  const auto replies = ask(texts);
  for (size_t i = 0; i < replies.size(); ++i) {
    ASSERT_TRUE(replies[i].completion) << replies[i].error;
    EXPECT_THAT(replies[i].completion->content,
                HasSubstr("<answer>" + std::to_string(i % 11) + "</answer>"));
    EXPECT_EQ(base::parse_json(replies[i].body, "body")["usage"]["total_tokens"], 110);
  }
  EXPECT_TRUE(whole);
  EXPECT_LT(seconds, 4);  // 8 s one by one
  EXPECT_EQ(counts.sent, 40);
  EXPECT_EQ(counts.answered, 40);
  for (const auto& request : server.requests()) {
    EXPECT_EQ(request["path"], "/v1/chat/completions");
    EXPECT_EQ(request["authorized"], true);
  }
}

TEST_F(Endpoint, SendsAgainWhatMayHelpAndNoMore) {
  const auto replies = ask({"[429x2] a", "[500x3] b", "[503x1] c", "[cutx2] d", "[dropx2] e",
                            "[500x4] f", "[400] g", "[wrapped] h"});
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(replies[i].completion) << i << replies[i].error;
  EXPECT_EQ(replies[5].error, "status 500: not now (sent 4 times)");
  EXPECT_EQ(replies[6].error, "status 400: this is a 400");
  EXPECT_EQ(replies[7].error, "the reply is an error: the provider is down");
  const auto sent = server.counts();
  EXPECT_EQ(sent.at("[429x2]"), 3);
  EXPECT_EQ(sent.at("[500x3]"), 4);
  EXPECT_EQ(sent.at("[503x1]"), 2);
  EXPECT_EQ(sent.at("[cutx2]"), 3);
  EXPECT_EQ(sent.at("[dropx2]"), 3);
  EXPECT_EQ(sent.at("[500x4]"), 4);
  EXPECT_EQ(sent.at("[400]"), 1);
  EXPECT_EQ(sent.at("[wrapped]"), 2);
  EXPECT_EQ(counts.failed, 3);
}

TEST_F(Endpoint, WaitsAsLongAsTheServerAsks) {
  options.concurrency = 1;
  const auto replies = ask({"[429x1 after 1] a", "b", "c"});
  for (const auto& reply : replies) EXPECT_TRUE(reply.completion) << reply.error;
  EXPECT_THAT(seconds, AllOf(Ge(1.0), Le(3.0)));
  // The others waited too.
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_GE(requests[1]["time"].get<double>() - requests[0]["time"].get<double>(), 0.99);
}

TEST_F(Endpoint, TimesOutAndSendsAgain) {
  options.timeout_s = 0.5;
  const auto replies = ask({"[slowx1 2] a", "[slowx9 2] b", "c"});
  EXPECT_TRUE(replies[0].completion) << replies[0].error;
  EXPECT_THAT(replies[1].error, AllOf(HasSubstr("timed out"), HasSubstr("(sent 4 times)")));
  EXPECT_TRUE(replies[2].completion);
  EXPECT_EQ(server.counts().at("[slowx9 2]"), 4);
}

TEST_F(Endpoint, LetsTheOthersGoOnWhenOneTimesOutOnAConnectionThatWasKept) {
  options.timeout_s = 0.5;
  options.concurrency = 1;
  options.first_wait_s = 3;
  const auto replies = ask({"a", "[slowx1 2] b", "c"});
  for (const auto& reply : replies) EXPECT_TRUE(reply.completion) << reply.error;
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_LT(requests[2]["time"].get<double>() - requests[1]["time"].get<double>(), 1.5);
}

TEST_F(Endpoint, PaysOnceForRepliesThatAreNoCompletions) {
  const std::vector<std::string> texts = {"ok",       "[nojson]", "[html200]",
                                          "[schema]", "[events]", "[endless]"};
  const auto replies = ask(texts);
  EXPECT_TRUE(replies[0].completion);
  EXPECT_THAT(replies[1].error, HasSubstr("no JSON object"));
  EXPECT_THAT(replies[2].error, HasSubstr("no JSON object: '<html>"));
  EXPECT_THAT(replies[3].error, HasSubstr("no message with content"));
  EXPECT_THAT(replies[4].error, HasSubstr("stream of events"));
  EXPECT_THAT(replies[5].error, HasSubstr("longer than 16 MiB"));
  EXPECT_EQ(replies[3].body, R"({"choices": [{"text": "an older form"}]})");
  EXPECT_EQ(replies[5].body, "");
  for (const auto& [mark, count] : server.counts()) EXPECT_EQ(count, 1) << mark;
}

TEST_F(Endpoint, KeepsToItsRate) {
  options.requests_per_minute = 600;  // ten a second
  // When it sends: the server may be late with one and not with another.
  std::vector<Clock::time_point> sent;
  before_request = [&](size_t) { sent.push_back(Clock::now()); };
  ask(std::vector<std::string>(12, "x"));
  EXPECT_THAT(seconds, AllOf(Ge(1.1), Le(4.0)));
  EXPECT_EQ(server.requests().size(), 12u);
  ASSERT_EQ(sent.size(), 12u);
  for (size_t i = 1; i < sent.size(); ++i)
    EXPECT_GE(sent[i] - sent[i - 1], std::chrono::milliseconds(99)) << i;
}

TEST_F(Endpoint, EndsAtOnceWhereEveryRequestWouldFail) {
  EXPECT_THAT(fault({"[401]", "b"}),
              AllOf(HasSubstr(server.url() + "/v1/chat/completions: status 401: this is a 401"),
                    HasSubstr("--api-key-env")));
  EXPECT_THAT(fault({"[404]"}),
              HasSubstr("status 404: this is a 404; are the address and --model"));
  EXPECT_THAT(fault({"[403]"}), HasSubstr("status 403"));
  EXPECT_THAT(fault({"[402]"}), HasSubstr("--resume"));
  EXPECT_THAT(fault({"[quota]"}), HasSubstr("You exceeded your quota"));
  EXPECT_THAT(fault(std::vector<std::string>(50, "[schema]")),
              HasSubstr("none of the first 10 requests was answered"));
  EXPECT_LE(server.counts().at("[schema]"), 10 + options.concurrency);
  options.key = "";
  const auto begin = Clock::now();
  EXPECT_THAT(fault({"[401]"}), HasSubstr("no key was sent"));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(2));
}

TEST_F(Endpoint, GoesOnAfterA403ThatIsOnePairsAlone) {
  options.concurrency = 1;
  const auto replies = ask({"a", "[403]", "b"});
  EXPECT_EQ(replies[1].error, "status 403: this is a 403");
  EXPECT_TRUE(replies[2].completion);
}

TEST_F(Endpoint, EndsAtOnceWhereNobodyAnswers) {
  options.url = "http://127.0.0.1:9/v1";  // the port "discard": nobody is there
  EXPECT_THAT(fault({"a"}), HasSubstr("http://127.0.0.1:9/v1/chat/completions: Failed to connect"));
  options.url = "http://no-such-host.invalid/v1";
  // It cannot be resolved, or resolving it timed out.
  EXPECT_THAT(fault({"a"}), ::testing::ContainsRegex("[Rr]esolv"));
  options.url = "https" + server.url().substr(4);  // speaks no TLS
  EXPECT_THAT(fault({"a"}), HasSubstr(options.url));
}

// Somebody has answered before, so that it may be a matter of the moment: nine lost requests are,
// and a reply begins the count anew. Sending again does not count.
TEST_F(Endpoint, EndsWhereTenRequestsInARowMeetNobody) {
  options.retries = 1, options.concurrency = 1;
  std::vector<std::string> texts(30, "x");
  texts[0] = "[away]";
  texts[10] = "[leave]";
  before_request = [&](size_t i) {
    if (i == 10) server.come_back();
  };
  EXPECT_THAT(fault(texts),
              AllOf(HasSubstr(server.url() + "/v1/chat/completions: Failed to connect"),
                    HasSubstr("; 10 requests in a row met nobody, --resume goes on")));
  EXPECT_EQ(counts.answered, 2);
  EXPECT_EQ(counts.failed, 9 + 10);
  EXPECT_EQ(counts.sent, 2 + 2 * (9 + 10));
}

TEST_F(Endpoint, ShowsItsKeyToNobodyElse) {
  ChatServer other;
  ChatServer redirecting(other.url() + "/v1/chat/completions");
  options.url = redirecting.url();
  EXPECT_THAT(fault({"[redirect]"}), HasSubstr("redirected to '" + other.url()));
  EXPECT_TRUE(other.requests().empty());
  options.url = server.url();
  const auto replies = ask({"[echo]"});
  EXPECT_EQ(replies[0].error, "status 400: bad header: Bearer [key]");
}

TEST_F(Endpoint, WaitsALittleForWhatIsUnderWayWhenItIsStopped) {
  options.grace_s = 1;
  options.concurrency = 2;
  stop_when = [](const ChatCounts& now) { return now.sent == 2; };
  const auto replies = ask({"[slowx1 0.3] a", "[hold] b", "c"});
  EXPECT_FALSE(whole);
  EXPECT_TRUE(replies[0].completion);
  EXPECT_FALSE(replies[1].completion);
  EXPECT_EQ(replies[1].error, "");
  EXPECT_EQ(counts.sent, 2);  // nothing new
  EXPECT_THAT(seconds, AllOf(Ge(1.0), Le(3.0)));
}

TEST(EndpointUrl, IsReadAsPeopleWriteIt) {
  const auto shown = [](const std::string& url) -> std::string {
    try {
      return ChatEndpoint({.url = url}).shown_url();
    } catch (const base::Error& error) {
      return error.what();
    }
  };
  EXPECT_EQ(shown("http://localhost:8080"), "http://localhost:8080/v1/chat/completions");
  EXPECT_EQ(shown("http://localhost:8080/"), "http://localhost:8080/v1/chat/completions");
  EXPECT_EQ(shown("https://api.openai.com/v1/"), "https://api.openai.com/v1/chat/completions");
  EXPECT_EQ(shown("https://h/v1/chat/completions?api-version=1#x"),
            "https://h/v1/chat/completions");
  for (const char* bad :
       {"localhost:8080", "", "ftp://h/v1", "file:///etc/passwd", "http://", "a b"})
    EXPECT_THAT(shown(bad), HasSubstr("is no URL of a server")) << bad;
  EXPECT_THAT(shown("http://me:secret@h/v1"),
              AllOf(HasSubstr("name or password"), Not(HasSubstr("secret"))));
  EXPECT_THROW(ChatEndpoint({.url = "http://h", .key = "a\r\nX: b"}), base::Error);
}

}  // namespace
}  // namespace erank::synth
