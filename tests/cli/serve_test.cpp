// `erank serve` as a service manager runs it: start, readiness, signals, faults.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <regex>
#include <set>
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

int listen_on_a_free_port() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(listener, 1), 0);
  return listener;
}

int port_of(int listener) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  EXPECT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  return ntohs(address.sin_port);
}

class Serve : public Program {
 protected:
  ~Serve() override {
    if (pid_ > 0) ::kill(pid_, SIGKILL), finish(pid_);
  }
  // Starts it on a free port, which its line names, and waits until it is ready.
  void serve(std::vector<std::string> args = {}) {
    args.insert(args.begin(), {"serve", "--model", tiny_model(), "--threads", "1", "--port", "0",
                               "--allowed-host", "h"});
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
  EXPECT_THAT(ask(get("/info")).body, HasSubstr("Given a query, retrieval relevant passage."));
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
              MatchesRegex("erank: serving tiny \\([a-z0-9]+\\) at http://127.0.0.1:[0-9]+\n"));
}

TEST_F(Serve, RanksDocuments) {
  serve({"--max-documents", "3"});
  const std::string body =
      R"({"query": "why is the sky blue", "documents": ["Air scatters light.", "Bread."], "mode": "direct"})";
  RawClient client(port_);
  const RawReply reply = client.ask(serve::post("/v1/rerank", body));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const base::Json results = base::parse_json(reply.body, "reply")["results"];
  ASSERT_EQ(results.size(), 2u);
  EXPECT_GE(results[0]["relevance_score"].get<double>(), results[1]["relevance_score"]);
  EXPECT_NE(results[0]["index"], results[1]["index"]);
  // Again: from the cache, as a stream.
  const RawReply stream = client.ask(
      serve::post("/v1/rerank", body.substr(0, body.size() - 1) + R"(, "stream": true})"));
  EXPECT_TRUE(stream.complete);
  EXPECT_THAT(stream.body, ::testing::StartsWith("event: start\n"));
  EXPECT_THAT(stream.body, HasSubstr("event: ranking\n"));
  EXPECT_EQ(
      client.ask(serve::post("/v1/rerank", R"({"query": "q", "documents": ["a", "b", "c", "d"]})"))
          .status,
      413);
  EXPECT_EQ(client.ask(serve::post("/v1/rerank", "{")).status, 400);
  const std::string metrics = client.ask(get("/metrics")).body;
  EXPECT_THAT(metrics, HasSubstr("erank_cache_lookups_total{outcome=\"hit\"} 2\n"));
  EXPECT_THAT(metrics, HasSubstr("erank_cache_lookups_total{outcome=\"miss\"} 2\n"));
  EXPECT_THAT(metrics, HasSubstr("erank_call_pairs_count 2\n"));
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
}

TEST_F(Serve, TellsTheDefaultsOfItsFlags) {
  serve({"--instruction", "Given an order, the part.", "--direct", "--max-think-tokens", "300",
         "--score", "integer", "--deadline-ms", "4500", "--temperature", "0.7", "--samples", "4",
         "--seed", "9"});
  const base::Json info = base::parse_json(ask(get("/info")).body, "reply");
  EXPECT_EQ(info["default_instruction"], "Given an order, the part.");
  EXPECT_EQ(info["default_mode"], "direct");
  EXPECT_EQ(info["default_max_think_tokens"], 300);
  EXPECT_EQ(info["default_score"], "integer");
  EXPECT_EQ(info["default_deadline_ms"], 4500);
  EXPECT_EQ(info["default_temperature"], 0.7);
  EXPECT_EQ(info["default_samples"], 4);
  EXPECT_EQ(info["default_seed"], 9);
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
}

