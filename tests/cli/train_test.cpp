#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/model/lora.h"
#include "erank/model/tensor_file.h"
#include "tests/cli/program.h"
#include "tests/cli/wait_for_step.h"
#include "tests/model/golden.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

// Four queries with four pairs each, some with reasoning or a distribution: 4 steps an epoch.
class TinyTrain : public Program {
 protected:
  const std::string& pairs() {
    if (!pairs_.empty()) return pairs_;
    std::string lines;
    for (int q = 0; q < 4; ++q)
      for (int d = 0; d < 4; ++d) {
        base::OrderedJson pair = {{"qid", q},
                                  {"docid", base::str("d", d)},
                                  {"query", base::str("letter ", static_cast<char>('a' + q))},
                                  {"text", std::string(5 + 3 * d, static_cast<char>('a' + d))},
                                  {"score", q == d ? 10 : 1}};
        if (d == 1) pair["thought"] = "The letters differ.";
        if (d == 2) pair["distribution"] = {0.5, 0.2, 0, 0, 0, 0, 0, 0, 0, 0, 0.3};
        lines += pair.dump() + "\n";
      }
    return pairs_ = put("pairs.jsonl", lines);
  }
  std::vector<std::string> sft(const std::string& out, const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"train",        "sft",   "--model",      tiny_model(),
                                     "--data",       pairs(), "--out",        path(out),
                                     "--batch-size", "4",     "--group-size", "2"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  std::string adapter(const std::string& out) const {
    return base::read_file(path(out + "/adapter_model.safetensors"));
  }
  // At a rate of nothing --full writes the weights that the adapter in "first" merges to.
  void expect_full_begins_with_merged() {
    auto args =
        sft("full", {"--full", "--precision", "fp32", "--max-steps", "1", "--learning-rate", "0"});
    args[3] = path("first");
    ASSERT_EQ(run(args).exit_code, 0);
    const Outcome merge = run(
        {"model", "merge", "--model", path("first"), "--dtype", "fp32", "--out", path("merged")});
    ASSERT_EQ(merge.exit_code, 0) << merge.err;
    EXPECT_EQ(base::read_file(path("full/model.safetensors")),
              base::read_file(path("merged/model.safetensors")));
  }

 private:
  std::string pairs_;
};

TEST_F(TinyTrain, ARunKilledAtRandomMomentsEndsWithTheBytesOfAnUnbrokenOne) {
  const std::vector<std::string> options = {"--epochs",       "6",   "--checkpoint-steps", "1",
                                            "--lora-dropout", "0.1", "--learning-rate",    "0.01"};
  const Outcome unbroken = run(sft("whole", options));
  ASSERT_EQ(unbroken.exit_code, 0) << unbroken.err;

  auto resumed = options;
  resumed.push_back("--resume");
  base::Random random(8);
  int landed = 0;
  for (const int step : {1, 3, 5, 6}) {  // of 24; kills come some time after it
    const pid_t pid = start(sft("broken", resumed));
    wait_for_step(path("broken"), step);
    std::this_thread::sleep_for(std::chrono::microseconds(50000) * random.uniform());
    ::kill(pid, SIGKILL);
    landed += finish(pid).exit_code == -1;
  }
  EXPECT_GE(landed, 3);
  const Outcome last = run(sft("broken", resumed));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_THAT(last.err, Not(HasSubstr("starting from the first step")));
  EXPECT_EQ(adapter("broken"), adapter("whole"));
  EXPECT_EQ(base::read_file(path("broken/erank.json")), base::read_file(path("whole/erank.json")));
}

TEST_F(TinyTrain, StoppedAndResumedTrainsEveryParameterAsAnUnbrokenRun) {
  const auto full = [&](const std::string& out, const std::vector<std::string>& more) {
    auto args = sft(out, {"--full", "--precision", "bf16"});
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  };
  ASSERT_EQ(full("whole", {}).exit_code, 0);
  const Outcome stopped = full("parts", {"--stop-after", "1"});
  ASSERT_EQ(stopped.exit_code, 0) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("stopped after step 1 of 4; go on with --resume"));
  EXPECT_FALSE(fs::exists(path("parts/model.safetensors")));
  ASSERT_EQ(full("parts", {"--resume"}).exit_code, 0);
  EXPECT_EQ(base::read_file(path("parts/model.safetensors")),
            base::read_file(path("whole/model.safetensors")));
  const std::string docs = put("docs.jsonl", "{\"id\": \"a\", \"text\": \"aaaa\"}\n");
  const Outcome ranked =
      run({"rerank", "--model", path("whole"), "--direct", "--query", "letter a", "--docs", docs});
  EXPECT_EQ(ranked.exit_code, 0) << ranked.err;
}

