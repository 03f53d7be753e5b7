#include "erank/serve/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "tests/serve/raw_client.h"
#include "tests/serve/running_server.h"

namespace erank::serve {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

// What it saw, as the reply's body.
void show(HttpRequest request, std::shared_ptr<Responder> responder) {
  base::OrderedJson body = {{"method", request.method}, {"path", request.path},
                            {"query", request.query},   {"body", request.body},
                            {"id", request.id},         {"peer", request.peer}};
  for (const auto& [name, value] : request.headers) body["headers"][name] = value;
  responder->send({200, base::dump_json(body)});
}

base::Json seen(const RawReply& reply) {
  return reply.status == 200 ? base::parse_json(reply.body, "reply") : base::Json();
}
std::string message(const RawReply& reply) {
  const base::Json body = base::parse_json(reply.body, "reply");
  EXPECT_EQ(body["error"]["code"], reply.status);
  EXPECT_EQ(body["message"], body["detail"]);
  return body["error"]["message"];
}

// Keeps the requests until the test answers.
class Held {
 public:
  Handler handler() {
    return [this](HttpRequest request, std::shared_ptr<Responder> responder) {
      const std::lock_guard lock(mutex_);
      held_.push_back({std::move(request), std::move(responder)});
      came_.notify_all();
    };
  }
  // Waits for the i-th and gives it away.
  std::pair<HttpRequest, std::shared_ptr<Responder>> take(size_t i = 0) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(came_.wait_for(lock, seconds(10), [&] { return held_.size() > i; }));
    return held_.size() > i ? std::move(held_[i])
                            : std::pair<HttpRequest, std::shared_ptr<Responder>>();
  }
  size_t count() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<std::pair<HttpRequest, std::shared_ptr<Responder>>> held_;
};

TEST(Server, HandsRequestsOverAndRepliesBack) {
  RunningServer server(show);
  RawClient client(server.port());
  const RawReply reply = client.ask(
      post("/v1/re%72ank?a=%20b", "{\"query\": 1}", "X-Request-Id: my-id\r\nX-Thing:  a b \r\n"));
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  EXPECT_EQ(reply.headers.at("x-request-id"), "my-id");
  EXPECT_THAT(reply.headers.at("date"), HasSubstr(" GMT"));
  EXPECT_FALSE(reply.headers.contains("connection"));
  const base::Json request = seen(reply);
  EXPECT_EQ(request["method"], "POST");
  EXPECT_EQ(request["path"], "/v1/rerank");
  EXPECT_EQ(request["query"], "a=%20b");
  EXPECT_EQ(request["body"], "{\"query\": 1}");
  EXPECT_EQ(request["id"], "my-id");
  EXPECT_EQ(request["peer"], "127.0.0.1");
  EXPECT_EQ(request["headers"]["x-thing"], "a b");

  const RawReply made = client.ask(get("http://elsewhere/x", "X-Request-Id: not fit\r\n"));
  EXPECT_EQ(seen(made)["path"], "/x");
  EXPECT_EQ(made.headers.at("x-request-id").size(), 32u);
  EXPECT_EQ(seen(made)["id"], made.headers.at("x-request-id"));
}

