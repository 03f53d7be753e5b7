#include "erank/train/trainer.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/lora.h"
#include "erank/train/sft.h"
#include "tests/train/tiny_training.h"

namespace erank::train {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// SFT on random examples, whose validation gives what the test says, unless it is stopped.
class Objectives : public Objective {
 public:
  explicit Objectives(std::vector<double> metrics = {}) : metrics_(std::move(metrics)) {}
  int64_t num_accumulated() const { return num_accumulated_; }
  int64_t num_steps() const override { return sft_.num_steps(); }
  StepStats accumulate(const TrainedModel& model, int64_t step,
                       const std::function<void(const at::Tensor&)>& backward) override {
    ++num_accumulated_;
    return sft_.accumulate(model, step, backward);
  }
  std::optional<Figures> validate(const TrainedModel&, const WorkControl& control) override {
    if (metrics_.empty()) return Figures{};
    if (control.stop()) return std::nullopt;
    const double metric = metrics_.at(next_++);
    return Figures{{"first", metric}, {"second", 1 - metric}};
  }

 private:
  SftObjective sft_{random_examples(1, 12), {.batch_size = 5, .max_steps = 7, .packing = {}}, {}};
  std::vector<double> metrics_;
  size_t next_ = 0;
  int64_t num_accumulated_ = 0;
};

TrainOptions options_of(bool full) {
  TrainOptions options;
  options.schedule.peak = 0.02;
  options.adamw.weight_decay = 0.01;
  options.checkpoint_steps = 2;
  options.gemm_peak = 1e10;
  if (full)
    options.lora.reset();
  else
    options.lora = model::LoraConfig{.rank = 3, .alpha = 6, .dropout = 0.3, .target_modules = {}};
  return options;
}

struct Trained {
  TrainResult result;
  std::vector<at::Tensor> weights;
};

class Training : public ::testing::Test {
 protected:
  // `most_steps`: stop() is true from then on.
  Trained run(const std::string& name, const TrainOptions& options, bool resume = false,
              std::vector<double> metrics = {}, at::ScalarType dtype = at::kFloat,
              int64_t most_steps = 100) const {
    model::Parameters parameters(tiny_config(), dtype);
    parameters.init_random(1, 0.15);
    Objectives objective(std::move(metrics));
    Trainer trainer(parameters, objective, options, folder_.path(name), identity_);
    if (resume) trainer.resume();
    const auto stop = [&] { return objective.num_accumulated() >= most_steps; };
    Trained trained{trainer.run(nullptr, stop), {}};
    for (const auto& p :
         options.lora ? parameters.adapter(kTrainedAdapter)->named() : parameters.named())
      trained.weights.push_back(p.tensor.detach().clone());
    return trained;
  }
  std::vector<std::string> checkpoints(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path(name + "/checkpoints")))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string fault(const std::function<void()>& work) const {
    try {
      work();
    } catch (const base::Error& e) {
      return e.what();
    }
    return "";
  }

  model::TestFolder folder_;
  base::Json identity_ = {{"seed", "1"}, {"model", "tiny"}};
};

void expect_same_bits(const Trained& a, const Trained& b) {
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (size_t i = 0; i < a.weights.size(); ++i)
    EXPECT_TRUE(at::equal(a.weights[i], b.weights[i])) << i;
}

TEST_F(Training, InterruptedAndResumedGivesTheBitsOfAnUnbrokenRun) {
  for (const auto& [full, dtype] : {std::pair(false, at::kFloat), std::pair(true, at::kFloat),
                                    std::pair(true, at::kBFloat16)}) {
    const std::string name = base::str(full, dtype);
    TrainOptions options = options_of(full);
    const Trained whole = run("whole" + name, options, false, {}, dtype);
    EXPECT_TRUE(whole.result.finished);
    EXPECT_EQ(whole.result.steps_done, 7);
    options.stop_after = 3;  // between checkpoints
    const Trained first = run("parts" + name, options, false, {}, dtype);
    EXPECT_FALSE(first.result.finished);
    EXPECT_EQ(first.result.steps_done, 3);
    run("parts" + name, options, true, {}, dtype);
    const Trained last = run("parts" + name, options, true, {}, dtype);
    EXPECT_TRUE(last.result.finished);
    expect_same_bits(whole, last);
  }
}

TEST_F(Training, AFinishedRunResumedIsFinishedAgain) {
  const Trained whole = run("r", options_of(false), false, {0.5});
  const Trained again = run("r", options_of(false), true);
  EXPECT_TRUE(again.result.finished);
  EXPECT_EQ(again.result.best_metric, 0.5);
  expect_same_bits(whole, again);
}