TEST_F(Serve, TellsProbabilitiesOfRelevanceAsRerankDoes) {
  put("c.jsonl",
      R"({"qid":"p","query":"sky p","hits":[{"docid":"a","text":"blue"},{"docid":"b","text":"bread"}]})"
      "\n"
      R"({"qid":"q","query":"sky q","hits":[{"docid":"a","text":"blue"},{"docid":"b","text":"bread"}]})"
      "\n");
  put("qrels", "p 0 a 1\np 0 b 0\nq 0 a 1\nq 0 b 0\n");
  const auto reranked = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"--candidates", path("c.jsonl"), "--direct",       "--quiet",
                                     "--overwrite",  "--out",         path("run.jsonl")};
    args.insert(args.end(), more.begin(), more.end());
    EXPECT_EQ(rerank(args).exit_code, 0);
  };
  const auto calibrate = [&](const std::vector<std::string>& to) {
    std::vector<std::string> args = {"calibrate", path("run.jsonl"), "--qrels", path("qrels")};
    args.insert(args.end(), to.begin(), to.end());
    EXPECT_EQ(run(args).exit_code, 0);
  };
  reranked({});
  const std::string map = path("map.json");
  calibrate({"--out", map});
  reranked({"--calibrated", map});
  const auto expected = json_lines(base::read_file(path("run.jsonl")));

  const auto results = [&](const std::string& more) {
    const RawReply reply = ask(serve::post(
        "/v1/rerank", R"({"query": "sky p", "documents": ["blue", "bread"])" + more + "}"));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return base::parse_json(reply.body, "reply")["results"];
  };
  serve({"--calibrated", map});
  const base::Json same = results(R"(, "mode": "direct")");
  ASSERT_EQ(same.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(same[i]["score"], expected[i]["score"]);
    EXPECT_EQ(same[i].at("relevance"), expected[i].at("relevance"));
  }
  for (const char* other :
       {R"("mode": "think", "max_think_tokens": 3)", R"("mode": "direct", "score": "integer")",
        R"("mode": "direct", "long_docs": "cut")", R"("mode": "direct", "instruction": "poems")"})
    EXPECT_FALSE(results(std::string(", ") + other)[0].contains("relevance")) << other;
  const base::Json info = base::parse_json(ask(get("/info")).body, "reply");
  EXPECT_EQ(info["calibration"]["scored_by"]["mode"], "direct");
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
  port_ = 0;

  // What lies beside the model is taken, and left alone where no request's scores can be what it is
  // for; one that is named is refused then.
  reranked({"--calibrated", map});
  calibrate({"--model", tiny_model()});
  serve();
  EXPECT_EQ(results(R"(, "mode": "direct")")[0].at("relevance"), expected[0].at("relevance"));
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
  port_ = 0;
  expect_refused(run({"serve", "--model", tiny_model(), "--scale", "0-3", "--port", "0",
                      "--threads", "1", "--calibrated", map}),
                 "is for other scores: 'scale' was '0-10', now it is '0-3'");
  serve({"--max-doc-tokens", "30"});
  EXPECT_FALSE(results(R"(, "mode": "direct")")[0].contains("relevance"));
  EXPECT_THAT(ask(get("/info")).body, HasSubstr("\"calibration\":null"));
  EXPECT_THAT(stop(SIGTERM).err, HasSubstr("calibration.json is for other scores and is not used: "
                                           "'max_doc_tokens' was 2048, now it is 30"));
}

TEST_F(Serve, FinishesWhatRunsWhenASignalComes) {
  serve({"--drain-seconds", "60"});
  std::string documents;
  for (int i = 0; i < 300; ++i) documents += (i ? ", \"" : "\"") + std::to_string(i) + "\"";
  RawClient client(port_);
  client.send(serve::post(
      "/v1/rerank", "{\"query\": \"q\", \"mode\": \"direct\", \"stream\": true, \"documents\": [" +
                        documents + "]}"));
  ASSERT_TRUE(client.wait_for("event: start"));
  ::kill(pid_, SIGTERM);
  const RawReply reply = client.reply();
  EXPECT_TRUE(reply.complete);
  EXPECT_THAT(reply.body, HasSubstr("event: ranking\n"));
  EXPECT_EQ(finish(std::exchange(pid_, -1)).exit_code, 0);
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
  const RawReply page = ask(get("/"));  // open: it has a field for the key
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_THAT(page.headers.at("content-security-policy"), HasSubstr("default-src 'none'"));
  EXPECT_EQ(ask(get("/app.js")).status, 200);
  EXPECT_EQ(ask(get("/ready", "X-Request-Id: last\r\n")).status, 200);
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
  const auto lines = json_lines(base::read_file(path("access.jsonl")));
  ASSERT_EQ(lines.size(), 8u);
  EXPECT_EQ(lines[0]["status"], 401);
  EXPECT_EQ(lines[7]["id"], "last");
  EXPECT_EQ(lines[7]["path"], "/ready");
}

