// What the server refuses for all clients together, and who writes what it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "erank/base/error.h"
#include "erank/serve/server.h"
#include "tests/serve/raw_client.h"
#include "tests/serve/running_server.h"

namespace erank::serve {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

void show_body(HttpRequest request, std::shared_ptr<Responder> responder) {
  responder->send({200, request.body});
}

// Of bodies of 40,000 bytes no two are read at a time.
TEST(Server, BoundsWhatItReadsOfAllClientsTogether) {
  RunningServer server(show_body, {.max_body_bytes = 200000, .max_reading_bytes = 200000});
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n";
  const std::string most(180000, 'x'), rest(20000, 'y');
  RawClient clients[2] = {RawClient(server.port()), RawClient(server.port())};
  for (RawClient& client : clients) client.send(head + most);
  pollfd both[2] = {{clients[0].socket(), POLLIN, 0}, {clients[1].socket(), POLLIN, 0}};
  ASSERT_EQ(::poll(both, 2, 10000), 1);
  RawClient& refused = clients[both[0].revents ? 0 : 1];
  RawClient& other = clients[both[0].revents ? 1 : 0];
  const RawReply reply = refused.reply();
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.headers.at("retry-after"), "1");
  EXPECT_THAT(reply.body, HasSubstr("more than 200000 bytes are being read"));
  // Small bodies are read all the same.
  const std::string small(30000, 'z');
  EXPECT_EQ(RawClient(server.port())
                .ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n" + small)
                .body,
            small);
  EXPECT_EQ(other.ask(rest).body, most + rest);
  // What clients leave in the middle of counts no more.
  for (int i = 0; i < 5; ++i) RawClient(server.port()).send(head + most);
  int status = 429;
  for (int i = 0; i < 1000 && status == 429; ++i)
    status = RawClient(server.port()).ask(head + most + rest).status;
  EXPECT_EQ(status, 200);
}

TEST(Server, LetsTheHandlersSideWriteItsRefusals) {
  const auto reply = [](const HttpRequest& request, int status, const std::string& what) {
    return HttpReply{status, request.path + "|" + request.body + "|" + request.id + "|" + what};
  };
  RunningServer server(show_body, {.max_body_bytes = 20,
                                   .client_timeout = milliseconds(200),
                                   .api_keys = {"k"},
                                   .open_paths = {},
                                   .fault_reply = reply});
  const std::string key = "Authorization: k\r\nX-Request-Id: r\r\n";
  // Each connects when it has something to send: a silent one is cut without a word.
  const auto ask = [&](const std::string& bytes) { return RawClient(server.port()).ask(bytes); };
  RawClient slow(server.port());
  slow.send("POST /slow HTTP/1.1\r\nHost: h\r\n" + key + "Content-Length: 9\r\n\r\nhalf");
  EXPECT_THAT(ask(get("/info", "X-Request-Id: r\r\n")).body,
              HasSubstr("/info||r|this server needs a key"));
  EXPECT_THAT(ask("POST /large HTTP/1.1\r\nHost: h\r\n" + key + "Content-Length: 21\r\n\r\n").body,
              HasSubstr("/large||r|the request's body is larger"));
  EXPECT_THAT(
      ask("POST /chunked HTTP/1.1\r\nHost: h\r\n" + key +
          "Transfer-Encoding: chunked\r\n\r\n4\r\nmany\r\n14\r\n" + std::string(20, 'x') + "\r\n")
          .body,
      HasSubstr("/chunked|many|r|the request's body is larger"));
  EXPECT_THAT(ask("BREW\r\n\r\n").body, HasSubstr("this is no HTTP/1.1 request"));
  EXPECT_THAT(slow.reply().body, HasSubstr("/slow|half|r|the request came too slowly"));
}

TEST(Server, RefusesCompressedBodies) {
  RunningServer server(show_body);
  RawClient client(server.port());
  const RawReply refused = client.ask(
      "POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
      "Content-Encoding: gzip\r\n\r\n");
  EXPECT_EQ(refused.status, 415);  // before the body comes
  EXPECT_THAT(refused.body, HasSubstr("Content-Encoding is 'gzip', expected a body as it is"));
  RawClient other(server.port());
  EXPECT_EQ(other.ask(post("/e", "abc", "Content-Encoding: identity\r\n")).status, 200);
}