TEST_F(TinyTrain, TheSavedOptionsReproduceTheRun) {
  ASSERT_EQ(run(sft("first", {"--epochs", "0.5", "--lora-targets", "q_proj,v_proj", "--seed", "3",
                              "--weighting", "tokens", "--modes", "think", "--targets", "hard",
                              "--instruction", "Is it the \"letter\"?", "--lora-rank", "2"}))
                .exit_code,
            0);
  const Outcome again = run({"train", "sft", "--config", path("first/train.toml"), "--data",
                             pairs(), "--out", path("second")});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(adapter("second"), adapter("first"));
  EXPECT_EQ(base::read_file(path("second/train.toml")), base::read_file(path("first/train.toml")));
  // The command line goes first.
  ASSERT_EQ(run({"train", "sft", "--config", path("first/train.toml"), "--data", pairs(), "--out",
                 path("third"), "--seed", "4"})
                .exit_code,
            0);
  EXPECT_NE(adapter("third"), adapter("first"));
}

TEST_F(TinyTrain, AnAdapterIsTrainedOnAndKeepsItsForm) {
  const std::vector<std::string> first = {
      "--lora-rank", "3", "--lora-targets", "q_proj,v_proj", "--lora-alpha", "6.0000001234",
      "--max-steps", "2"};
  ASSERT_EQ(run(sft("first", first)).exit_code, 0);
  std::string defaults = base::read_file(path("first/erank.json"));
  defaults.replace(defaults.find("false"), 5, "true");  // lower_capitals
  put("first/erank.json", defaults);
  // At a rate of nothing the second run's adapter is the first one's.
  auto args = sft("same", {"--max-steps", "1", "--learning-rate", "0"});
  args[3] = path("first");
  const Outcome same = run(args);
  ASSERT_EQ(same.exit_code, 0) << same.err;
  EXPECT_EQ(adapter("same"), adapter("first"));
  EXPECT_EQ(base::read_file(path("same/adapter_config.json")),
            base::read_file(path("first/adapter_config.json")));
  EXPECT_EQ(base::read_file(path("same/erank.json")), base::read_file(path("first/erank.json")));
  // The saved options name its form and can be taken again; at a real rate it learns.
  EXPECT_THAT(base::read_file(path("same/train.toml")), HasSubstr("lora-rank=3\n"));
  const std::vector<std::string> again = {
      "train", "sft",   "--config",     path("same/train.toml"), "--data",
      pairs(), "--out", path("second"), "--learning-rate",       "0.01"};
  const Outcome second = run(again);
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_NE(adapter("second"), adapter("first"));
  EXPECT_EQ(adapter("second").size(), adapter("first").size());

  // Every parameter is trained on from the merged weights.
  expect_full_begins_with_merged();

  args = sft("o", {"--lora-rank", "4"});
  args[3] = path("first");
  expect_refused(run(args), "--lora-rank");
  args = sft("o", {"--lora-targets", "q_proj"});
  args[3] = path("first");
  expect_refused(run(args), "--lora-targets");
  // A run that was begun with other defaults, or on another adapter, is not gone on with.
  args = sft("same", {"--max-steps", "1", "--learning-rate", "0", "--resume"});
  args[3] = path("first");
  EXPECT_EQ(run(args).exit_code, 0);
  defaults.replace(defaults.find("true"), 4, "false");
  put("first/erank.json", defaults);
  expect_refused(run(args),
                 "another value of lower_capitals in the model's erank.json (true, now false)");
  ASSERT_EQ(run(sft("first", {"--lora-rank", "3", "--lora-targets", "q_proj,v_proj", "--max-steps",
                              "2", "--seed", "2", "--overwrite"}))
                .exit_code,
            0);
  expect_refused(run(args), "another adapter");
}

