#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "tests/cli/program.h"
#include "tests/cli/wait_for_step.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

// Five queries with four documents each, one of them relevant; a sixth query has no judgement.
class TinyGrpo : public Program {
 protected:
  void SetUp() override {
    std::string lists, qrels;
    for (int q = 0; q < 6; ++q) {
      base::OrderedJson list = {{"qid", base::str("q", q)},
                                {"query", base::str("letter ", static_cast<char>('a' + q))}};
      for (int d = 0; d < 4; ++d)
        list["hits"].push_back({{"docid", base::str("d", d)},
                                {"text", std::string(5 + 3 * d, static_cast<char>('a' + d))}});
      lists += list.dump() + "\n";
      if (q < 5) qrels += base::str("q", q, " 0 d", q % 4, " 1\n");
    }
    candidates_ = put("train.jsonl", lists);
    qrels_ = put("train.qrels", qrels);
  }
  // One that knows how an answer is written.
  std::string formatted_model() {
    std::string pairs;
    for (int q = 0; q < 5; ++q)
      for (int d = 0; d < 4; ++d)
        pairs +=
            base::str(R"({"qid": "q)", q, R"(", "docid": "d)", d, R"(", "query": "letter )",
                      static_cast<char>('a' + q), R"(", "text": ")",
                      std::string(5 + 3 * d, static_cast<char>('a' + d)),
                      R"(", "distribution": [0.2,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0,0]})", "\n");
    const Outcome outcome =
        run({"train", "sft", "--model", tiny_model(), "--data", put("pairs.jsonl", pairs), "--out",
             path("sft"), "--epochs", "20", "--learning-rate", "0.01", "--full"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return path("sft");
  }
  // On the tiny model, unless `more` names another.
  std::vector<std::string> grpo(const std::string& out, const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"train",
                                     "grpo",
                                     "--candidates",
                                     candidates_,
                                     "--qrels",
                                     qrels_,
                                     "--out",
                                     path(out),
                                     "--iterations",
                                     "4",
                                     "--queries-per-iteration",
                                     "4",
                                     "--mini-batch",
                                     "8"};
    if (std::find(more.begin(), more.end(), "--model") == more.end())
      args.insert(args.end(), {"--model", tiny_model()});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  std::string adapter(const std::string& out) const {
    return base::read_file(path(out + "/adapter_model.safetensors"));
  }

  std::string candidates_, qrels_;
};

using SlowGrpo = TinyGrpo;

TEST_F(SlowGrpo, ARunKilledAtRandomMomentsEndsWithTheBytesOfAnUnbrokenOne) {
  const std::vector<std::string> options = {
      "--model", formatted_model(), "--rollouts", "5", "--checkpoint-steps",
      "1",       "--learning-rate", "0.01"};
  const Outcome unbroken = run(grpo("whole", options));
  ASSERT_EQ(unbroken.exit_code, 0) << unbroken.err;
  auto resumed = options;
  resumed.push_back("--resume");
  base::Random random(8);
  for (const int step : {1, 4}) {  // of 8; kills come some time after it
    const pid_t pid = start(grpo("broken", resumed));
    wait_for_step(path("broken"), step);
    std::this_thread::sleep_for(std::chrono::microseconds(50000) * random.uniform());
    ::kill(pid, SIGKILL);
    EXPECT_EQ(finish(pid).exit_code, -1) << step;
  }
  const Outcome last = run(grpo("broken", resumed));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_EQ(adapter("broken"), adapter("whole"));
}