TEST(Server, RepliesToHeadWithoutABody) {
  RunningServer server(show);
  RawClient client(server.port());
  client.send("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
  const RawReply head = client.reply(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_GT(std::stoi(head.headers.at("content-length")), 10);
  EXPECT_EQ(seen(client.ask(get("/b")))["path"], "/b");  // nothing came between
}

TEST(Server, SpeaksHttp10) {
  RunningServer server(show);
  RawClient client(server.port());
  const RawReply kept = client.ask("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(kept.headers.at("connection"), "keep-alive");
  const RawReply last = client.ask("GET /b HTTP/1.0\r\n\r\n");
  EXPECT_EQ(seen(last)["path"], "/b");
  EXPECT_EQ(last.headers.at("connection"), "close");
  EXPECT_TRUE(client.ended());
}

TEST(Server, EndsTheConnectionWhenAskedTo) {
  RunningServer server(show);
  RawClient client(server.port());
  EXPECT_EQ(client.ask(get("/", "Connection: close\r\n")).headers.at("connection"), "close");
  EXPECT_TRUE(client.ended());  // idle_timeout is far longer
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  client.send("\r\n" + get("/1") + post("/2", "body") + "\r\n\r\n" + get("/3"));
  for (const char* path : {"/1", "/2", "/3"}) {
    auto [request, responder] =
        held.take(held.count() == 0 ? 0 : static_cast<size_t>(path[1] - '1'));
    EXPECT_EQ(request.path, path);
    EXPECT_EQ(held.count(), static_cast<size_t>(path[1] - '0'));  // one at a time
    std::thread([responder = std::move(responder), path] { responder->send({200, path}); }).join();
    EXPECT_EQ(client.reply().body, path);
  }
}

TEST(Server, ReadsChunkedBodies) {
  RunningServer server(show);
  RawClient client(server.port());
  client.send("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1");
  client.send("0\r\n0123456789abcdef\r\n0\r\nAuthorization: Bearer trailer\r\n\r\n" + get("/next"));
  const base::Json request = seen(client.reply());
  EXPECT_EQ(request["body"], "abc0123456789abcdef");
  EXPECT_FALSE(request["headers"].contains("authorization"));  // a trailer is no header
  EXPECT_EQ(seen(client.reply())["path"], "/next");
}

TEST(Server, SaysContinueBeforeABodyThatIsWaitedFor) {
  RunningServer server(show);
  RawClient client(server.port());
  client.send("POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.reply().status, 100);
  EXPECT_EQ(seen(client.ask("abc"))["body"], "abc");
  EXPECT_EQ(client.ask(post("/e", "", "Expect: wonders\r\n")).status, 417);
}

TEST(Server, AnswersOptionsItself) {
  RunningServer server(show, {.api_keys = {"k"}, .cors_origins = {"https://page"}});
  RawClient client(server.port());
  const RawReply reply = client.ask(
      "OPTIONS /v1/rerank HTTP/1.1\r\nHost: h\r\nOrigin: https://page\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(reply.status, 204);
  EXPECT_FALSE(reply.headers.contains("content-length"));
  EXPECT_EQ(reply.headers.at("access-control-allow-origin"), "https://page");
  EXPECT_THAT(reply.headers.at("access-control-allow-headers"), HasSubstr("Authorization"));
  const RawReply any = client.ask("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(any.status, 204);
  EXPECT_THAT(any.headers.at("allow"), HasSubstr("POST"));
  EXPECT_FALSE(any.headers.contains("access-control-allow-origin"));
}

TEST(Server, LetsListedPagesReadReplies) {
  RunningServer server(show, {.cors_origins = {"https://page"}});
  RawClient client(server.port());
  const RawReply good = client.ask(get("/", "Origin: https://page\r\n"));
  EXPECT_EQ(good.headers.at("access-control-allow-origin"), "https://page");
  EXPECT_EQ(good.headers.at("vary"), "Origin");
  EXPECT_FALSE(client.ask(get("/", "Origin: https://other\r\n"))
                   .headers.contains("access-control-allow-origin"));
  RunningServer closed(show);
  EXPECT_FALSE(RawClient(closed.port())
                   .ask(get("/", "Origin: https://page\r\n"))
                   .headers.contains("access-control-allow-origin"));
}

TEST(Server, AsksForAKeyBeforeItReadsTheBody) {
  RunningServer server(show, {.api_keys = {"k1", "k2"}});
  RawClient client(server.port());
  const RawReply refused = client.ask(
      "POST /v1/rerank HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\nAuthorization: Bearer "
      "k3\r\n\r\n{");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_THAT(message(refused), HasSubstr("Authorization: Bearer KEY"));
  RawClient other(server.port());
  EXPECT_EQ(other.ask(get("/v1/models")).status, 401);  // goes on after it: no body was left
  EXPECT_EQ(other.ask(get("/v1/models", "Authorization: k2\r\n")).status, 200);
  EXPECT_EQ(other.ask(get("/v1/models", "Authorization: Bearer k1\r\n")).status, 200);
  EXPECT_EQ(other.ask(get("/health")).status, 200);
}

TEST(Server, RefusesWhatIsTooLarge) {
  RunningServer server(show, {.max_body_bytes = 1000, .max_header_bytes = 2000});
  const auto ask = [&](const std::string& bytes) { return RawClient(server.port()).ask(bytes); };
  EXPECT_EQ(ask(post("/", std::string(1000, 'x'))).status, 200);
  // The length alone is enough, and 100-continue is not said.
  const RawReply large =
      ask("POST /p HTTP/1.1\r\nHost: h\r\nX-Request-Id: large\r\nExpect: 100-continue\r\n"
          "Content-Length: 1001\r\n\r\n");
  EXPECT_EQ(large.status, 413);
  EXPECT_EQ(large.headers.at("x-request-id"), "large");
  EXPECT_THAT(message(large), HasSubstr("1000 bytes"));
  const std::string chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(ask(chunked + "ffffffffffffffff\r\n").status, 413);
  std::string pieces;
  for (int i = 0; i < 11; ++i) pieces += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_EQ(ask(chunked + pieces + "0\r\n\r\n").status, 413);
  EXPECT_EQ(ask(post("/", std::string(5000000, 'x'))).status, 413);  // the reply is not lost
  EXPECT_EQ(ask(get("/", "X: " + std::string(2100, 'x') + "\r\n")).status, 431);
  EXPECT_EQ(ask("GET /" + std::string(2100, 'x')).status, 431);
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "A: b\r\n";
  EXPECT_EQ(ask(get("/", many)).status, 431);
  EXPECT_EQ(ask(chunked + "1;" + std::string(40000, 'x')).status, 400);
  EXPECT_EQ(ask(chunked + "0\r\nA: " + std::string(40000, 'x')).status, 400);
}

TEST(Server, RefusesWhatIsNoRequest) {
  RunningServer server(show);
  const auto status = [&](const std::string& bytes) {
    RawClient client(server.port());
    const RawReply reply = client.ask(bytes);
    EXPECT_EQ(reply.headers.contains("connection"), reply.status != 417) << bytes;
    return reply.status;
  };
  EXPECT_EQ(status("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(status("GET / HTTP/1.1\nHost: h\n\n"), 505);
  EXPECT_EQ(status("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"), 505);
  EXPECT_EQ(status("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
  EXPECT_EQ(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: h\r\nHost : x\r\n\r\n"), 400);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"), 400);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            400);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"
                   "\r\n\r\n"),
            400);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"), 501);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"), 400);

  RawClient client(server.port());  // where the request's end is known, the connection goes on
  EXPECT_EQ(client.ask("GET / HTTP/1.1\r\n\r\n").status, 400);
  EXPECT_EQ(client.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status, 400);
  EXPECT_EQ(client.ask(get("/%zz")).status, 400);
  EXPECT_EQ(client.ask(get("*")).status, 400);
  EXPECT_EQ(client.ask("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
  EXPECT_EQ(seen(client.ask("BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n"))["method"], "BREW");
}

TEST(Server, GivesUpOnClientsThatSendSlowly) {
  RunningServer server(show,
                       {.client_timeout = milliseconds(500), .idle_timeout = milliseconds(300)});
  RawClient head(server.port()), body(server.port()), silent(server.port());
  head.send("GET / HTTP/1.1\r\nHost");
  const auto begin = std::chrono::steady_clock::now();
  std::atomic<bool> done = false;
  std::thread drip([&] {  // a byte now and then buys no time
    while (!done && head.send("x")) std::this_thread::sleep_for(milliseconds(50));
  });
  body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  RawClient long_body(server.port());  // what came buys time to send slowly, not to be silent
  long_body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n" +
                 std::string(80000, 'x'));
  EXPECT_EQ(head.reply().status, 408);
  EXPECT_EQ(body.reply().status, 408);
  EXPECT_EQ(long_body.reply().status, 408);
  EXPECT_TRUE(silent.ended());  // without a word: it had asked nothing
  done = true;
  drip.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5));
  RawClient idle(server.port());
  EXPECT_EQ(idle.ask(get("/")).status, 200);
  EXPECT_TRUE(idle.ended());
}

TEST(Server, RefusesFoldedHeadersAndBodiesOnOpenPaths) {
  RunningServer server(
      [](HttpRequest, std::shared_ptr<Responder> responder) {
        responder->send({200, "{}"});
      },
      {.api_keys = {"key"}});
  RawClient folded(server.port());
  EXPECT_EQ(
      folded.ask("POST /v1/rerank HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n")
          .status,
      400);
  RawClient body(server.port());
  EXPECT_EQ(body.ask("POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n").status,
            413);
  RawClient chunked(server.port());
  EXPECT_EQ(
      chunked.ask("POST /health HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").status,
      413);
  RawClient none(server.port());
  EXPECT_EQ(none.ask(get("/health")).status, 200);
}

TEST(Server, CutsClientsThatDoNotReadTheReply) {
  RunningServer server(
      [](HttpRequest, std::shared_ptr<Responder> responder) {
        responder->send({200, std::string(64 << 20, 'x'), "text/plain"});
      },
      {.client_timeout = milliseconds(300)});
  RawClient client(server.port(), 4096);
  client.send(get("/"));
  const auto records = server.records(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].status, 200);
  EXPECT_FALSE(records[0].complete);
  EXPECT_LT(records[0].bytes_out, 64 << 20);
  EXPECT_FALSE(client.reply().complete);
}

TEST(Server, TellsWhenAClientLeavesBeforeTheReply) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  client.send(get("/wait"));
  auto [request, responder] = held.take();
  std::promise<void> left;
  responder->on_client_left([&] { left.set_value(); });
  client.close();
  EXPECT_EQ(left.get_future().wait_for(seconds(10)), std::future_status::ready);
  responder->send({200, "too late"});
  const auto records = server.records(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].status, 499);
  EXPECT_FALSE(records[0].complete);
}