// A pipe whose reader does not read: requests are answered, and the log says what it lacks.
TEST_F(Serve, GoesOnWhenNobodyReadsItsLog) {
  const std::string pipe = path("log");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  serve({"--access-log", pipe});
  RawClient client(port_);
  constexpr int kRequests = 7000;  // 1 MiB of lines waits
  for (int i = 0; i < kRequests; ++i) ASSERT_EQ(client.ask(get("/health")).status, 200) << i;
  std::string text;
  int64_t lines = 0, dropped = 0;
  for (int i = 0; i < 1000 && lines + dropped < kRequests; ++i) {
    char bytes[65536];
    for (ssize_t n; (n = ::read(reader, bytes, sizeof bytes)) > 0;)
      text.append(bytes, static_cast<size_t>(n));
    std::this_thread::sleep_for(milliseconds(10));
    lines = dropped = 0;
    for (const base::Json& line : json_lines(text.substr(0, text.rfind('\n') + 1)))
      if (line.contains("dropped"))
        dropped += line["dropped"].get<int64_t>();
      else
        ++lines;
  }
  EXPECT_EQ(lines + dropped, kRequests);
  EXPECT_GT(dropped, 0);
  EXPECT_GT(lines, 3000);
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
  ::close(reader);
}

// What is refused before its body is read has a body that the client can read, too.
TEST_F(Serve, RefusesInTheClientsShape) {
  serve({"--api-key", "k", "--max-body-bytes", "100"});
  const base::Json info = base::parse_json(ask(get("/info")).body, "reply");
  EXPECT_THAT(info["error"].get<std::string>(), HasSubstr("needs a key"));
  EXPECT_EQ(info["error_type"], "Validation");
  const std::string head =
      "POST /rerank HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer k\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  // Its first chunk has the names, its second one is too much.
  const auto large = [&](const std::string& name) {
    const std::string begin = "{\"query\":\"q\",\"" + name + "\":[";
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", begin.size());
    const RawReply reply = ask(head + size + begin + "\r\n64\r\n" + std::string(100, ' ') + "\r\n");
    EXPECT_EQ(reply.status, 413);
    return base::parse_json(reply.body, "reply")["error"];
  };
  EXPECT_THAT(large("documents")["message"].get<std::string>(), HasSubstr("100 bytes"));
  EXPECT_THAT(large("texts").get<std::string>(), HasSubstr("100 bytes"));
  EXPECT_EQ(ask("OPTIONS /info HTTP/1.1\r\nHost: h\r\n\r\n").headers.at("allow"),
            "GET, HEAD, OPTIONS");
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
}

