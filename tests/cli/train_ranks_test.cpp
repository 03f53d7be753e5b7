// Training by several processes, as mpirun starts them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/safetensors.h"
#include "tests/cli/program.h"
#include "tests/cli/wait_for_step.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

// Why ranks cannot be tested here; "": they can.
std::string reason_to_skip() {
  if (!fs::exists(std::string(ERANK_BINARY_DIR) + "/erank_mpi.so"))
    return "this build has no MPI (tools/setup --tests installs it)";
  if (std::system("command -v mpirun >/dev/null") != 0) return "no mpirun (openmpi-bin)";
  return "";
}

// Five queries with four pairs each, for both verbs.
class TinyRanks : public Program {
 protected:
  void SetUp() override {
    if (const std::string reason = reason_to_skip(); !reason.empty()) GTEST_SKIP() << reason;
    std::string pairs, lists, qrels;
    for (int q = 0; q < 5; ++q) {
      const std::string query = base::str("letter ", static_cast<char>('a' + q));
      base::OrderedJson list = {{"qid", base::str("q", q)}, {"query", query}};
      for (int d = 0; d < 4; ++d) {
        const std::string id = base::str("d", d),
                          text(static_cast<size_t>(5 + 3 * d + q), static_cast<char>('a' + d));
        list["hits"].push_back({{"docid", id}, {"text", text}});
        base::OrderedJson pair = {{"qid", base::str("q", q)},
                                  {"docid", id},
                                  {"query", query},
                                  {"text", text},
                                  {"score", q == d ? 10 : 1}};
        if (d == 1) pair["thought"] = "The letters differ.";
        pairs += pair.dump() + "\n";
      }
      lists += list.dump() + "\n";
      qrels += base::str("q", q, " 0 d", q % 4, " 1\n");
    }
    pairs_ = put("pairs.jsonl", pairs);
    candidates_ = put("candidates.jsonl", lists);
    qrels_ = put("qrels", qrels);
  }
  void ranks(int size) {
    launcher_.clear();
    if (size > 1)
      launcher_ = {"mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
                   "-n",     std::to_string(size)};
  }
  using Options = std::vector<std::pair<std::string, std::string>>;  // a flag has no value
  // `more` replaces what it names.
  std::vector<std::string> words(const std::string& verb, Options options, const Options& more) {
    for (const auto& [name, value] : more) {
      std::erase_if(options, [&](const auto& option) { return option.first == name; });
      options.emplace_back(name, value);
    }
    std::vector<std::string> all = {"train", verb};
    for (const auto& [name, value] : options) {
      all.push_back(name);
      if (!value.empty()) all.push_back(value);
    }
    return all;
  }
  std::vector<std::string> sft(const std::string& out, const Options& more = {}) {
    return words("sft",
                 {{"--model", model()},
                  {"--data", pairs_},
                  {"--out", path(out)},
                  {"--batch-size", "8"},
                  {"--group-size", "2"},
                  {"--epochs", "2"},
                  {"--precision", "fp32"},
                  {"--learning-rate", "0.01"},
                  {"--threads", "1"}},
                 more);
  }
  std::vector<std::string> grpo(const std::string& out, const Options& more = {}) {
    return words("grpo",
                 {{"--model", model()},
                  {"--candidates", candidates_},
                  {"--qrels", qrels_},
                  {"--out", path(out)},
                  {"--iterations", "3"},
                  {"--queries-per-iteration", "5"},
                  {"--mini-batch", "10"},
                  {"--precision", "fp32"},
                  {"--learning-rate", "0.001"},
                  {"--threads", "1"}},
                 more);
  }
  // The tiny model, which is made by one process.
  std::string model() {
    const auto launcher = std::exchange(launcher_, {});
    const std::string made = tiny_model();
    launcher_ = launcher;
    return made;
  }
  // The log's lines of steps and preparations.
  std::vector<base::Json> steps(const std::string& out) const {
    auto lines = json_lines(base::read_file(path(out + "/log.jsonl")));
    std::erase_if(lines, [](const auto& line) {
      return !line.contains("loss") && !line.contains("prepared");
    });
    return lines;
  }
  // Every number of both logs but those of time. The engine shares what prompts of all queries that
  // it is given have in common, so sampling computes more where there are more ranks.
  void expect_same_steps(const std::string& a, const std::string& b) const {
    const auto one = steps(a), two = steps(b);
    ASSERT_EQ(one.size(), two.size());
    for (size_t i = 0; i < one.size(); ++i)
      for (const auto& [key, value] : one[i].items()) {
        if (key.find("seconds") != key.npos || key.find("_per_s") != key.npos ||
            key == "share_of_gemm_peak" || key == "computed_per_needed")
          continue;
        const double scale = key == "loss" ? 1 : std::max(1.0, std::abs(number(value)));  // fp32
        EXPECT_NEAR(number(value), number(two[i].at(key)), 1e-5 * scale)
            << key << " of step " << one[i]["step"] << ", " << a << " and " << b;
      }
  }

