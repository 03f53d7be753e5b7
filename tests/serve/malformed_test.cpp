// What no client should send, by the thousand: the server answers or ends the connection, and
// lives.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/serve/api.h"
#include "tests/serve/malformed_calls.h"
#include "tests/serve/raw_client.h"
#include "tests/serve/running_server.h"

namespace erank::serve {
namespace {

// Good and nearly good requests, which the generator spoils.
const std::vector<std::string>& seeds() {
  static const std::vector<std::string> seeds = {
      get("/v1/rerank?x=%20y"),
      post("/v1/rerank", "{\"query\": \"q\", \"documents\": [\"a\", \"b\"]}",
           "Content-Type: application/json\r\nX-Request-Id: abc\r\n"),
      "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n"
      "a\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\n",
      "HEAD /%C3%A4 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer k\r\n\r\n" + get("/next"),
      "OPTIONS * HTTP/1.1\r\nHost: h\r\nOrigin: https://o\r\n\r\n",
      "POST / HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: keep-alive, "
      "upgrade\r\nUpgrade: h2c\r\n\r\nbody",
      "GET http://user@host:1/a?b#c HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n",
      get("/1") + post("/2", "x") + get("/3", "Connection: close\r\n"),
      "\x16\x03\x01\x02\x01\x01\x01\xfd\x03\x03",  // the beginning of TLS
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"};
  return seeds;
}

const std::vector<std::string>& pieces() {
  using namespace std::string_literals;
  static const std::vector<std::string> pieces = {"\r\n",
                                                  "\r",
                                                  "\n",
                                                  "\0"s,
                                                  "\r\n\r\n",
                                                  " ",
                                                  ":",
                                                  ",",
                                                  ";",
                                                  "%",
                                                  "%00",
                                                  "\xff\xfe",
                                                  "\t",
                                                  "Content-Length: 18446744073709551615\r\n",
                                                  "Content-Length: 99999999999999999999999\r\n",
                                                  "Content-Length: 1, 1\r\n",
                                                  "Content-Length:\r\n",
                                                  "Transfer-Encoding: chunked\r\n",
                                                  "Transfer-Encoding: identity\r\n",
                                                  "ffffffffffffffffff\r\n",
                                                  "7fffffffffffffff\r\n",
                                                  "0\r\n",
                                                  "0\r\n\r\n",
                                                  "-1\r\n",
                                                  "Host: x\r\n",
                                                  "HTTP/1.1",
                                                  "HTTP/9.9",
                                                  "Connection: ,,,\r\n",
                                                  "Expect: 100-continue\r\n",
                                                  std::string(5000, 'a'),
                                                  std::string(300, '\n')};
  return pieces;
}

std::string spoiled(base::Random& random) {
  if (random.below(20) == 0) {  // noise alone
    std::string noise(random.below(400), '\0');
    for (char& c : noise) c = static_cast<char>(random.below(256));
    return noise;
  }
  std::string text = seeds()[random.below(seeds().size())];
  for (uint64_t i = 1 + random.below(4); i > 0; --i) {
    const size_t at = random.below(text.size() + 1), length = random.below(20);
    switch (random.below(6)) {
      case 0:
        text.insert(at, pieces()[random.below(pieces().size())]);
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(random.below(text.size() + 1), length * 5));
        break;
      case 3:
        text.resize(at);
        break;
      case 4:
        if (at < text.size()) text[at] = static_cast<char>(random.below(256));
        break;
      default:
        text.insert(at, 1, static_cast<char>(random.below(256)));
    }
  }
  return text;
}

TEST(Server, Survives10000MalformedRequests) {
  RunningServer server(
      [](HttpRequest request, std::shared_ptr<Responder> responder) {
        if (request.path.size() % 3 == 0) {
          responder->begin_events();
          responder->event("size", std::to_string(request.body.size()));
          responder->end_events(200);
        } else {
          responder->send({200, std::to_string(request.body.size())});
        }
      },
      {.max_body_bytes = 1 << 20, .max_header_bytes = 4096, .cors_origins = {"*"}});
  const std::set<int> known = {100, 200, 204, 400, 413, 415, 417, 421, 431, 501, 505};
  base::Random random(20250918);
  std::set<int> seen;
  int num_replies = 0;
  for (int i = 0; i < 10000; ++i) {
    const std::string text = spoiled(random);
    RawClient client(server.port());
    ASSERT_TRUE(client.connected()) << i;
    size_t sent = 0;  // in one piece or in several
    while (sent < text.size()) {
      const size_t n = random.below(3) == 0 ? 1 + random.below(text.size() - sent) : text.size();
      if (!client.send(std::string_view(text).substr(sent, n))) break;
      sent += n;
    }
    client.end_sending();
    std::string_view replies;
    const std::string all = client.rest();
    for (replies = all; !replies.empty();) {  // each begins like one
      ASSERT_TRUE(replies.starts_with("HTTP/1.")) << i << ": " << replies;
      const int status = std::stoi(std::string(replies.substr(9, 3)));
      ASSERT_TRUE(known.contains(status)) << i << ": " << replies;
      seen.insert(status);
      ++num_replies;
      const size_t next = replies.find("\r\nHTTP/1.", 1), brace = replies.find("}HTTP/1.", 1),
                   digit = std::min({next == replies.npos ? next : next + 2,
                                     brace == replies.npos ? brace : brace + 1});
      if (digit == replies.npos) break;
      replies.remove_prefix(digit);
    }
  }
  EXPECT_GT(num_replies, 5000);
  for (const int status : {200, 204, 400, 413, 501, 505})
    EXPECT_TRUE(seen.contains(status)) << status;
  EXPECT_EQ(RawClient(server.port()).ask(post("/good", "12345")).body, "5");
}

// Calls are read, but not scored: what that needs is not in every build.
TEST(Server, Survives10000MalformedCalls) {
  RunningServer server(
      [](HttpRequest request, std::shared_ptr<Responder> responder) {
        try {
          const RerankCall call = parse_call(*post_route(request.path), request.body, {});
          responder->send({200, std::to_string(call.num_pairs)});
        } catch (const ApiError& error) {
          responder->send(error_reply(error, request.id));
        }
      },
      {.fault_reply = fault_reply});
  MalformedCalls calls(20251127);
  std::map<int, int> seen;
  RawClient client(server.port());
  for (int i = 0; i < 10000; ++i) {
    const std::string body = calls.next_body();
    const RawReply reply = client.ask(post(calls.next_path(), body));
    ASSERT_TRUE(reply.complete) << i << ": " << body;
    ++seen[reply.status];
    if (reply.status == 200) {
      ASSERT_GT(std::stoi(reply.body), 0) << body;
      continue;
    }
    const base::Json json = base::Json::parse(reply.body, nullptr, false);
    ASSERT_TRUE(json.is_object() && json.contains("error") && json.contains("error_type"))
        << i << ": " << reply.body;
  }
  for (const int status : {200, 400, 422}) EXPECT_GT(seen[status], 100) << status;
  EXPECT_LE(seen.size(), 4u);  // and 413
}

}  // namespace
}  // namespace erank::serve