TEST_F(Serve, ShowsThePageToThoseWithoutAKeyToo) {
  serve({"--api-key", "secret"});
  const RawReply page = ask(get("/"));
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.body, HasSubstr("<title>erank</title>"));
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_THAT(page.headers.at("content-security-policy"), HasSubstr("script-src 'self'"));
  for (const char* path : {"/app.js", "/app.css", "/icon.svg"})
    EXPECT_EQ(ask(get(path)).status, 200) << path;
  EXPECT_EQ(ask(get("/info")).status, 401);
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
  // The prompt's form comes through a pipe that nobody fills.
  const std::string pipe = path("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int taken = listen_on_a_free_port();
  const std::string port = std::to_string(port_of(taken));
  ::close(taken);
  pid_ = start({"serve", "--model", tiny_model(), "--prompt-format", pipe, "--port", port,
                "--allowed-host", "h"});
  int health = 0;
  for (int i = 0; i < 3000 && health == 0; ++i) {
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

// In a mount namespace with names of its own.
TEST_F(Serve, ListensAtEveryAddressOfItsHost) {
  if (std::system("unshare -m mount --bind /etc/hosts /etc/hosts 2>/dev/null && command -v curl "
                  ">/dev/null && grep -q ' lo$' /proc/net/if_inet6") != 0)
    GTEST_SKIP() << "no mount namespaces (they need root), no curl, or no IPv6";
  const std::string names =
      put("hosts", "127.0.0.1 localhost\n127.0.0.3 localhost\n::1 localhost\n");
  launcher_ = {
      "unshare", "-m", "sh", "-c", "mount --bind '" + names + "' /etc/hosts && exec \"$@\"", "sh"};
  pid_ = start(
      {"serve", "--model", tiny_model(), "--threads", "1", "--host", "localhost", "--port", "0"});
  int port = 0;
  for (int i = 0; i < 3000 && port == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    const size_t at = error_text().find("at http://localhost:");
    if (at != std::string::npos && error_text().ends_with('\n'))
      port = std::stoi(error_text().substr(at + 20));
  }
  ASSERT_GT(port, 0) << error_text();
  for (const char* address : {"127.0.0.1", "127.0.0.3", "[::1]"})
    EXPECT_EQ(std::system(("curl --noproxy '*' -sf http://" + std::string(address) + ":" +
                           std::to_string(port) + "/ready -H 'Host: localhost' >/dev/null")
                              .c_str()),
              0)
        << address;
  EXPECT_EQ(stop(SIGTERM).exit_code, 0);
}

// The series that examples/serve/grafana.json asks for are those that the server tells.
TEST_F(Serve, HasTheSeriesOfItsDashboard) {
  serve();
  ask(serve::post("/v1/rerank", R"({"query": "q", "documents": ["a"], "mode": "direct"})"));
  const std::string metrics = ask(get("/metrics")).body;
  const std::string dashboard = base::read_file(ERANK_SOURCE_DIR "/examples/serve/grafana.json");
  EXPECT_EQ(base::parse_json(dashboard, "grafana.json")["title"], "erank serve");
  static const std::regex series("erank_[a-z_]+");
  std::set<std::string> names;
  for (std::sregex_iterator it(dashboard.begin(), dashboard.end(), series), end; it != end; ++it)
    names.insert(it->str());
  EXPECT_GT(names.size(), 20u);
  for (const auto& name : names)
    EXPECT_TRUE(metrics.find("\n" + name + "{") != metrics.npos ||
                metrics.find("\n" + name + " ") != metrics.npos)
        << name;
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
  refused({"--port", "0", "--think", "--direct"}, "--direct");
  refused({"--port", "0", "--max-think-tokens", "40000"}, "--max-think-tokens");
  refused({"--port", "0", "--score", "best"}, "--score");
  refused({"--port", "0", "--samples", "65", "--temperature", "1"}, "--samples");
  refused({"--port", "0", "--samples", "2"},
          "[--samples] 2, expected 1 without a --temperature above 0");
  refused({"--port", "0", "--deadline-ms", "0"}, "--deadline-ms");

  const int taken = listen_on_a_free_port();
  const std::string port = std::to_string(port_of(taken));
  refused({"--port", port}, "cannot listen on 127.0.0.1:" + port + ": Address already in use");
  ::close(taken);
}

// examples/serve/nginx.conf with two replicas: a query finds its replica again, and another one
// when that is gone.
class SlowServe : public Serve {
 protected:
  ~SlowServe() override {
    // nginx must end its workers itself, or they live on.
    for (const pid_t pid : pids_) ::kill(pid, SIGTERM), ::waitpid(pid, nullptr, 0);
  }
  bool wait_for(int port, const std::string& what) {
    for (int i = 0; i < 3000; ++i) {
      RawClient client(port);
      if (client.connected() && client.ask(get(what)).status == 200) return true;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return false;
  }
  double metric(int port, const std::string& name) {
    const std::string text = RawClient(port).ask(get("/metrics")).body;
    const size_t at = text.find("\n" + name + " ");
    return at == text.npos ? -1 : std::stod(text.substr(at + name.size() + 2));
  }
  std::vector<pid_t> pids_;
};

TEST_F(SlowServe, FindsAQuerysReplicaAgainThroughNginx) {
  if (std::system("command -v nginx >/dev/null || test -x /usr/sbin/nginx") != 0)
    GTEST_SKIP() << "nginx is not installed; tools/setup --scale installs it";
  int ports[3];
  for (int& port : ports) {
    const int taken = listen_on_a_free_port();
    port = port_of(taken);
    ::close(taken);
  }
  std::string conf = base::read_file(ERANK_SOURCE_DIR "/examples/serve/nginx.conf");
  const char* names[] = {"127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"};
  for (int i = 0; i < 3; ++i)
    conf.replace(conf.find(names[i]), 14, "127.0.0.1:" + std::to_string(ports[i]));
  for (int i = 1; i < 3; ++i)
    pids_.push_back(start({"serve", "--model", tiny_model(), "--threads", "1", "--port",
                           std::to_string(ports[i]), "--allowed-host", "h"}));
  for (int i = 1; i < 3; ++i) ASSERT_TRUE(wait_for(ports[i], "/ready"));
  const pid_t nginx = ::fork();
  if (nginx == 0) {
    const std::string file = put("nginx.conf", conf), folder = path("");
    ::execlp("nginx", "nginx", "-c", file.c_str(), "-p", folder.c_str(), "-g", "daemon off;",
             nullptr);
    ::execl("/usr/sbin/nginx", "nginx", "-c", file.c_str(), "-p", folder.c_str(), "-g",
            "daemon off;", nullptr);
    ::_exit(127);
  }
  pids_.push_back(nginx);
  ASSERT_TRUE(wait_for(ports[0], "/health"));

  constexpr int kQueries = 40;
  const auto body = [](int i) {  // the documents come first, and quote a query
    return R"({"documents": ["a \"query\": \"x\"", "b"], "mode": "direct", "query": "number )" +
           std::to_string(i) + "\"}";
  };
  RawClient client(ports[0]);
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < kQueries; ++i)
      ASSERT_EQ(client.ask(serve::post("/v1/rerank", body(i))).status, 200);
  double calls = 0, hits = 0;
  for (int i = 1; i < 3; ++i) {
    EXPECT_GT(metric(ports[i], "erank_call_pairs_count"), kQueries / 4);
    calls += metric(ports[i], "erank_call_pairs_count");
    hits += metric(ports[i], "erank_cache_lookups_total{outcome=\"hit\"}");
  }
  EXPECT_EQ(calls, 2 * kQueries);
  EXPECT_EQ(hits, 2 * kQueries);  // both pairs of each query in the second round

  const RawReply stream = client.ask(serve::post(
      "/v1/rerank", R"({"query": "q", "documents": ["a"], "mode": "direct", "stream": true})"));
  EXPECT_THAT(stream.body, HasSubstr("event: ranking\n"));

  ::kill(pids_[0], SIGTERM);
  int status = -1;
  ASSERT_EQ(::waitpid(pids_[0], &status, 0), pids_[0]);
  pids_.erase(pids_.begin());
  EXPECT_EQ(WEXITSTATUS(status), 0);
  for (int i = 0; i < kQueries; ++i)
    ASSERT_EQ(client.ask(serve::post("/v1/rerank", body(i))).status, 200) << i;
}

}  // namespace
}  // namespace erank::cli
