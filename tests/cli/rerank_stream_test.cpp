// `erank rerank --candidates - --out -` as a process that a driver keeps: lines in, answers out.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>
#include <utility>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// A process with pipes on both sides.
class Worker {
 public:
  Worker(std::vector<std::string> args, const std::string& errors) {
    args.insert(args.begin(), std::string(ERANK_BINARY_DIR) + "/erank");
    std::vector<char*> argv;
    for (const auto& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    int in[2], out[2];
    EXPECT_EQ(::pipe2(in, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::dup2(::open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    in_ = in[1], out_ = out[0];
  }
  ~Worker() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    if (pid_ > 0) wait();
    close_in();
    close_out();
  }

  void write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t n = ::write(in_, text.data(), text.size());
      ASSERT_GT(n, 0);
      text.remove_prefix(static_cast<size_t>(n));
    }
  }
  void close_in() { close(in_); }
  void close_out() { close(out_); }

  // The next line, "" at the end or when none comes in a minute.
  std::string line() {
    for (;;) {
      if (const size_t end = read_.find('\n'); end != read_.npos) {
        std::string line = read_.substr(0, end);
        read_.erase(0, end + 1);
        return line;
      }
      pollfd ready{out_, POLLIN, 0};
      if (::poll(&ready, 1, 60000) != 1) return "";
      char piece[65536];
      const ssize_t n = ::read(out_, piece, sizeof piece);
      if (n <= 0) return "";
      read_.append(piece, static_cast<size_t>(n));
    }
  }
  std::string rest() {
    std::string all;
    for (std::string next; !(next = line()).empty();) all += next + "\n";
    return all;
  }

  void signal(int number) const { ::kill(pid_, number); }
  // The exit code, or minus the signal that ended it.
  int wait() {
    int status = 0;
    const pid_t pid = std::exchange(pid_, -1);
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  // Its memory in KiB: "VmRSS", "VmHWM".
  int64_t memory(const std::string& what) const {
    std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with(what + ":")) return std::atoll(line.c_str() + what.size() + 1);
    return -1;
  }

 private:
  static void close(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
  std::string read_;
};

// A query with `num` documents, of which all have `padding` more characters.
std::string query_line(const std::string& qid, int num, size_t padding = 0) {
  std::string hits;
  for (int i = 0; i < num; ++i)
    hits += (i ? ", " : "") +
            ("{\"docid\": \"d" + std::to_string(i) + "\", \"text\": \"" + std::to_string(i * 7) +
             " of " + qid + std::string(padding, 'x')) +
            "\"}";
  return "{\"qid\": \"" + qid + "\", \"query\": \"what is " + qid + "\", \"hits\": [" + hits +
         "]}\n";
}

class TinyRerankStream : public Program {
 protected:
  Worker worker(std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"--candidates", "-", "--out", "-", "--direct"};
    args.insert(args.end(), more.begin(), more.end());
    return {rerank_args(args), path("errors")};
  }
  std::string errors() const { return base::read_file(path("errors")); }
  // What the same queries give when they lie in a file.
  std::string from_file(const std::string& lines) {
    const Outcome o = rerank({"--candidates", put("candidates.jsonl", lines), "--direct"});
    EXPECT_EQ(o.exit_code, 0) << o.err;
    return o.out;
  }
};

TEST_F(TinyRerankStream, AnswersALineBeforeTheNextOneIsWritten) {
  Worker worker = this->worker();
  std::string lines, answers;
  for (int i = 0; i < 5; ++i) {
    const std::string line = query_line("q" + std::to_string(i), 3);
    worker.write(line);
    lines += line;
    for (int hit = 0; hit < 3; ++hit) {
      const std::string answer = worker.line();
      ASSERT_THAT(answer, HasSubstr("\"qid\":\"q" + std::to_string(i) + "\""));
      answers += answer + "\n";
    }
  }
  // A piece of a line is no line yet.
  const std::string line = query_line("last", 1);
  worker.write(line.substr(0, 20));
  worker.write(line.substr(20));
  answers += worker.line() + "\n";
  worker.close_in();
  EXPECT_EQ(worker.rest(), "");
  EXPECT_EQ(worker.wait(), 0);
  EXPECT_THAT(errors(), HasSubstr("erank: 16 pairs"));
  expect_same_results(answers, from_file(lines + line));
}

TEST_F(TinyRerankStream, KeepsTheOrderOfWhatIsWrittenAndItsMemory) {
  constexpr int kQueries = 1500, kFirst = 300, kHits = 4;
  constexpr size_t kPadding = 16000;  // 77 MB after the first
  Worker worker = this->worker({"--quiet", "--max-doc-tokens", "8", "--kv-cache-bytes", "8000000"});
  std::thread writer([&] {
    for (int i = 0; i < kQueries; ++i)
      worker.write(query_line("q" + std::to_string(i), kHits, kPadding));
  });
  int64_t before = 0;
  for (int i = 0; i < kQueries; ++i) {
    if (i == kFirst) before = worker.memory("VmHWM");
    for (int hit = 0; hit < kHits; ++hit)
      EXPECT_THAT(worker.line(), HasSubstr("\"qid\":\"q" + std::to_string(i) + "\""));
  }
  writer.join();
  EXPECT_GT(before, 0);
  EXPECT_LT(worker.memory("VmHWM") - before, 24 << 10);
  worker.close_in();
  EXPECT_EQ(worker.wait(), 0);
}

TEST_F(TinyRerankStream, ABadLineEndsItAfterTheAnswersOfThoseBefore) {
  const std::string good = query_line("a", 2) + "\n" + query_line("b", 3);
  for (const auto& [bad, part] : std::vector<std::pair<std::string, std::string>>{
           {"{\"qid\": \"c\"", "stdin:4: "},
           {"[1]", "stdin:4: "},
           {"{\"query\": \"c\", \"hits\": [{\"docid\": \"x\"}]}", "stdin:4: hits[0]"},
           {"{\"query\": \"c\"}", "stdin:4: expected an array 'hits'"}}) {
    Worker worker = this->worker({"--quiet"});
    worker.write(good + bad + "\n" + query_line("d", 2));
    expect_same_results(worker.rest(), from_file(good));
    EXPECT_EQ(worker.wait(), 2);
    EXPECT_THAT(errors(), HasSubstr(part));
    EXPECT_EQ(lines_of(errors()).size(), 1u) << errors();
  }
  Worker worker = this->worker({"--quiet", "--hybrid", "zscore:0.2"});
  worker.write(query_line("a", 2));
  EXPECT_EQ(worker.rest(), "");
  EXPECT_EQ(worker.wait(), 2);
  EXPECT_THAT(errors(), HasSubstr("stdin:1: query a, document d0 has no first-stage score"));
}

TEST_F(TinyRerankStream, WhatCannotBeScoredIsAnsweredWithAnError) {
  Worker worker = this->worker({"--quiet", "--kv-cache-bytes", "1000000"});
  worker.write(query_line("a", 2, 3000));
  for (int hit = 0; hit < 2; ++hit)
    EXPECT_EQ(base::parse_json(worker.line(), "answer")["error"]["kind"], "no_room");
  worker.write(query_line("b", 2));
  for (int hit = 0; hit < 2; ++hit) EXPECT_THAT(worker.line(), Not(HasSubstr("error")));
  worker.close_in();
  EXPECT_EQ(worker.wait(), 2);
  EXPECT_THAT(errors(), HasSubstr("2 of 4 pairs could not be scored"));
}

TEST_F(TinyRerankStream, AQueryMayComeAgainAndOneWithoutHitsGivesNoLine) {
  Worker worker = this->worker({"--quiet"});
  worker.write(query_line("a", 1) + query_line("none", 0) + query_line("a", 1));
  worker.close_in();
  const auto answers = json_lines(worker.rest());
  EXPECT_THAT(column(answers, "qid"), ElementsAre("a", "a"));
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_EQ(worker.wait(), 0);
  EXPECT_THAT(errors(), HasSubstr("1 query has no candidates and no result: none"));
}

TEST_F(TinyRerankStream, OneThatIsKilledIsReplacedByAnotherWithWhatIsNotAnswered) {
  std::vector<std::string> queries;
  std::string lines, answers;
  for (int i = 0; i < 40; ++i) lines += queries.emplace_back(query_line(std::to_string(i), 2));
  {
    Worker worker = this->worker();
    worker.write(lines);
    for (int line = 0; line < 14; ++line) answers += worker.line() + "\n";
    worker.signal(SIGKILL);
    EXPECT_EQ(worker.wait(), -SIGKILL);
  }
  Worker worker = this->worker();
  for (size_t i = 7; i < queries.size(); ++i) worker.write(queries[i]);
  worker.close_in();
  answers += worker.rest();
  EXPECT_EQ(worker.wait(), 0);
  expect_same_results(answers, from_file(lines));
}

TEST_F(TinyRerankStream, EndsWithoutAWordWhenItsReaderHasGone) {
  Worker worker = this->worker({"--quiet"});
  worker.write(query_line("a", 1));
  EXPECT_NE(worker.line(), "");
  worker.close_out();
  worker.write(query_line("b", 1));
  EXPECT_EQ(worker.wait(), -SIGPIPE);
  EXPECT_EQ(errors(), "");
}

TEST_F(TinyRerankStream, ASignalEndsItWhileItWaits) {
  Worker worker = this->worker({"--quiet"});
  worker.write(query_line("a", 1));
  EXPECT_NE(worker.line(), "");
  worker.signal(SIGTERM);
  EXPECT_EQ(worker.wait(), 130);
}

TEST_F(TinyRerankStream, ReadsTheOtherFormsOfCandidatesToo) {
  const std::string expected = from_file(query_line("a", 2) + query_line("b", 1));
  const std::string array = "[\n" + query_line("a", 2) + ",\n" + query_line("b", 1) + "]";
  const std::string table =
      "a\td0\twhat is a\t0 of a\na\td1\twhat is a\t7 of a\nb\td0\twhat is b\t0 of b\n";
  for (const auto& input : {array, table}) {
    Worker worker = this->worker({"--quiet"});
    worker.write(input.substr(0, 3));
    worker.write(input.substr(3));
    worker.close_in();
    expect_same_results(worker.rest(), expected);
    EXPECT_EQ(worker.wait(), 0) << errors();
  }
  Worker trec = this->worker({"--quiet", "--format", "trec"});
  trec.write(query_line("a", 1));
  EXPECT_THAT(trec.line(), HasSubstr("a Q0 d0 1 "));
}

}  // namespace
}  // namespace erank::cli