TEST_F(Training, LearnsAFewExamplesByHeart) {
  const auto losses = [&](bool full) {
    model::Parameters parameters(tiny_config(), at::kFloat);
    parameters.init_random(1, 0.15);
    std::vector<Example> examples;
    for (int32_t i = 0; i < 4; ++i)
      examples.push_back({"q", {9, 9, 10 + i}, {{{20}, {{0, 20}, {1, 30 + i}}, 2}}});
    SftObjective objective(examples, {.epochs = 60, .packing = {}}, nullptr);
    TrainOptions options = options_of(full);
    options.checkpoint_steps = 0;
    if (options.lora) options.lora->dropout = 0;
    const std::string name = full ? "full" : "lora";
    Trainer(parameters, objective, options, folder_.path(name), identity_).run(nullptr, [] {
      return false;
    });
    TreeForward forward(parameters);
    return objective.accumulate({parameters, forward}, 0, [](const at::Tensor&) {}).loss;
  };
  // At first both are about ln 61 = 4.1.
  EXPECT_LT(losses(true), 0.1);
  EXPECT_LT(losses(false), 0.5);
}

TEST_F(Training, GoesOnWithTheAdapterThatIsThere) {
  model::Parameters parameters(tiny_config(), at::kFloat);
  parameters.init_random(1, 0.15);
  TrainOptions options = options_of(false);
  model::Adapter start = model::make_adapter(tiny_config(), *options.lora, 9);
  model::fill_golden(start.named(), 0.5);
  const at::Tensor tensor = start.layers.front().lora.a, before = tensor.clone();
  parameters.add_adapter(kTrainedAdapter, start);
  parameters.add_adapter("other", model::make_adapter(tiny_config(), *options.lora, 10));
  Objectives objective;
  Trainer(parameters, objective, options, folder_.path("r"), identity_).run(nullptr, [] {
    return false;
  });
  EXPECT_EQ(parameters.active(), kTrainedAdapter);
  const double moved = (tensor.detach() - before).abs().max().item<double>();
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, 0.5);  // not made anew
}

TEST_F(Training, KeepsTheNewestCheckpointsAndEndsWithTheBestWeights) {
  TrainOptions options = options_of(false);
  options.validate_steps = 2;
  options.keep_checkpoints = 3;
  const Trained best = run("r", options, false, {0.1, 0.4, 0.4, 0.3});  // steps 2, 4, 6, 7
  EXPECT_THAT(checkpoints("r"), ElementsAre("step-000004", "step-000006", "step-000007"));
  EXPECT_EQ(best.result.best_step, 4);
  EXPECT_EQ(best.result.best_metric, 0.4);
  EXPECT_EQ(best.result.last_metric, 0.3);
  options.stop_after = 4;
  expect_same_bits(best, run("short", options, false, {0.1, 0.4}));
  EXPECT_EQ(base::read_file(folder_.path("r/best/adapter_model.safetensors")),
            base::read_file(folder_.path("r/checkpoints/step-000004/adapter_model.safetensors")));
}

TEST_F(Training, AStopInAValidationEndsItAndAResumedRunMeasuresAnew) {
  TrainOptions options = options_of(false);
  options.validate_steps = 2, options.checkpoint_steps = 0;
  const Trained whole = run("whole", options, false, {0.1, 0.4, 0.2, 0.3});
  for (const int64_t steps : {4, 7}) {  // in the middle, at the end
    const std::string name = base::str("r", steps);
    const std::vector<double> before = {0.1, 0.4, 0.2};
    const Trained first = run(name, options, false, before, at::kFloat, steps);
    EXPECT_FALSE(first.result.finished);
    EXPECT_EQ(first.result.steps_done, steps);
    EXPECT_EQ(first.result.best_step, steps == 4 ? 2 : 4);
    const Trained rest =
        run(name, options, true, steps == 4 ? std::vector{0.4, 0.2, 0.3} : std::vector{0.3});
    EXPECT_TRUE(rest.result.finished);
    EXPECT_EQ(rest.result.best_step, 4);
    expect_same_bits(rest, whole);
    const Trained again = run(name, options, true, {0.9});  // which nothing asks for
    EXPECT_EQ(again.result.best_metric, 0.4);
    EXPECT_EQ(again.result.last_metric, 0.3);
    expect_same_bits(again, whole);
  }
}

TEST_F(Training, TheWeightsOfTheStartMayBeTheBest) {
  TrainOptions options = options_of(false);
  options.validate_start = true;
  const Trained worse = run("worse", options, false, {0.5, 0.4});
  EXPECT_EQ(worse.result.best_step, 0);
  EXPECT_EQ(worse.result.best_metric, 0.5);
  const Trained start = run("start", options, false, {0.5}, at::kFloat, 0);  // stopped at once
  EXPECT_EQ(start.result.steps_done, 0);
  expect_same_bits(worse, start);
  EXPECT_EQ(run("start", options, true, {0.6, 0.7}).result.best_metric, 0.7);
  EXPECT_THAT(base::read_file(folder_.path("worse/log.jsonl")),
              testing::StartsWith(R"({"step":0,"validation":0.5,)"));
  run("one", options, false, {0.5}, at::kFloat, 1);
  EXPECT_EQ(run("one", options, true, {0.6}).result.best_step, 7);  // not measured again
}