TEST_F(TinyGrpo, ValidatesLogsAndIsReadByRerank) {
  const Outcome o = run(grpo("run", {"--json", "--validation", candidates_, "--validation-qrels",
                                     qrels_, "--validate-steps", "4"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("1 queries have no candidate graded 1 or more and are left out"));
  EXPECT_EQ(json_lines(o.out).at(0)["steps"], 8);
  int steps = 0, validations = 0;
  for (const auto& line : json_lines(base::read_file(path("run/log.jsonl")))) {
    validations += line.contains("validation");
    if (!line.contains("reward")) continue;
    EXPECT_EQ(line["step"], ++steps);
    EXPECT_EQ(line["examples"], 8);
  }
  EXPECT_EQ(steps, 8);
  EXPECT_EQ(validations, 3);  // of the start too
  int events = 0;
  for (const auto& entry : fs::directory_iterator(path("run")))
    events += entry.path().filename().string().starts_with("events.out.tfevents.");
  EXPECT_EQ(events, 1);
  const Outcome ranked =
      run({"rerank", "--model", path("run"), "--candidates", candidates_, "--direct"});
  ASSERT_EQ(ranked.exit_code, 0) << ranked.err;
  EXPECT_EQ(json_lines(ranked.out).size(), 24u);
  // Overwritten, nothing of it stays.
  ASSERT_EQ(run(grpo("run", {"--overwrite", "--full"})).exit_code, 0);
  events = 0;
  for (const auto& entry : fs::directory_iterator(path("run")))
    events += entry.path().filename().string().starts_with("events.out.tfevents.");
  EXPECT_EQ(events, 1);
}

TEST_F(TinyGrpo, TheSavedOptionsReproduceTheRun) {
  const std::string model = formatted_model();
  ASSERT_EQ(
      run(grpo("first", {"--model", model, "--reward", "ndcg", "--adv-std", "off", "--kl-coef",
                         "0.01", "--docs-per-query", "3", "--rollouts", "4", "--ratio", "sequence",
                         "--clip", "0.2,0.3", "--loss-agg", "sequences"}))
          .exit_code,
      0);
  const Outcome again =
      run({"train", "grpo", "--config", path("first/train.toml"), "--model", model, "--candidates",
           candidates_, "--qrels", qrels_, "--out", path("second")});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(adapter("second"), adapter("first"));
  EXPECT_EQ(base::read_file(path("second/train.toml")), base::read_file(path("first/train.toml")));
  const Outcome other = run(grpo("first", {"--model", model, "--resume", "--reward", "rr"}));
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("was trained with another"));
}

TEST_F(TinyGrpo, DryRunCountsAndWritesNothing) {
  const Outcome o = run(grpo("none", {"--dry-run", "--json", "--rollouts", "3"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto line = json_lines(o.out).at(0);
  EXPECT_EQ(line["queries"], 5);
  EXPECT_EQ(line["left_out_queries"], 1);
  EXPECT_EQ(line["pairs"], 20);
  EXPECT_EQ(line["steps"], 8);
  EXPECT_GT(line["tokens"].get<int64_t>(), 8 * 8 * 100);
  EXPECT_EQ(line["sampling_tokens"], line["tokens"]);
  EXPECT_GT(line["reference_tokens"], line["tokens"]);  // the KL, and what is asked at first
  for (const char* key : {"logits_bytes", "serving_bytes", "learning_seconds", "sampling_seconds",
                          "reference_seconds"})
    EXPECT_GT(line.at(key).get<double>(), 0) << key;
  EXPECT_EQ(line["reference_bytes"], 0);  // the model without its new adapter
  EXPECT_NEAR(line["learning_seconds"].get<double>() + line["sampling_seconds"].get<double>() +
                  line["reference_seconds"].get<double>(),
              line["seconds_at_half_of_it"].get<double>(), 1e-9);
  EXPECT_FALSE(fs::exists(path("none")));
  // Every sample is as long as it may be; of a whole model there is a second one.
  const auto more =
      json_lines(run(grpo("none", {"--dry-run", "--json", "--rollouts", "4", "--modes", "both",
                                   "--max-think-tokens", "50", "--full"}))
                     .out)
          .at(0);
  EXPECT_GT(more["tokens"].get<int64_t>(), line["tokens"].get<int64_t>() + 8 * 8 * 2 * 49);
  EXPECT_EQ(more["reference_bytes"], more["weights_bytes"]);
  EXPECT_GT(more["longest_pair_tokens"], line["longest_pair_tokens"]);
}

TEST_F(TinyGrpo, DryRunOfExactCountsTheTokensOfTheRun) {
  const auto planned = json_lines(run(grpo("run", {"--dry-run", "--json"})).out).at(0);
  ASSERT_EQ(run(grpo("run")).exit_code, 0);
  int64_t tokens = 0;
  for (const auto& line : json_lines(base::read_file(path("run/log.jsonl"))))
    if (line.contains("tokens")) tokens += line["tokens"].get<int64_t>();
  EXPECT_EQ(planned["tokens"], tokens);
  EXPECT_EQ(planned["sampling_tokens"], 0);
  EXPECT_EQ(planned["sampling_seconds"], 0);
  EXPECT_GT(planned["reference_tokens"], 20 * 100);
  // An adapter that is trained on is kept as it was, as the reference of samples.
  const auto on =
      json_lines(
          run(grpo("none", {"--model", path("run"), "--dry-run", "--json", "--rollouts", "3"})).out)
          .at(0);
  EXPECT_EQ(on["reference_bytes"], 4 * on["trained_parameters"].get<int64_t>());
}

TEST_F(TinyGrpo, RatesAndTheKlWeightAreThoseOfTheOptions) {
  const auto lines = [&](const std::string& name, const std::vector<std::string>& more) {
    const Outcome o = run(grpo(name, more));
    EXPECT_EQ(o.exit_code, 0) << o.err;
    std::vector<base::Json> steps;
    for (const auto& line : json_lines(base::read_file(path(name + "/log.jsonl"))))
      if (line.contains("loss")) steps.push_back(line);
    return steps;
  };
  const auto rates = [](const std::vector<base::Json>& steps) {
    std::vector<double> all;
    for (const auto& step : steps) all.push_back(step["learning_rate"].get<double>());
    return all;
  };
  const auto usual = lines("usual", {});
  for (const double rate : rates(usual)) EXPECT_DOUBLE_EQ(rate, 1e-4);  // constant, no warm-up
  const auto warm = lines("warm", {"--learning-rate", "0.002", "--warmup-ratio", "0.5"});
  const auto found = rates(warm);
  ASSERT_EQ(found.size(), 8u);
  for (size_t i = 0; i < 8; ++i)
    EXPECT_NEAR(found[i], i < 4 ? 0.0005 * static_cast<double>(i + 1) : 0.002, 1e-12) << i;
  // Without the KL the loss is 0 (docs/training.md), so that it is the KL times its weight.
  const std::vector<std::string> fast = {"--model", formatted_model(), "--learning-rate", "0.003",
                                         "--kl-coef"};
  auto free = fast, held = fast;
  free.emplace_back("0"), held.emplace_back("10");
  const auto loose = lines("free", free), tight = lines("held", held);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(loose[i]["loss"].get<double>(), 0, 1e-5);
    EXPECT_NEAR(tight[i]["loss"].get<double>(), 10 * tight[i]["kl"].get<double>(), 1e-5);
  }
  EXPECT_GT(loose[7]["kl"].get<double>(), 2 * tight[7]["kl"].get<double>());
}

TEST_F(TinyGrpo, ReferenceScoresOfTheModelItselfChangeNothing) {
  const std::string model = formatted_model();
  const std::vector<std::string> options = {"--model", model,        "--learning-rate",
                                            "0.01",    "--rollouts", "4"};
  ASSERT_EQ(run(grpo("own", options)).exit_code, 0);
  ASSERT_EQ(run({"rerank", "--model", model, "--candidates", candidates_, "--direct", "--out",
                 path("scores.jsonl")})
                .exit_code,
            0);
  auto given = options;
  given.insert(given.end(), {"--reference-scores", path("scores.jsonl")});
  const Outcome o = run(grpo("given", given));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(adapter("given"), adapter("own"));
  // Another file, and none, are other runs.
  std::string scores = base::read_file(path("scores.jsonl"));
  put("scores.jsonl", scores + "\n");
  given.emplace_back("--resume");
  EXPECT_THAT(run(grpo("given", given)).err, HasSubstr("another reference-scores"));
  auto without = options;
  without.emplace_back("--resume");
  EXPECT_THAT(run(grpo("given", without)).err, HasSubstr("another reference-scores"));
  // A pair that is missing is named.
  scores.resize(scores.rfind('\n', scores.size() - 2) + 1);
  put("scores.jsonl", scores.substr(scores.find('\n') + 1));
  auto short_of = options;
  short_of.insert(short_of.end(), {"--reference-scores", path("scores.jsonl")});
  expect_refused(run(grpo("other", short_of)), " of 20 pairs that are learned from, the first");
}

TEST_F(TinyGrpo, BothModesAreSampledAndValidated) {
  const std::string model = formatted_model();
  const std::vector<std::string> options = {"--model",
                                            model,
                                            "--rollouts",
                                            "4",
                                            "--modes",
                                            "both",
                                            "--max-think-tokens",
                                            "12",
                                            "--validation",
                                            candidates_,
                                            "--validation-qrels",
                                            qrels_,
                                            "--validation-modes",
                                            "think,direct",
                                            "--learning-rate",
                                            "0.001"};
  const Outcome o = run(grpo("run", options));
  // The model has not learned to write reasoning.
  EXPECT_EQ(o.exit_code, 2);
  EXPECT_THAT(o.err, HasSubstr("no answer is formatted"));
  const auto lines = json_lines(base::read_file(path("run/log.jsonl")));
  for (const char* key :
       {"reward_direct", "reward_think", "ndcg_10_direct", "ndcg_10_think", "unformatted_direct",
        "reference_ndcg_10_direct", "reference_ndcg_10_think"})
    EXPECT_TRUE(lines.at(1).contains(key)) << key;
  EXPECT_EQ(lines.at(1)["unformatted_think"], 1);
  EXPECT_LT(lines.at(1)["unformatted_direct"].get<double>(), 0.5);
  EXPECT_TRUE(lines.at(0).contains("validation_think"));  // of the start

  ASSERT_EQ(run(grpo("exact", {"--validation", candidates_, "--validation-qrels", qrels_,
                               "--validation-modes", "think,direct", "--max-think-tokens", "12"}))
                .exit_code,
            0);
  const auto last = json_lines(base::read_file(path("exact/log.jsonl"))).back();
  EXPECT_EQ(last["validation"], last["validation_think"]);
  EXPECT_TRUE(last.contains("validation_direct"));
}

TEST_F(TinyGrpo, ScaledRewardsAndAHeadInFp32AreOtherRuns) {
  std::vector<std::string> adapters;
  for (const std::string scale : {"none", "above", "otherwise", "both"}) {
    ASSERT_EQ(
        run(grpo(scale, {"--reward-scale", scale, "--adv-std", "off", "--learning-rate", "0.01"}))
            .exit_code,
        0);
    for (const auto& other : adapters) EXPECT_NE(adapter(scale), other) << scale;
    adapters.push_back(adapter(scale));
  }
  ASSERT_EQ(
      run(grpo("ties", {"--reward-ties", "above", "--adv-std", "off", "--learning-rate", "0.01"}))
          .exit_code,
      0);
  for (const auto& other : adapters) EXPECT_NE(adapter("ties"), other);
  ASSERT_EQ(run(grpo("bf16", {"--precision", "bf16"})).exit_code, 0);
  ASSERT_EQ(run(grpo("wide", {"--precision", "bf16", "--head-fp32"})).exit_code, 0);
  EXPECT_NE(adapter("bf16"), adapter("wide"));
  const auto kl = [&](const std::string& name) {
    for (const auto& line : json_lines(base::read_file(path(name + "/log.jsonl"))))
      if (line.contains("kl")) return line["kl"].get<double>();
    return -1.0;
  };
  // Before the first step the trainer's policy is the reference's, which the engine computes.
  EXPECT_LT(kl("wide"), kl("bf16"));
}

TEST_F(TinyGrpo, RefusesInOneLine) {
  expect_refused(run(grpo("o", {"--rollouts", "1"})), "--rollouts");
  expect_refused(run(grpo("o", {"--rollouts", "x"})), "--rollouts");
  expect_refused(run(grpo("o", {"--modes", "think"})), "--modes think needs samples");
  expect_refused(run(grpo("o", {"--modes", "both"})), "--modes both needs samples");
  expect_refused(run(grpo("o", {"--modes", "both", "--rollouts", "5"})), "an even number");
  expect_refused(run(grpo("o", {"--min-entropy", "-1"})), "--min-entropy");
  for (const char* modes : {"both", "direct,direct", "", "direct,think,direct"})
    expect_refused(run(grpo("o", {"--validation-modes", modes})), "--validation-modes");
  expect_refused(run(grpo("o", {"--clip", "0.2,x"})), "--clip");
  expect_refused(run(grpo("o", {"--kl-coef", "-1"})), "--kl-coef");
  expect_refused(run(grpo("o", {"--max-kl", "nan"})), "--max-kl");
  expect_refused(run(grpo("o", {"--positive-grade", "2"})), "graded 2 or more");
  expect_refused(
      run(grpo("o", {"--modes", "think", "--rollouts", "2", "--max-think-tokens", "100000"})),
      "the model reads at most");
  expect_refused(
      run({"train", "grpo", "--model", tiny_model(), "--qrels", qrels_, "--out", path("o")}),
      "--candidates");
  expect_refused(run({"train", "grpo", "--model", tiny_model(), "--candidates", candidates_,
                      "--out", path("o")}),
                 "--qrels");
  // Reasoning that the model has never learned to write.
  const Outcome mute =
      run(grpo("mute", {"--modes", "think", "--rollouts", "2", "--max-think-tokens", "8"}));
  EXPECT_EQ(mute.exit_code, 2);
  EXPECT_THAT(mute.err, HasSubstr("no answer is formatted"));
}

}  // namespace
}  // namespace erank::cli