TEST(Server, Answers500ForHandlersThatFail) {
  RunningServer server([](HttpRequest request, std::shared_ptr<Responder> responder) {
    if (request.path == "/throw") throw std::runtime_error("secret");
    if (request.path == "/late")
      std::thread([r = std::move(responder)]() mutable { r.reset(); }).detach();
  });
  RawClient client(server.port());
  for (const char* path : {"/throw", "/drop", "/late"}) {
    const RawReply reply = client.ask(get(path));
    EXPECT_EQ(reply.status, 500);
    EXPECT_THAT(reply.body, Not(HasSubstr("secret")));
  }
}

TEST(Server, TimesRequestsOut) {
  Held held;
  RunningServer server(held.handler(), {.request_timeout = milliseconds(1000)});
  RawClient client(server.port());
  client.send(get("/1"));
  auto [request, responder] = held.take();
  std::promise<void> left;
  responder->on_client_left([&] { left.set_value(); });
  EXPECT_EQ(client.reply().status, 504);
  EXPECT_EQ(left.get_future().wait_for(seconds(10)), std::future_status::ready);
  responder->send({200, "too late"});
  client.send(get("/2"));
  held.take(1).second->send({200, "second"});
  EXPECT_EQ(client.reply().body, "second");
}

TEST(Server, StreamsEvents) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  client.send(post("/v1/rerank", "{}") + get("/next"));
  auto [request, responder] = held.take();
  responder->begin_events({{"X-Model", "m"}});
  ASSERT_TRUE(client.wait_for("\r\n\r\n"));  // at once
  EXPECT_TRUE(responder->event("start", "{}"));
  ASSERT_TRUE(client.wait_for("event: start\ndata: {}\n\n"));
  std::string expected = "event: start\ndata: {}\n\n";
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(responder->event("result", std::to_string(i)));
    expected += "event: result\ndata: " + std::to_string(i) + "\n\n";
  }
  responder->end_events(200);
  EXPECT_FALSE(responder->event("result", "more"));
  const RawReply reply = client.reply();
  EXPECT_TRUE(reply.complete);
  EXPECT_EQ(reply.headers.at("content-type"), "text/event-stream");
  EXPECT_EQ(reply.headers.at("cache-control"), "no-cache");
  EXPECT_EQ(reply.headers.at("x-model"), "m");
  EXPECT_EQ(reply.body, expected);
  held.take(1).second->send({200, "next"});
  EXPECT_EQ(client.reply().body, "next");
  const auto records = server.records(2);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_TRUE(records[0].stream && records[0].complete);
}