TEST_F(Training, AResumedRunTakesAwayAPartOfALogsLastLine) {
  TrainOptions options = options_of(false);
  options.stop_after = 4;
  run("r", options);
  const std::string log = folder_.path("r/log.jsonl"), before = base::read_file(log);
  base::write_file_atomic(log, before + R"({"step": 5, "lo)");
  run("r", options, true);
  EXPECT_THAT(base::read_file(log),
              testing::StartsWith(before + "{\"step\":4,\"resumed\":true}\n"));
}

TEST_F(Training, LogsEachStepWithWhatItCost) {
  TrainOptions options = options_of(false);
  options.stop_after = 5;
  run("r", options);
  run("r", options, true, {0.25});
  std::istringstream lines(base::read_file(folder_.path("r/log.jsonl")));
  std::vector<int64_t> steps;
  int resumed = 0, validated = 0;
  for (std::string text; std::getline(lines, text);) {
    const base::Json line = base::parse_json(text, "log.jsonl");
    resumed += line.contains("resumed"), validated += line.contains("validation");
    if (line.contains("validation")) {
      EXPECT_EQ(line["validation"], 0.25);
      EXPECT_EQ(line["second"], 0.75);
    }
    if (!line.contains("loss")) continue;
    steps.push_back(line["step"].get<int64_t>());
    EXPECT_NEAR(line["learning_rate"].get<double>(),
                learning_rate(options.schedule, steps.back() - 1, 7), 1e-12);
    for (const char* key : {"gradient_norm", "examples", "learned_tokens", "tokens", "seconds",
                            "tokens_per_s", "share_of_gemm_peak"})
      EXPECT_GT(line.at(key).get<double>(), 0) << key;
  }
  EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(resumed, 1);
  EXPECT_EQ(validated, 1);
}

TEST_F(Training, ResumingAnotherRunNamesWhatDiffers) {
  TrainOptions options = options_of(false);
  options.stop_after = 2;
  run("r", options);
  const auto resume = [&](const base::Json& identity) {
    const base::Json before = identity_;
    identity_ = identity;
    const std::string text = fault([&] { run("r", options, true); });
    identity_ = before;
    return text;
  };
  EXPECT_THAT(resume({{"seed", "2"}, {"model", "tiny"}}),
              HasSubstr("another seed (\"1\", now \"2\")"));
  EXPECT_THAT(resume({{"seed", "1"}}), HasSubstr("another model (\"tiny\", now null)"));
  EXPECT_THAT(resume({{"seed", "1"}, {"model", "tiny"}, {"full", "true"}}),
              HasSubstr("another full (null, now \"true\")"));
  EXPECT_EQ(resume(identity_), "");
}

TEST_F(Training, WhatAKilledRunLeftUnfinishedIsNoCheckpoint) {
  TrainOptions options = options_of(false);
  options.stop_after = 2;
  run("r", options);
  for (const char* name :
       {"step-000004.unfinished", "step-x", "step-99999999999999999999", "step-5"}) {
    fs::create_directories(folder_.path("r/checkpoints/") + name);
    base::write_file_atomic(folder_.path("r/checkpoints/") + name + "/trainer.json", "{}");
  }
  EXPECT_EQ(newest_checkpoint(folder_.path("r")), 2);
  options.stop_after = 0;
  expect_same_bits(run("r", options, true), run("whole", options));
  EXPECT_EQ(newest_checkpoint(folder_.path("none")), std::nullopt);
}

