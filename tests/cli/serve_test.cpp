// `erank serve` as a service manager runs it: start, readiness, signals, faults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "erank/base/files.h"
#include "tests/cli/program.h"
#include "tests/serve/raw_client.h"

namespace erank::cli {
namespace {

using serve::get;
using serve::RawClient;
using serve::RawReply;
using std::chrono::milliseconds;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

class Serve : public Program {
 protected:
  ~Serve() override {
    if (pid_ > 0) ::kill(pid_, SIGKILL), finish(pid_);
  }
  // Starts it on a free port, which its line names, and waits until it is ready.
  void serve(std::vector<std::string> args = {}) {
    args.insert(args.begin(), {"serve", "--model", tiny_model(), "--threads", "1", "--port", "0"});
    pid_ = start(args);
    for (int i = 0; i < 3000 && port_ == 0; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
      const std::string text = error_text();
      const size_t at = text.find("://127.0.0.1:");
      if (at != text.npos && text.ends_with('\n')) port_ = std::stoi(text.substr(at + 13));
    }
    ASSERT_GT(port_, 0) << error_text();
  }
  Outcome stop(int signal) {
    ::kill(pid_, signal);
    return finish(std::exchange(pid_, -1));
  }
  RawReply ask(const std::string& bytes) const { return RawClient(port_).ask(bytes); }

  pid_t pid_ = -1;
  int port_ = 0;
};

TEST_F(Serve, SaysWhereItIsAndEndsByASignal) {
  serve();
  EXPECT_EQ(ask(get("/health")).body, "{\"status\":\"ok\"}");
  EXPECT_EQ(ask(get("/ready")).status, 200);
  EXPECT_THAT(ask(get("/version")).body, HasSubstr("\"version\":\"0."));
  EXPECT_EQ(ask(get("/nowhere")).status, 404);
  const RawReply metrics = ask(get("/metrics"));
  EXPECT_EQ(metrics.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(metrics.body, HasSubstr("\nerank_ready 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("\nerank_pairs_scored_total 1\n"));  // the warm-up
  EXPECT_THAT(metrics.body, HasSubstr("erank_http_requests_total{method=\"GET\",route=\"other\","
                                      "status=\"404\"} 1\n"));
  const Outcome ended = stop(SIGTERM);
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_EQ(ended.out, "");
  EXPECT_THAT(ended.err,
              MatchesRegex("erank: serving tiny \\(fp32|bf16\\) at http://127.0.0.1:[0-9]+\n"));
}

TEST_F(Serve, EndsBySigintToo) {
  serve();
  EXPECT_EQ(stop(SIGINT).exit_code, 0);
}

TEST_F(Serve, AsksForKeysOfAllSources) {
  serve({"--api-key", "one", "--api-key-file", put("keys", "# ours\n\n two \r\nthree\n"),
         "--access-log", path("access.jsonl")});
  const auto status = [&](const std::string& header) { return ask(get("/x", header)).status; };
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(status("Authorization: Bearer # ours\r\n"), 401);
  for (const char* key : {"one", "two", "three"})
    EXPECT_EQ(status(std::string("Authorization: Bearer ") + key + "\r\n"), 404) << key;
  EXPECT_EQ(ask(get("/ready", "X-Request-Id: last\r\n")).status, 200);
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
  const auto lines = json_lines(base::read_file(path("access.jsonl")));
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0]["status"], 401);
  EXPECT_EQ(lines[5]["id"], "last");
  EXPECT_EQ(lines[5]["path"], "/ready");
}

TEST_F(Serve, TakesAKeyFromTheEnvironment) {
  launcher_ = {"env", "ERANK_API_KEY=secret"};
  serve({"--access-log", "-"});
  EXPECT_EQ(ask(get("/x")).status, 401);
  EXPECT_EQ(ask(get("/x", "Authorization: secret\r\n")).status, 404);
  const Outcome ended = stop(SIGTERM);
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_THAT(column(json_lines(ended.out), "status"), ::testing::ElementsAre("401", "404"));
  EXPECT_THAT(ended.out + ended.err, Not(HasSubstr("secret")));
}

TEST_F(Serve, IsAliveBeforeItIsReady) {
  // The tokenizer comes through a pipe that nobody fills.
  const std::string model = path("slow");
  ASSERT_EQ(run({"model", "random", "--shape", "tiny", "--out", model}).exit_code, 0);
  const std::string file = model + "/tokenizer.json";
  ASSERT_EQ(std::remove(file.c_str()), 0);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  const std::string port = std::to_string(20000 + ::getpid() % 20000);
  pid_ = start({"serve", "--model", model, "--threads", "1", "--port", port});
  int health = 0;
  for (int i = 0; i < 1000 && health == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    RawClient client(std::stoi(port));
    if (client.connected()) health = client.ask(get("/health")).status;
  }
  EXPECT_EQ(health, 200) << error_text();
  port_ = std::stoi(port);
  EXPECT_EQ(ask(get("/ready")).status, 503);
  EXPECT_THAT(ask(get("/metrics")).body, HasSubstr("erank_ready 0\n"));
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);  // also while it loads
}

TEST_F(Serve, RefusesWhatCannotBe) {
  const auto refused = [&](std::vector<std::string> args, const std::string& part) {
    args.insert(args.begin(), {"serve", "--threads", "1"});
    expect_refused(run(args), part);
  };
  refused({"--host", "no.such.host.invalid"}, "'no.such.host.invalid' is no address of this");
  refused({"--port", "70000"}, "--port");
  refused({"--port", "0", "--api-key", ""}, "[--api-key] is empty");
  refused({"--port", "0", "--api-key-file", put("none", "# nothing\n")}, "holds no key");
  refused({"--port", "0", "--tls-cert", "x"}, "TLS needs a certificate and its key");
  refused({"--port", "0", "--access-log", path("no/such/folder/log")}, "cannot be written to");
  refused({"--port", "0", "--model", path("nowhere")}, "nowhere");
  refused({"--port", "0", "--max-queued-pairs", "0"}, "--max-queued-pairs");

  const int taken = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(taken, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(taken, 1), 0);
  ASSERT_EQ(::getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = std::to_string(ntohs(address.sin_port));
  refused({"--port", port}, "cannot listen on 127.0.0.1:" + port + ": Address already in use");
  ::close(taken);
}

}  // namespace
}  // namespace erank::cli