TEST_F(TinyTrain, AnAdapterOfMoreThanLoraIsMergedOrRefused) {
  ASSERT_EQ(run(sft("first", {"--max-steps", "1"})).exit_code, 0);
  auto tensors = model::load_adapter(model::load_config(tiny_model()), path("first")).named();
  tensors.push_back({"base_model.model.model.norm.weight",
                     model::golden_fill("norm", tensors.front().tensor.sizes().slice(1))});
  model::save_tensors(path("first/adapter_model.safetensors"), tensors, at::kFloat);
  auto config = base::Json::parse(base::read_file(path("first/adapter_config.json")));
  config["modules_to_save"] = {"norm"};
  put("first/adapter_config.json", config.dump());

  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--dry-run"}}) {
    auto args = sft("o", more);
    args[3] = path("first");
    expect_refused(run(args), "model.norm.weight");
    expect_refused(run(args), "erank model merge");
  }
  expect_full_begins_with_merged();
}

TEST_F(TinyTrain, ADryRunCountsAndWritesNothing) {
  auto args = sft("none", {"--dry-run", "--json", "--epochs", "2"});
  const Outcome o = run(args);
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto lines = json_lines(o.out);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["pairs"], 16);
  EXPECT_EQ(lines[0]["steps"], 8);
  // Rank 16 on the seven layers of both blocks: 64 wide, heads 128 and 64, feed-forward 128.
  EXPECT_EQ(lines[0]["trained_parameters"],
            2 * 16 * ((64 + 128) + 2 * (64 + 64) + (128 + 64) + 3 * (64 + 128)));
  for (const char* key : {"tokens", "longest_pair_tokens", "weights_bytes", "optimizer_bytes",
                          "activation_bytes", "gemm_peak_gflops", "seconds_at_half_of_it"})
    EXPECT_GT(lines[0].at(key).get<double>(), 0) << key;
  EXPECT_FALSE(fs::exists(path("none")));
}

TEST_F(TinyTrain, LogsEveryStepValidatesAndIsReadByRerank) {
  std::string lists;
  for (const char* q : {"a", "b"})
    lists += base::str("{\"qid\": \"", q, "\", \"query\": \"letter ", q,
                       "\", \"hits\": [{\"docid\": \"a\", \"text\": \"aaaaa\"}, "
                       "{\"docid\": \"b\", \"text\": \"bbbbbbbb\"}]}\n");
  const Outcome o =
      run(sft("run", {"--json", "--validation", put("dev.jsonl", lists), "--validation-qrels",
                      put("dev.qrels", "a 0 a 1\nb 0 b 1\n"), "--validate-steps", "2"}));
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto report = json_lines(o.out).at(0);
  EXPECT_EQ(report["steps"], 4);
  EXPECT_EQ(report["out"], path("run"));
  int steps = 0, validations = 0;
  double best = 0;
  for (const auto& line : json_lines(base::read_file(path("run/log.jsonl")))) {
    EXPECT_TRUE(line.contains("step") && line.contains("seconds"));
    if (line.contains("validation")) {
      ++validations;
      best = std::max(best, line["validation"].get<double>());
      EXPECT_TRUE(line["best"].is_boolean());
      continue;
    }
    EXPECT_EQ(line["step"], ++steps);
    for (const char* key : {"loss", "learning_rate", "gradient_norm", "examples", "learned_tokens",
                            "tokens", "tokens_per_s", "share_of_gemm_peak"})
      EXPECT_TRUE(line.at(key).is_number()) << key;
  }
  EXPECT_EQ(steps, 4);
  EXPECT_EQ(validations, 2);
  EXPECT_EQ(report["best_ndcg_10"], best);
  // Other judgements could choose other weights.
  put("dev.qrels", "a 0 a 1\nb 0 a 1\n");
  expect_refused(run(sft("run", {"--validation", path("dev.jsonl"), "--validation-qrels",
                                 path("dev.qrels"), "--validate-steps", "2", "--resume"})),
                 "another validation-qrels");
  put("dev.qrels", "a 0 a 1\nb 0 b 1\n");

  const Outcome both = run(sft("both", {"--validation", path("dev.jsonl"), "--validation-qrels",
                                        path("dev.qrels"), "--validation-modes", "direct,think",
                                        "--max-think-tokens", "9", "--validate-steps", "2"}));
  ASSERT_EQ(both.exit_code, 0) << both.err;
  const auto last = json_lines(base::read_file(path("both/log.jsonl"))).back();
  EXPECT_EQ(last["validation"], last["validation_direct"]);
  EXPECT_TRUE(last["validation_think"].is_number());
  EXPECT_TRUE(adapter("both") == adapter("run"));  // the first mode chooses the same weights

  const Outcome ranked =
      run({"rerank", "--model", path("run"), "--candidates", path("dev.jsonl"), "--direct"});
  ASSERT_EQ(ranked.exit_code, 0) << ranked.err;
  EXPECT_EQ(json_lines(ranked.out).size(), 4u);
}