TEST_F(Training, ADamagedNewestCheckpointIsSkippedForTheOneBefore) {
  const TrainOptions options = options_of(false);
  const Trained whole = run("whole", options);
  TrainOptions five = options;
  five.stop_after = 5;  // checkpoints after 4 and 5
  const auto damage = [&](const std::string& name, const char* file, size_t bytes) {
    run(name, five);
    const std::string path = folder_.path(name + "/checkpoints/step-000005/") + file;
    base::write_file_atomic(path, base::read_file(path).substr(0, bytes));
  };
  damage("a", "trainer.json", 0);
  damage("b", "trainer.json", 20);
  damage("c", "optimizer.safetensors", 300);
  damage("d", "adapter_model.safetensors", 0);
  run("e", five);
  fs::remove(folder_.path("e/checkpoints/step-000005/trainer.json"));
  run("f", five);
  fs::remove(folder_.path("f/checkpoints/step-000005/optimizer.safetensors"));
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) {
    expect_same_bits(whole, run(name, options, true));
    const std::string log = base::read_file(folder_.path(name + std::string("/log.jsonl")));
    EXPECT_THAT(log, HasSubstr("{\"step\":4,\"resumed\":true,\"skipped\":[")) << name;
    EXPECT_THAT(log, HasSubstr("step-000005")) << name;
    EXPECT_THAT(checkpoints(name), ::testing::Contains("step-000007")) << name;
  }
  // A run that stops before the damaged one removes it, and the good one stays.
  damage("g", "trainer.json", 0);
  TrainOptions none = options;
  none.keep_checkpoints = 1, none.stop_after = 1, none.checkpoint_steps = 0;
  run("g", none, true);
  EXPECT_THAT(checkpoints("g"), ElementsAre("step-000005"));
  expect_same_bits(whole, run("g", options, true));
  // The run's identity is looked at before its tensors.
  damage("h", "optimizer.safetensors", 300);
  identity_["seed"] = "2";
  EXPECT_THAT(fault([&] { run("h", options, true); }), HasSubstr("another seed"));
}

TEST_F(Training, OnlyItsOwnFilesGoWithAnOldCheckpoint) {
  TrainOptions options = options_of(false);
  options.stop_after = 2;
  run("r", options);
  const std::vector<std::string> notes = {"checkpoints/step-000002/notes", "checkpoints/notes",
                                          "best/notes"};
  for (const auto& name : notes) {
    fs::create_directories(fs::path(folder_.path("r/" + name)).parent_path());
    base::write_file_atomic(folder_.path("r/" + name), "foreign");
  }
  options.stop_after = 0;
  options.keep_checkpoints = 1;
  run("r", options, true, {0.1});
  for (const auto& name : notes)
    EXPECT_EQ(base::read_file(folder_.path("r/" + name)), "foreign") << name;
  EXPECT_EQ(newest_checkpoint(folder_.path("r")), 7);
  EXPECT_FALSE(base::file_exists(folder_.path("r/checkpoints/step-000002/trainer.json")));
  remove_run(folder_.path("r"));
  EXPECT_EQ(newest_checkpoint(folder_.path("r")), std::nullopt);
  EXPECT_FALSE(base::file_exists(folder_.path("r/log.jsonl")));
  EXPECT_FALSE(base::file_exists(folder_.path("r/best/adapter_model.safetensors")));
  for (const auto& name : notes)
    EXPECT_EQ(base::read_file(folder_.path("r/" + name)), "foreign") << name;
}

TEST_F(Training, ADamagedCheckpointIsOneClearError) {
  TrainOptions options = options_of(false);
  options.stop_after = 2;
  run("r", options);
  const std::string path = folder_.path("r/checkpoints/step-000002/");
  const auto with = [&](const std::string& name, const std::string& bytes) {
    const std::string before = base::read_file(path + name);
    base::write_file_atomic(path + name, bytes);
    const std::string text = fault([&] { run("r", options, true); });
    base::write_file_atomic(path + name, before);
    return text;
  };
  const std::string json = base::read_file(path + "trainer.json");
  const auto edited = [&](const char* key, const base::Json& value) {
    base::Json changed = base::parse_json(json, "trainer.json");
    changed[key] = value;
    return with("trainer.json", changed.dump());
  };
  EXPECT_THAT(with("trainer.json", "[]"), HasSubstr("not a checkpoint's description"));
  EXPECT_THAT(with("trainer.json", json.substr(0, json.size() / 2)), HasSubstr("trainer.json"));
  EXPECT_THAT(edited("identity", 3), HasSubstr("not a checkpoint's description"));
  EXPECT_THAT(edited("step", "2"), HasSubstr("step"));
  EXPECT_THAT(edited("step", -2), HasSubstr("its steps cannot be"));
  EXPECT_THAT(edited("best_step", 3), HasSubstr("its steps cannot be"));
  EXPECT_THAT(edited("num_steps", 9), HasSubstr("another steps (9, now 7)"));
  EXPECT_THAT(edited("best_metric", "x"), HasSubstr("best_metric"));
  for (const char* name : {"adapter_model.safetensors", "optimizer.safetensors"}) {
    const std::string bytes = base::read_file(path + name);
    for (const size_t size : {size_t{0}, size_t{5}, bytes.size() / 2, bytes.size() - 1})
      EXPECT_THAT(with(name, bytes.substr(0, size)), HasSubstr(name));
  }
  EXPECT_THAT(with("optimizer.safetensors", base::read_file(path + "adapter_model.safetensors")),
              HasSubstr("no tensor"));
  EXPECT_EQ(with("trainer.json", json), "");
}

}  // namespace
}  // namespace erank::train
