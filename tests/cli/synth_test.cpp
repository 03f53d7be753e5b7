// `erank synth` against a real server that misbehaves on purpose (tests/synth/chat_server.py).
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "erank/base/files.h"
#include "erank/base/random.h"
#include "tests/cli/program.h"
#include "tests/synth/chat_server.h"

namespace erank::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

constexpr const char* kKey = "sk-very-secret-0815";

class TinySynth : public Program {
 protected:
  TinySynth() { ::setenv("OPENAI_API_KEY", kKey, 1); }
  ~TinySynth() override { ::unsetenv("OPENAI_API_KEY"); }

  // A list of candidates: a query's documents are `texts`, d0, d1, ..., with falling scores.
  void put_candidates(const std::vector<std::vector<std::string>>& queries) {
    std::string lines;
    for (size_t q = 0; q < queries.size(); ++q) {
      base::Json hits = base::Json::array();
      for (size_t d = 0; d < queries[q].size(); ++d)
        hits.push_back({{"docid", "d" + std::to_string(d)},
                        {"text", queries[q][d]},
                        {"score", 100.0 - static_cast<double>(d)}});
      lines += base::dump_json(base::Json{{"qid", "q" + std::to_string(q)},
                                          {"query", "query " + std::to_string(q)},
                                          {"hits", hits}}) +
               "\n";
    }
    put("c.jsonl", lines);
  }
  std::vector<std::string> args(const std::vector<std::string>& more = {}) {
    std::vector<std::string> all = {"synth",      "--candidates", path("c.jsonl"), "--tokenizer",
                                    tiny_model(), "--endpoint",   server.url(),    "--model",
                                    "teacher",    "--out",        path("p.jsonl")};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::vector<base::Json> pairs() const { return json_lines(base::read_file(path("p.jsonl"))); }
  int requests(const std::string& mark) const {
    const auto counts = server.counts();
    const auto found = counts.find(mark);
    return found == counts.end() ? 0 : found->second;
  }

  synth::ChatServer server;
};

TEST_F(TinySynth, WritesWhatTrainingReads) {
  put_candidates(
      {{"[score 9]", "[scores 2 7 3]", "[field] [score 4]"}, {"[prose]", "[bare] [score 1]"}});
  put("qrels", "q0 0 d0 2\nq0 0 d1 1\nq0 0 d2 0\nq1 0 d1 1\n");
  const Outcome o =
      run(args({"--qrels", path("qrels"), "--price-in", "2", "--price-out", "10", "--json"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto lines = pairs();
  EXPECT_THAT(column(lines, "docid"), ElementsAre("d0", "d1", "d2", "d1"));
  EXPECT_THAT(column(lines, "score"), ElementsAre("9", "3", "4", "1"));
  EXPECT_EQ(lines[1]["consensus"], 4.0);
  EXPECT_EQ(lines[1]["thought"], "It is about 3.");
  EXPECT_EQ(lines[2]["thought"], "It is about 4.");
  EXPECT_EQ(lines[0]["query"], "query 0");
  EXPECT_EQ(lines[0]["text"], "[score 9]");

  const base::Json report = base::parse_json(o.out, "report");
  EXPECT_EQ(report["requests"], 15);
  EXPECT_EQ(report["sent"], 15);
  EXPECT_EQ(report["used"], 12);
  EXPECT_EQ(report["unformatted"], 3);
  EXPECT_EQ(report["labelled"], 4);
  EXPECT_EQ(report["histogram"], (base::Json{0, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0}));
  EXPECT_EQ(report["prompt_tokens"], 1500);
  EXPECT_EQ(report["cost"], (1500 * 2.0 + 150 * 10.0) / 1e6);
  EXPECT_EQ(report["models"]["teacher-1"], 15);
  // q0: labels give d0, d2, d1; the consensus of d1 is 4 as d2's, and the first stage has d1
  // before.
  const double ideal = 2 + 1 / std::log2(3.0), made = 2 + 1 / std::log2(4.0);
  EXPECT_NEAR(report["ndcg"]["label"].get<double>(), (made / ideal + 1) / 2, 1e-12);
  EXPECT_NEAR(report["ndcg"]["consensus"].get<double>(), 1, 1e-12);
  EXPECT_NEAR(report["ndcg"]["first_stage"].get<double>(), 1, 1e-12);
  EXPECT_EQ(report["grades"]["1"], (base::Json{{"pairs", 2}, {"mean", 2.0}}));

  const Outcome trained = run({"train", "sft", "--model", tiny_model(), "--data", path("p.jsonl"),
                               "--max-steps", "1", "--max-doc-tokens", "32", "--out", path("run")});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
}

TEST_F(TinySynth, AsksNothingTwiceAfterAKill) {
  // The first six are answered, the others are under way when the program is killed.
  std::vector<std::string> texts;
  for (int i = 0; i < 6; ++i) texts.push_back("[n " + std::to_string(i) + "]");
  for (int i = 0; i < 4; ++i) texts.push_back("[hold] [n " + std::to_string(i) + "]");
  put_candidates({texts});
  const auto all = args({"--samples", "1", "--concurrency", "4"});
  const pid_t pid = start(all);
  // It keeps what has come in before it sends more, and has four under way at most.
  for (int i = 0; i < 6000 && server.requests().size() < 10; ++i) ::usleep(10000);
  ::kill(pid, SIGKILL);
  EXPECT_EQ(finish(pid).exit_code, -1);
  ASSERT_EQ(server.requests().size(), 10u);
  EXPECT_FALSE(base::file_exists(path("p.jsonl")));
  server.release();
  const Outcome o = run(args({"--samples", "1", "--concurrency", "4", "--resume"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(pairs().size(), 10u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(requests("[n " + std::to_string(i) + "]"), 1) << i;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(requests("[hold] [n " + std::to_string(i) + "]"), 2) << i;
}

TEST_F(TinySynth, KilledTenTimesEndsWithTheLabelsOfAnUnbrokenRun) {
  std::vector<std::vector<std::string>> queries(4);
  for (size_t q = 0; q < 4; ++q)
    for (int d = 0; d < 10; ++d)
      queries[q].push_back("[score " + std::to_string((q + 3 * d) % 11) + "] [slowx3 0.05] [n " +
                           std::to_string(q) + " " + std::to_string(d) + "]");
  put_candidates(queries);
  constexpr int kConcurrency = 3;
  base::Random random(3);
  int landed = 0;
  for (int i = 0; i < 10; ++i) {
    const auto num_sent = [&] {
      int sum = 0;
      for (const auto& [mark, count] : server.counts()) sum += count;
      return sum;
    };
    const int enough = num_sent() + 2 + static_cast<int>(random.below(4));
    const pid_t pid = start(args({"--concurrency", "3", "--samples", "2", "--resume"}));
    for (int wait = 0; wait < 2000 && num_sent() < enough; ++wait) ::usleep(10000);
    ::usleep(static_cast<useconds_t>(30000 * random.uniform()));
    ::kill(pid, SIGKILL);
    landed += finish(pid).exit_code == -1;
  }
  EXPECT_GE(landed, 5);
  const Outcome o = run(args({"--concurrency", "3", "--samples", "2", "--resume", "--json"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_LT(base::parse_json(o.out, "report")["sent"].get<int>(), 80) << "no kill met work";
  const auto lines = pairs();
  ASSERT_EQ(lines.size(), 40u);
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(lines[i]["score"], (i / 10 + 3 * (i % 10)) % 11) << i;
  // Each request once for a sample, and again only where it was under way at a kill.
  int repeated = 0;
  for (const auto& [mark, count] : server.counts()) {
    EXPECT_GE(count, 2) << mark;
    repeated += count - 2;
  }
  EXPECT_LE(repeated, landed * kConcurrency);
}

TEST_F(TinySynth, ReportsWhatFailedAndTriesItAgainWhenResumed) {
  put_candidates({{"[score 1]", "[500x3] [score 2]", "[nojson]"}});
  const Outcome o = run(args({"--samples", "1", "--retries", "1"}));
  EXPECT_EQ(o.exit_code, 2);
  EXPECT_THAT(o.err,
              AllOf(HasSubstr("erank: query q0, document d1: status 500: not now (sent 2 times)\n"),
                    HasSubstr("erank: query q0, document d2: the reply is no JSON object"),
                    HasSubstr("2 of 3 requests failed; --resume sends them again")));
  EXPECT_THAT(o.out, HasSubstr("1 of 3 answered, 2 failed"));
  EXPECT_EQ(pairs().size(), 1u);
  const Outcome again = run(args({"--samples", "1", "--retries", "1", "--resume"}));
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_EQ(pairs().size(), 2u);
  EXPECT_EQ(requests("[score 1]"), 1);
  EXPECT_EQ(requests("[500x3] [score 2]"), 4);
  EXPECT_EQ(requests("[nojson]"), 2);
  // More samples of the same: only what is new is asked.
  EXPECT_EQ(run(args({"--samples", "2", "--retries", "0", "--resume"})).exit_code, 2);
  EXPECT_EQ(requests("[score 1]"), 2);
  EXPECT_EQ(requests("[500x3] [score 2]"), 5);
}

TEST_F(TinySynth, KeepsTheKeyToItself) {
  put_candidates({{"[echo]", "[score 3]", "[404]"}});
  const Outcome o = run(args({"--concurrency", "1", "--samples", "1"}));
  EXPECT_EQ(o.exit_code, 2);
  EXPECT_THAT(o.err, AllOf(HasSubstr("Bearer [key]"), HasSubstr("status 404")));
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 2);
  for (const auto& request : server.requests()) EXPECT_EQ(request["authorized"], true);
  put_candidates({{"[401]"}});
  const Outcome refused = run(args({"--overwrite"}));
  expect_refused(refused, "status 401");
  size_t looked_at = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path(""))) {
    if (!entry.is_regular_file()) continue;
    ++looked_at;
    EXPECT_THAT(base::read_file(entry.path()), Not(HasSubstr(kKey))) << entry.path();
  }
  EXPECT_GE(looked_at, 3u);
  for (const auto& text : {o.out, o.err, refused.err, base::read_file(server.log())})
    EXPECT_THAT(text, Not(HasSubstr(kKey)));
}

TEST_F(TinySynth, TakesTheKeyFromTheVariableThatIsNamed) {
  put_candidates({{"a"}});
  expect_refused(run(args({"--api-key-env", "NO_SUCH_VARIABLE"})),
                 "no environment variable 'NO_SUCH_VARIABLE'");
  ::unsetenv("OPENAI_API_KEY");
  ASSERT_EQ(run(args()).exit_code, 0);
  for (const auto& request : server.requests()) EXPECT_EQ(request["authorized"], false);
}

TEST_F(TinySynth, InterruptedEndsWith130AndGoesOn) {
  std::vector<std::string> texts;
  for (int i = 0; i < 30; ++i) texts.push_back("[slowx9 0.2] [n " + std::to_string(i) + "]");
  put_candidates({texts});
  const pid_t pid = start(args({"--concurrency", "2", "--samples", "1"}));
  for (int i = 0; i < 6000 && server.answered().size() < 4; ++i) ::usleep(10000);
  ::kill(pid, SIGTERM);
  const Outcome stopped = finish(pid);
  EXPECT_EQ(stopped.exit_code, 130);
  EXPECT_THAT(stopped.err, HasSubstr("of 30 requests answered; go on with --resume"));
  EXPECT_FALSE(base::file_exists(path("p.jsonl")));
  const Outcome o = run(args({"--concurrency", "16", "--samples", "1", "--resume"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(pairs().size(), 30u);
  // What was under way came in before the end.
  EXPECT_EQ(server.requests().size(), 30u);
}

TEST_F(TinySynth, ResumesItsOwnJobAlone) {
  put_candidates({{"[score 1]", "[score 2]"}});
  ASSERT_EQ(run(args({"--samples", "1"})).exit_code, 0);
  expect_refused(run(args({"--samples", "1"})), "--resume goes on where it stopped");
  auto other = args({"--samples", "1", "--resume"});
  *std::find(other.begin(), other.end(), "teacher") = "pupil";
  expect_refused(run(other), "'model'");
  expect_refused(run(args({"--resume", "--temperature", "0.5"})), "'temperature'");
  expect_refused(run(args({"--resume", "--judge", "pairs"})), "'judge'");
  expect_refused(run(args({"--resume", "--body", "{\"top_p\": 0.5}"})), "'body'");
  // A finished job asks nothing, and may be looked at with judgements.
  put("qrels", "q0 0 d1 1\n");
  const Outcome again = run(args({"--samples", "1", "--resume", "--qrels", path("qrels")}));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.out, AllOf(HasSubstr("sent now 0"), HasSubstr("nDCG@10     labels 1.0000")));
  EXPECT_EQ(server.requests().size(), 2u);
  put_candidates({{"[score 1]", "[score 3]"}});
  expect_refused(run(args({"--samples", "1", "--resume"})), "'documents'");
  put_candidates({{"[score 1]", "[score 2]"}});
  ::unlink(path("p.jsonl.journal").c_str());
  expect_refused(run(args({"--samples", "1", "--resume"})), "has no journal");
}

TEST_F(TinySynth, JudgesPairsOfDocuments) {
  put_candidates({{"[worth 1]", "[worth 5]", "[worth 3]", "[worth 3]"}, {"[worth 1]"}});
  put("qrels", "q0 0 d1 1\n");
  const Outcome o = run(args({"--judge", "pairs", "--samples", "6", "--qrels", path("qrels")}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto lines = pairs();
  EXPECT_THAT(column(lines, "docid"), ElementsAre("d0", "d1", "d2", "d3"));
  EXPECT_EQ(lines[0]["score"], 0);
  EXPECT_EQ(lines[1]["score"], 10);
  EXPECT_GT(lines[2]["score"].get<double>(), 0);
  EXPECT_LT(lines[2]["score"].get<double>(), 10);
  EXPECT_EQ(lines[1]["wins"], 12);
  EXPECT_THAT(o.out, AllOf(HasSubstr("24 of 24 answered"), HasSubstr("nDCG@10     labels 1.0000"),
                           HasSubstr("of 24 comparisons")));
  const Outcome trained = run({"train", "sft", "--model", tiny_model(), "--data", path("p.jsonl"),
                               "--dry-run", "--max-doc-tokens", "32"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
}

TEST_F(TinySynth, SendsWhatTheFlagsSay) {
  put_candidates({{"a", "b"}});
  ASSERT_EQ(run(args({"--samples", "1", "--top", "1", "--temperature", "0.25", "--max-tokens", "77",
                      "--body", "{\"top_p\": 0.5, \"max_tokens\": null}"}))
                .exit_code,
            0);
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0]["body"], (base::Json{{"model", "teacher"},
                                             {"messages", nullptr},
                                             {"temperature", 0.25},
                                             {"top_p", 0.5},
                                             {"stream", false}}));
}

TEST_F(TinySynth, CountsBeforeItSends) {
  put_candidates({{"a", "b"}, {"c"}});
  const std::vector<std::string> dry = {"synth",       "--candidates", path("c.jsonl"),
                                        "--tokenizer", tiny_model(),   "--dry-run",
                                        "--json",      "--price-in",   "0",
                                        "--price-out", "1000000",      "--samples",
                                        "2",           "--max-tokens", "10"};
  const Outcome o = run(dry);
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const base::Json json = base::parse_json(o.out, "dry run");
  EXPECT_EQ(json["requests"], 6);
  EXPECT_EQ(json["max_completion_tokens"], 60);
  EXPECT_EQ(json["max_cost"], 60.0);
  EXPECT_EQ(json["prompt_tokens"], 6 * 481);  // the tiny model's tokens are bytes
  EXPECT_THAT(files(), ElementsAre("c.jsonl", "tiny"));
}

TEST_F(TinySynth, RefusesWhatCannotBeDone) {
  put_candidates({{"a"}});
  const std::vector<std::string> input = {"synth", "--candidates", path("c.jsonl"), "--tokenizer",
                                          tiny_model()};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), input.begin(), input.end());
    return run(more);
  };
  expect_refused(run({"synth"}), "[synth] nothing to label");
  expect_refused(with({}), "--endpoint URL is missing");
  expect_refused(with({"--endpoint", "http://h"}), "--model NAME is missing");
  expect_refused(with({"--endpoint", "http://h", "--model", "m"}), "--out FILE is missing");
  expect_refused(with({"--endpoint", "h:80", "--model", "m", "--out", path("o")}),
                 "no URL of a server");
  expect_refused(with({"--endpoint", "http://h", "--model", "m", "--out", "/dev/null"}),
                 "is a stream");
  expect_refused(
      with({"--endpoint", "http://h", "--model", "m", "--out", path("c.jsonl"), "--overwrite"}),
      "c.jsonl");
  expect_refused(run(args({"--body", "[1]"})), "no JSON object");
  expect_refused(run(args({"--body", "{\"stream\": true}"})), "'stream'");
  expect_refused(run(args({"--samples", "0"})), "--samples");
  expect_refused(run(args({"--timeout", "nan"})), "--timeout");
  put("qrels", "other 0 d1 1\n");
  expect_refused(run(args({"--qrels", path("qrels")})), "judges none of the queries");
  put_candidates({{"[prose]"}});
  expect_refused(run(args({})), "no pair has a label");
  EXPECT_FALSE(base::file_exists(path("p.jsonl")));
}

// A real server with a real model, llama.cpp's of tools/peers.
class SlowSynth : public Program {
 protected:
  void SetUp() override {
    const std::string cache = base::cache_folder();
    std::string server;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(cache + "/peers", none))
      if (const auto at = entry.path() / "bin/llama-server"; std::filesystem::exists(at))
        server = at;
    const std::string model = cache + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (server.empty())
      GTEST_SKIP() << "no llama-server under " << cache << "/peers; tools/peers llama.cpp makes it";
    if (!base::file_exists(model)) GTEST_SKIP() << "no " << model << "; tools/setup fetches it";
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(listener);
    const std::string port = std::to_string(ntohs(address.sin_port)), log = path("server.log");
    pid_ = ::fork();
    if (pid_ == 0) {
      const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(out, 1), ::dup2(out, 2);
      ::execl(server.c_str(), server.c_str(), "-m", model.c_str(), "--host", "127.0.0.1", "--port",
              port.c_str(), "-c", "8192", "-np", "2", nullptr);
      ::_exit(127);
    }
    bool there = false;  // loading still: it says 503, and that is waited for
    for (int i = 0; i < 600 && !there; ++i, ::usleep(100000)) {
      const int client = ::socket(AF_INET, SOCK_STREAM, 0);
      there = ::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
      ::close(client);
    }
    ASSERT_TRUE(there) << base::read_file(log);
    url_ = "http://127.0.0.1:" + port;
    ::setenv("no_proxy", "127.0.0.1", 1);
    put("c.jsonl",
        "{\"qid\": \"sky\", \"query\": \"why is the sky blue\", \"hits\": ["
        "{\"docid\": \"a\", \"text\": \"Air scatters blue light more than red.\"},"
        "{\"docid\": \"b\", \"text\": \"The sea mirrors the blue sky.\"},"
        "{\"docid\": \"c\", \"text\": \"Bread rises because yeast makes gas.\"}]}\n");
  }
  void TearDown() override {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  // The report of labelling with these flags.
  base::Json label(const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> args = {
        "synth", "--candidates", path("c.jsonl"), "--tokenizer",   tiny_model(), "--endpoint",
        url_,    "--model",      "smollm2",       "--concurrency", "2",          "--samples",
        "2",     "--json",       "--out",         path(out)};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome o = run(args);
    EXPECT_EQ(o.exit_code, 0) << o.err << base::read_file(path("server.log"));
    return o.exit_code == 0 ? base::parse_json(o.out, "report") : base::Json();
  }
  std::string url_;
  pid_t pid_ = -1;
};

// The model is far too small to judge; a grammar makes it answer in the form that is asked for.
TEST_F(SlowSynth, LabelsWithALlamaServerAndTrainsOnIt) {
  const std::string points =
      R"raw({"grammar": "root ::= \"<think>\" [A-Za-z ,]+ \".</think><answer>\" [0-9] \"</answer>\""})raw";
  const base::Json report = label("p.jsonl", {"--body", points, "--max-tokens", "400"});
  ASSERT_TRUE(report.is_object());
  EXPECT_EQ(report["answered"], 6);
  EXPECT_EQ(report["unformatted"], 0);
  EXPECT_GT(report["labelled"], 0);
  EXPECT_EQ(report["without_usage"], 0);
  EXPECT_GT(report["prompt_tokens"], 6 * 150);
  EXPECT_GT(report["completion_tokens"], 6 * 10);
  for (const auto& pair : json_lines(base::read_file(path("p.jsonl"))))
    EXPECT_TRUE(pair.contains("thought")) << pair;
  const Outcome trained = run({"train", "sft", "--model", tiny_model(), "--data", path("p.jsonl"),
                               "--max-steps", "1", "--max-doc-tokens", "64", "--out", path("run")});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;

  const std::string pairs =
      R"raw({"grammar": "root ::= \"<think>\" [a-z ]+ \".</think><answer>\" [0-2] \"</answer>\""})raw";
  const base::Json compared =
      label("q.jsonl", {"--judge", "pairs", "--body", pairs, "--max-tokens", "400"});
  ASSERT_TRUE(compared.is_object());
  EXPECT_EQ(compared["answered"], 6);
  EXPECT_GT(compared["labelled"], 0);
}

}  // namespace
}  // namespace erank::cli