TEST_F(TinyTrain, RefusesInOneLine) {
  const std::string good = base::read_file(pairs());
  expect_refused(run(sft("o", {"--config", put("bad.toml", "learning-rat = 1\n")})),
                 "unknown key 'learning-rat'");
  expect_refused(run(sft("o", {"--config", put("bad.toml", "epochs = \"x\"\n")})), "'epochs'");
  expect_refused(run(sft("o", {"--config", put("bad.toml", "out = \"x\"\n")})),
                 "unknown key 'out'");
  expect_refused(run({"train", "sft", "--model", tiny_model(), "--out", path("o")}), "--data");
  expect_refused(run({"train", "sft", "--model", tiny_model(), "--data", pairs()}), "--out");
  auto args = sft("o");
  args[5] = path("nowhere.jsonl");
  expect_refused(run(args), "nowhere.jsonl");
  args[5] = put("bad.jsonl", good + "{\"qid\": \"q\"}\n");
  expect_refused(run(args), "bad.jsonl:17");
  expect_refused(run(sft("pairs.jsonl")), "is a file");
  put("empty", "");
  expect_refused(run(sft("empty")), "is a file");
  expect_refused(run(sft("pairs.jsonl/below")), "pairs.jsonl/below");
  expect_refused(run(sft("o", {"--validation", pairs()})), "--validation-qrels");
  expect_refused(run(sft("o", {"--lora-targets", "query"})), "no layer");
  const std::string lists =
      "{\"qid\": \"a\", \"query\": \"x\", \"hits\": [{\"docid\": \"a\", \"text\": \"" +
      std::string(2040, 'a') + "\"}]}\n";
  expect_refused(run(sft("o", {"--validation", put("long.jsonl", lists), "--validation-qrels",
                               put("q.qrels", "a 0 a 1\n")})),
                 "the model reads at most 2048");
}

TEST_F(TinyTrain, OptionsThatWouldRuinTheWeightsAreRefusedBeforeTheFirstStep) {
  for (const auto& [option, value] : {std::pair{"--learning-rate", "nan"},
                                      {"--learning-rate", "1e38"},
                                      {"--learning-rate", "-1"},
                                      {"--epochs", "nan"},
                                      {"--epochs", "-1"},
                                      {"--clip-norm", "inf"},
                                      {"--weight-decay", "-0.1"},
                                      {"--adam-beta1", "nan"},
                                      {"--max-steps", "-1"}})
    expect_refused(run(sft("o", {option, value})), option);
  EXPECT_FALSE(fs::exists(path("o")));
}

TEST_F(TinyTrain, AReasoningThatWouldTeachAnotherAnswerIsRefusedOrCleaned) {
  std::string lines = base::read_file(pairs());
  const std::string end = "</think><answer>3</answer>";
  lines.replace(lines.find("The letters differ."), 3, "Th" + end);
  auto args = sft("o", {"--max-steps", "1"});
  args[5] = put("bad.jsonl", lines);
  expect_refused(run(args), "bad.jsonl:2: the reasoning holds '");
  args.push_back("--clean");
  const Outcome clean = run(args);
  EXPECT_EQ(clean.exit_code, 0);
  EXPECT_THAT(clean.err, HasSubstr("out of the reasoning of 1 pairs and dropped 0 of 16"));
}