  static double number(const base::Json& value) {
    return value.is_boolean() ? value.get<bool>() : value.get<double>();
  }

  std::string pairs_, candidates_, qrels_;
};

TEST_F(TinyRanks, FineTuningIsThatOfOneProcess) {
  for (const int size : {1, 2, 4}) {
    ranks(size);
    const Outcome outcome = run(sft(base::str("run", size), {{"--learning-rate", "0.001"},
                                                             {"--rank-loss", "margin"},
                                                             {"--rank-weight", "0.05"},
                                                             {"--validation", candidates_},
                                                             {"--validation-qrels", qrels_}}));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(lines_of(outcome.out).size(), 1u) << outcome.out;
  }
  EXPECT_EQ(steps("run1").size(), 6u);
  expect_same_steps("run1", "run2");
  expect_same_steps("run1", "run4");
}

TEST_F(TinyRanks, SampledRolloutsAndTheirStepsAreThoseOfOneProcess) {
  const Outcome formatted = run(sft("sft", {{"--epochs", "20"}, {"--full", ""}}));
  ASSERT_EQ(formatted.exit_code, 0) << formatted.err;
  const auto prepared = [&](int size, const char* name) {
    const auto file = data::SafetensorsFile::open(
        path(base::str("run", size, "/checkpoints/step-000001/prepared.safetensors")));
    for (const auto& info : file.tensors())
      if (info.name == name) {
        const auto bytes = file.bytes(info);
        return std::string(bytes.begin(), bytes.end());
      }
    return std::string();
  };
  for (const int size : {1, 2, 4}) {
    ranks(size);
    const Outcome outcome = run(grpo(base::str("run", size), {{"--model", path("sft")},
                                                              {"--rollouts", "3"},
                                                              {"--checkpoint-steps", "1"},
                                                              {"--keep-checkpoints", "9"}}));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  EXPECT_EQ(steps("run1").size(), 9u);  // with three preparations
  for (const int size : {2, 4}) {
    expect_same_steps("run1", base::str("run", size));
    for (const char* name :
         {"rollouts.tokens", "rollouts.lengths", "rollouts.scores", "reference.scores"}) {
      EXPECT_FALSE(prepared(1, name).empty()) << name;
      EXPECT_EQ(prepared(1, name), prepared(size, name)) << name << " of " << size;
    }
  }
  // A checkpoint of three in the middle of an iteration is resumed by two.
  Options options = {{"--model", path("sft")}, {"--rollouts", "3"}, {"--stop-after", "3"}};
  ranks(3);
  ASSERT_EQ(run(grpo("parts", options)).exit_code, 0);
  ranks(2);
  options.back() = {"--resume", ""};
  const Outcome resumed = run(grpo("parts", options));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  expect_same_steps("run1", "parts");
}

TEST_F(TinyRanks, AnotherNumberOfRanksGoesOn) {
  Options options = {{"--full", ""}, {"--learning-rate", "0.001"}};
  ASSERT_EQ(run(sft("whole", options)).exit_code, 0);
  ranks(3);
  options.emplace_back("--stop-after", "2");
  ASSERT_EQ(run(sft("parts", options)).exit_code, 0);
  ranks(2);
  options.back() = {"--resume", ""};
  const Outcome resumed = run(sft("parts", options));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_TRUE(fs::exists(path("parts/model.safetensors")));
  expect_same_steps("whole", "parts");
}

// The name begins with Slow: Slurm is of `tools/setup --scale`.
using SlowSlurmRanks = TinyRanks;

TEST_F(SlowSlurmRanks, AreThoseOfOneProcess) {
  if (!fs::exists("/usr/sbin/slurmctld") || !fs::exists("/usr/sbin/slurmd"))
    GTEST_SKIP() << "Slurm is not installed; tools/setup --scale installs it";
  if (::geteuid() != 0) GTEST_SKIP() << "a Slurm of one node needs root";
  const Options options = {
      {"--rank-loss", "margin"}, {"--rank-weight", "0.05"}, {"--learning-rate", "0.001"}};
  ASSERT_EQ(run(sft("run1", options)).exit_code, 0);
  launcher_ = {ERANK_SOURCE_DIR "/tests/cli/one_node_slurm.sh",
               path("slurm"),
               "srun",
               "--mpi=pmix",
               "--kill-on-bad-exit=1",
               "--overcommit",
               "-n",
               "2"};
  const Outcome outcome = run(sft("run2", options));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(lines_of(outcome.out).size(), 1u) << outcome.out;
  launcher_.clear();
  expect_same_steps("run1", "run2");
}

TEST_F(TinyRanks, AnErrorOnEveryRankIsOneLine) {
  ranks(3);
  const Outcome refused = run(sft("none", {{"--data", path("missing.jsonl")}}));
  EXPECT_EQ(refused.exit_code, 2);
  int lines = 0;
  for (const auto& line : lines_of(refused.err)) lines += line.find("missing.jsonl") != line.npos;
  EXPECT_EQ(lines, 1) << refused.err;
  EXPECT_FALSE(fs::exists(path("none")));
}

TEST_F(TinyRanks, ABuildWithoutMpiRefuses) {
  fs::copy_file(std::string(ERANK_BINARY_DIR) + "/erank", path("erank"));
  const auto args = sft("none");
  launcher_ = {"bash", "-c", "OMPI_COMM_WORLD_SIZE=2 exec '" + path("erank") + "' \"$@\""};
  const Outcome outcome = run(args);  // the built program's path is bash's $0
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("this build has no MPI"));
}