TEST(Server, NotesWhatAStreamEndedWith) {
  RunningServer server([](HttpRequest request, std::shared_ptr<Responder> responder) {
    responder->begin_events();
    responder->event("error", "{}");
    responder->end_events(503);
  });
  for (const char* request : {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"})
    EXPECT_EQ(RawClient(server.port()).ask(request).status, 200);
  const auto records = server.records(2);
  ASSERT_EQ(records.size(), 2u);
  for (const AccessRecord& record : records) {
    EXPECT_EQ(record.status, 503);
    EXPECT_TRUE(record.stream && record.complete);
  }
}

TEST(Server, StreamsToHttp10UntilTheEnd) {
  RunningServer server([](HttpRequest, std::shared_ptr<Responder> responder) {
    responder->begin_events();
    responder->event("a", "1");  // and dropped: the stream is complete
  });
  RawClient client(server.port());
  const RawReply reply = client.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_FALSE(reply.headers.contains("transfer-encoding"));
  EXPECT_EQ(reply.headers.at("connection"), "close");
  EXPECT_EQ(reply.body, "event: a\ndata: 1\n\n");
}

TEST(Server, CutsStreamsThatAreNotRead) {
  Held held;
  RunningServer server(held.handler(), {.max_waiting_event_bytes = 100000});
  RawClient client(server.port(), 4096);
  client.send(get("/"));
  auto [request, responder] = held.take();
  std::promise<void> left;
  responder->on_client_left([&] { left.set_value(); });
  responder->begin_events();
  const std::string data(1000, 'x');
  int count = 0;
  while (count < 1000000 && responder->event("result", data)) ++count;
  EXPECT_LT(count, 1000000);
  EXPECT_EQ(left.get_future().wait_for(seconds(10)), std::future_status::ready);
  EXPECT_FALSE(client.reply().complete);
}

TEST(Server, EndsStreamsWhoseClientLeaves) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  client.send(get("/"));
  auto [request, responder] = held.take();
  std::promise<void> left;
  responder->on_client_left([&] { left.set_value(); });
  responder->begin_events();
  EXPECT_TRUE(responder->event("start", "{}"));
  ASSERT_TRUE(client.wait_for("start"));
  client.close();
  EXPECT_EQ(left.get_future().wait_for(seconds(10)), std::future_status::ready);
  EXPECT_FALSE(responder->event("result", "{}"));
}

TEST(Server, TellsClientsOverTheLimit) {
  Held held;
  RunningServer server(held.handler(), {.max_connections = 2});
  auto first = std::make_unique<RawClient>(server.port());
  RawClient second(server.port());
  first->send(get("/1"));
  second.send(get("/2"));
  auto a = held.take(0), b = held.take(1);
  RawClient third(server.port());
  const RawReply refused = third.reply();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  a.second->send({200, "a"}), b.second->send({200, "b"});
  first.reset();
  ASSERT_EQ(second.reply().status, 200);
  for (int i = 0; i < 1000; ++i) {  // until the first one's place is free
    RawClient fourth(server.port());
    const size_t before = held.count();
    fourth.send(get("/4"));
    for (int k = 0; k < 10000 && held.count() == before && !fourth.ended(0); ++k)
      std::this_thread::sleep_for(milliseconds(1));
    if (held.count() == before) continue;
    held.take(before).second->send({200, "d"});
    EXPECT_EQ(fourth.reply().body, "d");
    return;
  }
  FAIL() << "no place was free";
}

TEST(Server, FinishesRunningRequestsBeforeItEnds) {
  Held held;
  RunningServer server(held.handler());
  RawClient running(server.port()), idle(server.port()), streaming(server.port());
  running.send(get("/1") + get("/never"));
  streaming.send(get("/2"));
  auto one = held.take(0), two = held.take(1);
  if (one.first.path != "/1") std::swap(one, two);
  two.second->begin_events();
  server.server().stop(seconds(20));
  EXPECT_TRUE(idle.ended());
  EXPECT_FALSE(RawClient(server.port()).connected());
  EXPECT_FALSE(server.ended());
  one.second->send({200, "done"});
  const RawReply reply = running.reply();
  EXPECT_EQ(reply.body, "done");
  EXPECT_EQ(reply.headers.at("connection"), "close");
  EXPECT_EQ(running.rest(), "");
  two.second->event("a", "b");
  two.second->end_events(200);
  EXPECT_TRUE(streaming.reply().complete);
  server.join();
  EXPECT_EQ(held.count(), 2u);
  one.second->on_client_left([] { ADD_FAILURE() << "it had its reply"; });
}

TEST(Server, AnswersForWhatItCannotFinish) {
  Held held;
  RunningServer server(held.handler());
  RawClient running(server.port()), streaming(server.port()), sending(server.port());
  running.send(get("/1"));
  streaming.send(get("/2"));
  sending.send("POST / HTTP/1.1\r\n");
  auto one = held.take(0), two = held.take(1);
  if (one.first.path != "/1") std::swap(one, two);
  two.second->begin_events();
  std::atomic<int> left = 0;
  one.second->on_client_left([&] { ++left; });
  two.second->on_client_left([&] { ++left; });
  const auto begin = std::chrono::steady_clock::now();
  server.server().stop(milliseconds(100));
  EXPECT_EQ(running.reply().status, 503);
  EXPECT_FALSE(streaming.reply().complete);
  server.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5));
  EXPECT_EQ(left, 2);
  one.second->send({200, "too late"});  // harmless when the server is gone
}