// It takes something all the time, 3 MB/s of what has to be taken at 64 MB/s.
TEST(Server, CutsClientsThatReadTheReplySlowly) {
  RunningServer server(
      [](HttpRequest, std::shared_ptr<Responder> responder) {
        responder->send({200, std::string(32 << 20, 'x'), "text/plain"});
      },
      {.client_timeout = milliseconds(2000), .min_reply_rate = 64 << 20});
  RawClient client(server.port(), 65536);
  client.send(get("/"));
  char piece[30000];
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < seconds(9) &&
         ::recv(client.socket(), piece, sizeof piece, 0) > 0)
    std::this_thread::sleep_for(milliseconds(10));
  const auto records = server.records(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_FALSE(records[0].complete);
  EXPECT_LT(records[0].seconds, 5);
}

int status_for(int port, const std::string& host) {
  return RawClient(port).ask("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n").status;
}

// A page whose name was made to point at this machine sends that name.
TEST(Server, IsAskedByItsOwnNamesAlone) {
  RunningServer server(show_body, {.allowed_hosts = {"proxy.example"}});
  for (const char* host :
       {"localhost", "localhost:1", "LocalHost", "127.0.0.1", "127.0.0.1:8080", "[::1]",
        "[::1]:8080", "[::2]", "127.0.0.2", "proxy.example", "proxy.example:443"})
    EXPECT_EQ(status_for(server.port(), host), 200) << host;
  for (const char* host : {"evil.example", "evil.example:8080", "localhost.evil.example", "",
                           "127.0.0.1.evil.example", "::1"})
    EXPECT_EQ(status_for(server.port(), host), 421) << host;
  RawClient client(server.port());
  const std::string evil = "HTTP/1.1\r\nHost: evil.example\r\n\r\n";
  EXPECT_EQ(client.ask("OPTIONS / " + evil).status, 421);
  EXPECT_THAT(client.ask("GET /health " + evil).body,
              HasSubstr("not asked as 'evil.example': ask it as localhost, or start it with"));
  EXPECT_EQ(client.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").status, 200);
}

TEST(Server, ChecksHostsWhereABrowserCouldBeMisled) {
  const auto status = [](ServerOptions options, const std::string& host = "evil.example") {
    Server server(std::move(options), show_body);
    std::thread thread([&] { server.run(); });
    const int status = status_for(server.port(), host);
    server.stop(milliseconds(0));
    thread.join();
    return status;
  };
  EXPECT_EQ(status({}), 421);
  EXPECT_EQ(status({.host = "localhost"}), 421);
  EXPECT_EQ(status({.host = "0.0.0.0"}), 200);  // has names that it does not know
  EXPECT_EQ(status({.api_keys = {"k"}}), 401);
  EXPECT_EQ(status({.host = "0.0.0.0", .allowed_hosts = {"good.example"}}), 421);
  EXPECT_EQ(status({.host = "0.0.0.0", .allowed_hosts = {"evil.example"}}), 200);
  // Addresses are no names; a name may end with a dot.
  for (const char* host :
       {"10.1.2.3", "10.1.2.3:8080", "[2001:db8::1]:80", "[::1]", "LocalHost.:1"})
    EXPECT_EQ(status({}, host), 200) << host;
  for (const char* host : {"10.1.2.3.evil.example", "[evil.example]", "localhost.evil.example", ""})
    EXPECT_EQ(status({}, host), 421) << host;
  for (const char* name : {"https://good.example", "good.example:80", "::1", ""})
    EXPECT_THROW(status({.allowed_hosts = {name}}), base::Error) << name;
}

TEST(Server, SaysWhatAPathAllows) {
  RunningServer server(show_body, {.allow = [](std::string_view path) {
                         return path == "/a" ? "POST" : "nothing";
                       }});
  RawClient client(server.port());
  EXPECT_EQ(client.ask("OPTIONS /a HTTP/1.1\r\nHost: h\r\n\r\n").headers.at("allow"), "POST");
  EXPECT_EQ(client.ask("OPTIONS /b HTTP/1.1\r\nHost: h\r\n\r\n").headers.at("allow"), "nothing");
}

}  // namespace
}  // namespace erank::serve