class LostRanks : public TinyRanks {
 protected:
  // Processes of mpirun's job, by rank.
  static std::vector<pid_t> find_ranks(pid_t launcher, size_t size) {
    std::vector<pid_t> pids(size, 0);
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != name.npos) continue;
      try {
        const std::string stat = base::read_file(entry.path() / "stat"),
                          environment = base::read_file(entry.path() / "environ");
        if (stat.find(base::str(" ", launcher, " "), stat.find(')')) == stat.npos) continue;
        constexpr std::string_view kRank = "OMPI_COMM_WORLD_RANK=";
        if (const size_t at = environment.find(kRank); at != environment.npos)
          pids.at(std::stoul(environment.substr(at + kRank.size()))) = std::stoi(name);
      } catch (const std::exception&) {  // it has ended
      }
    }
    return pids;
  }
  // Sends `signal` to rank 1 after the first checkpoint -> the outcome and its seconds after it.
  std::pair<Outcome, double> lose_a_rank(int signal) {
    ranks(2);
    const pid_t launcher = start(sft("lost", endless_));
    wait_for_step(path("lost"), 3);
    const pid_t rank = find_ranks(launcher, 2)[1];
    EXPECT_GT(rank, 0);
    const auto lost = Clock::now();
    if (rank > 0) ::kill(rank, signal);
    const Outcome outcome = finish(launcher);
    return {outcome, std::chrono::duration<double>(Clock::now() - lost).count()};
  }
  void expect_goes_on() {
    ranks(2);
    Options options = endless_;
    options.insert(options.end(), {{"--resume", ""}, {"--stop-after", "2"}});
    const Outcome resumed = run(sft("lost", options));
    EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_THAT(resumed.err, Not(HasSubstr("starting from the first step")));
    EXPECT_THAT(resumed.err, Not(HasSubstr("damaged")));
  }

 private:
  const Options endless_ = {
      {"--epochs", "5000"}, {"--checkpoint-steps", "1"}, {"--precision", "auto"}};
};
using TinyLostRanks = LostRanks;
using SlowLostRanks = LostRanks;  // 20 s without a sign of life

TEST_F(TinyLostRanks, AKilledRankEndsTheJobAndItGoesOn) {
  const auto [outcome, seconds] = lose_a_rank(SIGKILL);
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(seconds, 30);
  EXPECT_THAT(outcome.err, HasSubstr("rank 1"));
  expect_goes_on();
}

TEST_F(SlowLostRanks, ARankThatAnswersNoMoreEndsTheJobAndItGoesOn) {
  const auto [outcome, seconds] = lose_a_rank(SIGSTOP);
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(seconds, 30);
  EXPECT_THAT(outcome.err, HasSubstr("rank 1 has given no sign of life for 20 s"));
  expect_goes_on();
}

TEST_F(TinyLostRanks, ASignalToOneRankStopsAllWithACheckpoint) {
  const auto [outcome, seconds] = lose_a_rank(SIGTERM);
  EXPECT_LT(seconds, 30);
  EXPECT_THAT(outcome.err, HasSubstr("go on with --resume"));
}

}  // namespace
}  // namespace erank::cli