TEST(Server, NotesWhatItDid) {
  RunningServer server(show);
  RawClient client(server.port());
  client.ask(post("/v1/rerank", "12345",
                  "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
                  "X-Request-Id: r1\r\n"));
  client.ask("bad\r\n\r\n");
  const auto records = server.records(2);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].id, "r1");
  EXPECT_EQ(records[0].trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(records[0].peer, "127.0.0.1");
  EXPECT_EQ(records[0].method, "POST");
  EXPECT_EQ(records[0].path, "/v1/rerank");
  EXPECT_EQ(records[0].status, 200);
  EXPECT_EQ(records[0].bytes_in, 5);
  EXPECT_GT(records[0].bytes_out, 100);
  EXPECT_GT(records[0].seconds, 0);
  EXPECT_TRUE(records[0].complete);
  EXPECT_EQ(records[1].status, 400);
  EXPECT_EQ(records[1].path, "");
}

std::string error_of(ServerOptions options) {
  try {
    Server server(std::move(options), show);
  } catch (const base::Error& e) {
    return e.what();
  }
  return "";
}

TEST(Server, SaysWhyItCannotListen) {
  RunningServer server(show);
  EXPECT_THAT(error_of({.port = server.port()}),
              HasSubstr("cannot listen on 127.0.0.1:" + std::to_string(server.port()) +
                        ": Address already in use; choose another --port or --host"));
  EXPECT_THAT(error_of({.host = "no such\nhost"}),
              HasSubstr("'no such\\nhost' is no address of this machine"));
  EXPECT_THAT(error_of({.host = "192.0.2.1"}), HasSubstr("cannot listen on 192.0.2.1"));
  EXPECT_THAT(error_of({.tls_certificate = "/nowhere"}), HasSubstr("both as PEM files"));
  EXPECT_THAT(error_of({.tls_certificate = "/nowhere", .tls_key = "/nowhere"}),
              HasSubstr("/nowhere: no certificate in PEM form"));
}

TEST(Server, NamesItsAddress) {
  const Server server({}, show);
  EXPECT_EQ(server.url(), "http://127.0.0.1:" + std::to_string(server.port()));
}

}  // namespace
}  // namespace erank::serve