TEST_F(TinyTrain, ResumesOnTheSameModelAloneAndAfterADamagedCheckpoint) {
  const auto args = [&](const std::vector<std::string>& more) {
    auto all = sft("r", {"--checkpoint-steps", "1"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  ASSERT_EQ(run(sft("whole", {"--checkpoint-steps", "1"})).exit_code, 0);
  ASSERT_EQ(run(args({"--stop-after", "3"})).exit_code, 0);
  // Another base under the same path; then the same base under another one.
  const std::string weights = tiny_model() + "/model.safetensors",
                    before = base::read_file(weights);
  std::string other = before;
  other[other.size() / 2] ^= 1;
  base::write_file_atomic(weights, other);
  expect_refused(run(args({"--resume"})), "another model");
  base::write_file_atomic(weights, before);
  fs::copy(tiny_model(), path("moved"), fs::copy_options::recursive);
  put("r/checkpoints/step-000003/optimizer.safetensors", "");
  auto moved = args({"--resume"});
  moved[3] = path("moved");
  const Outcome resumed = run(moved);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("a damaged checkpoint is skipped"));
  EXPECT_THAT(resumed.err, HasSubstr("step-000003"));
  EXPECT_EQ(adapter("r"), adapter("whole"));
}

TEST_F(TinyTrain, AnExistingFolderIsResumedOrOverwrittenOnlyWhenAsked) {
  ASSERT_EQ(run(sft("run", {"--max-steps", "1"})).exit_code, 0);
  const std::string before = adapter("run");
  expect_refused(run(sft("run", {"--max-steps", "1"})), "--resume goes on where it stopped");
  expect_refused(run(sft("run", {"--max-steps", "1", "--seed", "2", "--resume"})), "another seed");
  expect_refused(run(sft("run", {"--max-steps", "1", "--resume", "--instruction", "Other."})),
                 "another instruction");
  // Other pairs of equal size.
  std::string other = base::read_file(pairs());
  other.replace(other.find("letter a"), 8, "letter z");
  const std::string same = base::read_file(pairs());
  put("pairs.jsonl", other);
  expect_refused(run(sft("run", {"--max-steps", "1", "--resume"})), "another data");
  put("pairs.jsonl", same);
  EXPECT_EQ(adapter("run"), before);
  ASSERT_EQ(run(sft("run", {"--max-steps", "1", "--seed", "2", "--overwrite"})).exit_code, 0);
  EXPECT_NE(adapter("run"), before);
  EXPECT_EQ(lines_of(base::read_file(path("run/log.jsonl"))).size(), 1u);
}

TEST_F(TinyTrain, WhatIsNotItsOwnIsNeverRemoved) {
  // A folder that no run has begun, with names that a run would write.
  for (const char* name : {"log.jsonl", "best/adapter_model.safetensors",
                           "checkpoints/step-000001/x", "train.toml", "config.json"}) {
    put(std::string("theirs/") + name, "foreign");
    for (const char* how : {"--overwrite", "--resume"})
      expect_refused(run(sft("theirs", {"--max-steps", "1", how})), "no run of this verb");
    EXPECT_EQ(base::read_file(path(std::string("theirs/") + name)), "foreign");
    fs::remove_all(path("theirs"));
  }
  put("run/notes", "foreign");
  ASSERT_EQ(run(sft("run", {"--max-steps", "3", "--checkpoint-steps", "1", "--resume"})).exit_code,
            0);
  const std::vector<std::string> notes = {"notes", "best/notes", "checkpoints/notes",
                                          "checkpoints/step-000002/notes", "checkpoints/mine/x"};
  for (const auto& name : notes) put("run/" + name, "foreign");
  const Outcome again = run(sft("run", {"--max-steps", "1", "--overwrite"}));
  ASSERT_EQ(again.exit_code, 0) << again.err;
  for (const auto& name : notes) EXPECT_EQ(base::read_file(path("run/" + name)), "foreign") << name;
  EXPECT_FALSE(fs::exists(path("run/checkpoints/step-000003")));
  EXPECT_FALSE(fs::exists(path("run/checkpoints/step-000002/trainer.json")));

  // What is read is not written over.
  auto args = sft("run", {"--max-steps", "1", "--overwrite"});
  args[3] = path("run");
  expect_refused(run(args), "is the same file as the input");
  args = sft("run", {"--max-steps", "1", "--overwrite"});
  args[5] = path("run/log.jsonl");
  expect_refused(run(args), "is the same file as the input");
}

}  // namespace
}  // namespace erank::cli
