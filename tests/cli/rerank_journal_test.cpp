#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "erank/base/files.h"
#include "erank/base/random.h"
#include "tests/cli/program.h"
#include "tests/exact_bits.h"

namespace erank::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// A job of about a second: 5 queries with 30 documents each.
class TinyRerankJournal : public Program {
 protected:
  std::vector<std::string> job(const std::string& out, const std::string& how = "") {
    if (!base::file_exists(path("c.jsonl"))) {
      std::string lists;
      for (int q = 0; q < 5; ++q) {
        lists += "{\"qid\": \"q" + std::to_string(q) + "\", \"query\": \"query " +
                 std::string(q + 1, 'x') + "\", \"hits\": [";
        for (int d = 0; d < 30; ++d)
          lists += std::string(d ? ", " : "") + "{\"docid\": \"d" + std::to_string(d) +
                   "\", \"text\": \"text " + std::string(d * 7 % 40, 'a' + d % 26) +
                   "\", \"score\": " + std::to_string(50 - d) + "}";
        lists += "]}\n";
      }
      put("c.jsonl", lists);
    }
    auto args = rerank_args({"--candidates", path("c.jsonl"), "--think", "--max-think-tokens", "8",
                             "--precision", kExactBits ? "bf16" : "fp32", "--hybrid", "zscore:0.3",
                             "--out", out});
    if (!how.empty()) args.push_back(how);
    return args;
  }
};

TEST_F(TinyRerankJournal, ARunKilledTwentyTimesEndsWithTheBytesOfAnUnbrokenOne) {
  const std::string whole = path("whole.jsonl"), broken = path("broken.jsonl");
  const auto args = job(whole);
  const auto begin = Clock::now();
  const Outcome unbroken = run(args);
  std::chrono::duration<double> seconds = Clock::now() - begin;
  ASSERT_EQ(unbroken.exit_code, 0) << unbroken.err;
  const std::string expected = base::read_file(whole);
  ASSERT_EQ(lines_of(expected).size(), 150u);

  base::Random random(20);
  int landed = 0, mid_run = 0;
  for (int kill_number = 0; kill_number < 20; ++kill_number) {
    // A run that came to its end starts over, so that every kill meets work.
    if (base::file_exists(broken)) {
      expect_same_results(base::read_file(broken), expected);
      ::unlink(broken.c_str());
    }
    const pid_t pid = start(job(broken, "--resume"));
    std::this_thread::sleep_for(seconds * (0.05 + 0.9 * random.uniform()));
    ::kill(pid, SIGKILL);
    const bool killed = finish(pid).exit_code == -1;
    landed += killed;
    mid_run += base::file_exists(broken + ".journal");
    // A machine that others use is not always as fast as for the unbroken run.
    if (!killed) seconds *= 0.7;
    if (killed && !base::file_exists(broken + ".journal")) seconds *= 1.5;
  }
  EXPECT_GE(landed, 5) << "the last kills came within " << seconds.count() << " s";
  EXPECT_GE(mid_run, 3);
  const Outcome last = run(job(broken, "--resume"));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  expect_same_results(base::read_file(broken), expected);

  std::set<std::string> pairs;
  for (const auto& line : json_lines(base::read_file(broken)))
    EXPECT_TRUE(
        pairs.insert(line["qid"].get<std::string>() + " " + line["docid"].get<std::string>())
            .second);
  EXPECT_EQ(pairs.size(), 150u);
  EXPECT_THAT(files(), ElementsAre("broken.jsonl", "broken.jsonl.made.json", "c.jsonl", "tiny",
                                   "whole.jsonl", "whole.jsonl.made.json"));
}

TEST_F(TinyRerankJournal, AnInterruptedRunEndsWith130AndGoesOn) {
  const std::string out = path("out.jsonl"), whole = path("whole.jsonl");
  const auto begin = Clock::now();
  ASSERT_EQ(run(job(whole)).exit_code, 0);
  const auto time = Clock::now() - begin;
  Outcome stopped;
  double part = 0.6;
  for (int trial = 0; trial < 20 && stopped.exit_code != 130; ++trial) {
    ::unlink(out.c_str());
    const pid_t pid = start(job(out, "--resume"));
    std::this_thread::sleep_for(time * part);
    ::kill(pid, SIGINT);
    stopped = finish(pid);
    // When it had done its work, or before the program was ready for signals.
    if (base::file_exists(out))
      stopped = {}, part *= 0.7;
    else if (stopped.exit_code == -1)
      part *= 1.5;
  }
  ASSERT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("interrupted"));
  EXPECT_FALSE(base::file_exists(out));
  const Outcome resumed = run(job(out, "--resume"));
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  expect_same_results(base::read_file(out), base::read_file(whole));
}

// A write beyond `ulimit -f` fails like one to a full disk, wherever it is: the journal's file,
// what is committed to it, the output itself.
TEST_F(TinyRerankJournal, AFileOverTheShellsLimitIsOneLine) {
  const auto args = job(path("o.jsonl"));
  const auto with_limit = [&](int kilobytes, std::vector<std::string> words) {
    launcher_ = {"bash", "-c", "ulimit -f " + std::to_string(kilobytes) + " && exec \"$@\"",
                 "bash"};
    const Outcome outcome = run(words);
    launcher_.clear();
    return outcome;
  };
  expect_refused(with_limit(1, args), "File too large");
  const Outcome committed = with_limit(60, args);
  expect_refused(committed, "o.jsonl.journal: disk I/O error; is the disk damaged, or the file");
  EXPECT_FALSE(base::file_exists(path("o.jsonl")));
  auto plain = args;
  plain.erase(std::find(plain.begin(), plain.end(), "--out"), plain.end());
  const Outcome streamed = with_limit(20, plain);
  EXPECT_EQ(streamed.exit_code, 2);
  EXPECT_THAT(lines_of(streamed.err),
              ElementsAre(HasSubstr("stdout: cannot write: File too large")));
  EXPECT_EQ(streamed.out.size(), 20u << 10);

  // What was committed before is there for --resume.
  const Outcome resumed = run(job(path("o.jsonl"), "--resume"));
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(lines_of(base::read_file(path("o.jsonl"))).size(), 150u);
}

TEST_F(TinyRerankJournal, BelongsToOneJobAlone) {
  const std::string out = path("out.jsonl");
  // An interrupted run leaves its journal.
  const pid_t pid = start(job(out));
  for (int i = 0; i < 30000 && !base::file_exists(out + ".journal"); ++i) ::usleep(2000);
  ::kill(pid, SIGINT);
  finish(pid);
  if (!base::file_exists(out + ".journal")) GTEST_SKIP() << "the run was over before the signal";
  expect_refused(run(job(out)), "--resume");
  const std::string lists = base::read_file(path("c.jsonl"));
  std::string other = lists;
  other.replace(other.find("query x"), 7, "query y");  // of equal size
  put("c.jsonl", other);
  expect_refused(run(job(out, "--resume")), "'queries'");
  put("c.jsonl", lists);
  // Another model in the first one's place.
  const std::string weights = tiny_model() + "/model.safetensors";
  const std::string trained = base::read_file(weights);
  ASSERT_EQ(
      run({"model", "random", "--shape", "tiny", "--seed", "2", "--out", path("m")}).exit_code, 0);
  put("tiny/model.safetensors", base::read_file(path("m") + "/model.safetensors"));
  expect_refused(run(job(out, "--resume")), "'weights'");
  put("tiny/model.safetensors", trained);
  EXPECT_EQ(run(job(out, "--resume")).exit_code, 0);
}

}  // namespace
}  // namespace erank::cli
