// What a trainer promises to objectives: preparation, figures, halts.
#include <ATen/Parallel.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <sstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/lora.h"
#include "erank/model/tensor_file.h"
#include "erank/train/loss.h"
#include "erank/train/trainer.h"
#include "tests/train/tiny_training.h"

namespace erank::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

// Reinforcement learning in small: an iteration takes the most probable token after each of six
// prompts from the weights as they are, and their probabilities; three steps learn two each.
class Iterations : public Objective {
 public:
  static constexpr int64_t kMiniBatches = 3, kExamples = 6, kSteps = 9;
  struct Killed {};

  // Called at each example of a preparation and at each step, with the step.
  std::function<void(int64_t step, bool preparing)> moment = [](int64_t, bool) {};
  std::function<std::string(int64_t step, bool preparing)> halt = [](int64_t, bool) { return ""; };
  double added_loss = 0;
  int64_t steps = kSteps;
  int num_prepared = 0;

  int64_t num_steps() const override { return steps; }
  Preparation prepare(const TrainedModel& model, int64_t step,
                      const WorkControl& control) override {
    const int64_t wanted = step / kMiniBatches;
    if (iteration_ == wanted) return {};
    iteration_ = -1;
    for (int64_t i = 0; i < kExamples; ++i) {
      moment(step, true);
      if (control.stop()) return {.complete = false, .figures = {}, .halt = ""};
      const Example example{"q", prompt(wanted, i), {{{}, {{0, 0}}}}};
      const auto micro = pack({{&example}}, {});
      const at::Tensor p = model.forward.forward(micro.front().batch).softmax(-1).reshape({-1});
      EXPECT_FALSE(p.requires_grad());
      tokens_[i] = p.argmax().to(at::kFloat).item<float>();
      values_[i] = p.max().item<float>();
    }
    iteration_ = wanted;
    ++num_prepared;
    return {
        .complete = true, .figures = {{"p", values_[0].item<double>()}}, .halt = halt(step, true)};
  }
  StepStats accumulate(const TrainedModel& model, int64_t step,
                       const std::function<void(const at::Tensor&)>& backward) override {
    EXPECT_EQ(iteration_, step / kMiniBatches);
    StepStats stats;
    for (int64_t i = step % kMiniBatches * 2, end = i + 2; i < end; ++i) {
      const auto token = static_cast<int32_t>(tokens_[i].item<float>());
      const Example example{"q",
                            prompt(iteration_, i),
                            {{{}, {{0, (token + 1) % kVocabulary, values_[i].item<float>()}}}}};
      for (const MicroBatch& micro : pack({{&example}}, {})) {
        const at::Tensor loss = answer_loss(model.forward.forward(micro.batch), micro.terms);
        stats.loss += loss.item<double>();
        stats.num_tokens += micro.num_tokens;
        backward(loss);
      }
    }
    moment(step, false);
    stats.loss += added_loss;
    stats.figures = {{"kl", 0.5}, {"clip_share", 0.25}};
    stats.halt = halt(step, false);
    return stats;
  }
  std::optional<Figures> validate(const TrainedModel&, const WorkControl&) override {
    return Figures{};
  }
  bool save(const std::string& path, int64_t step) const override {
    if (iteration_ < 0 || step / kMiniBatches != iteration_) return false;
    const at::Tensor iteration = at::tensor({static_cast<float>(iteration_)});
    model::save_tensors(path, {{"iteration", iteration}, {"tokens", tokens_}, {"values", values_}},
                        at::kFloat);
    return true;
  }
  void load(const std::string& path) override {
    iteration_ = -1;
    const at::Tensor iteration = at::zeros({1});
    model::load_tensors(path, {{"iteration", iteration}, {"tokens", tokens_}, {"values", values_}});
    iteration_ = static_cast<int64_t>(iteration.item<float>());
  }

 private:
  static text::Ids prompt(int64_t iteration, int64_t i) {
    base::Random random(base::derived_seed(5, static_cast<uint64_t>(iteration * kExamples + i)));
    return random_ids(random, 6);
  }
  int64_t iteration_ = -1;
  at::Tensor tokens_ = at::zeros({kExamples}), values_ = at::zeros({kExamples});
};

class Objectives : public ::testing::Test {
 protected:
  Objectives() {
    at::set_num_threads(1);  // many short runs
    options_.schedule.peak = 0.02;
    options_.checkpoint_steps = 2;
    options_.keep_checkpoints = 9;
    options_.gemm_peak = 1e10;
    options_.lora = model::LoraConfig{.rank = 3, .alpha = 6, .dropout = 0.3, .target_modules = {}};
  }
  ~Objectives() override { at::set_num_threads(threads_); }
  // The trained weights, whole or so far.
  std::vector<at::Tensor> run(
      const std::string& name, Iterations& objective,
      const std::function<bool()>& stop = [] { return false; }) {
    model::Parameters parameters(tiny_config(), at::kFloat);
    parameters.init_random(1, 0.15);
    Trainer trainer(parameters, objective, options_, folder_.path(name), {{"seed", "1"}});
    trainer.resume();
    trainer.run(nullptr, stop);
    std::vector<at::Tensor> weights;
    for (const auto& p : parameters.adapter(kTrainedAdapter)->named())
      weights.push_back(p.tensor.detach().clone());
    return weights;
  }
  std::string fault(const std::string& name, Iterations& objective) {
    try {
      run(name, objective);
    } catch (const base::Error& e) {
      return e.what();
    }
    return "";
  }
  std::string log(const std::string& name) const {
    return base::read_file(folder_.path(name + "/log.jsonl"));
  }
  bool prepared(const std::string& name, const std::string& step) const {
    return base::file_exists(
        folder_.path(name + "/checkpoints/step-00000" + step + "/prepared.safetensors"));
  }

  model::TestFolder folder_;
  TrainOptions options_;

 private:
  const int threads_ = at::get_num_threads();
};

void expect_same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << i;
}

TEST_F(Objectives, ARunKilledAtAnyMomentEndsWithTheBitsOfAnUnbrokenOne) {
  Iterations unbroken;
  const auto whole = run("whole", unbroken);
  EXPECT_EQ(unbroken.num_prepared, 3);
  for (int64_t step = 0; step < Iterations::kSteps; ++step)
    for (const bool preparing : {true, false}) {
      if (preparing && step % Iterations::kMiniBatches != 0) continue;
      const std::string name = base::str("killed", step, preparing);
      Iterations first, second;
      int examples = 0;
      first.moment = [&](int64_t now, bool in_preparation) {
        if (now == step && in_preparation == preparing && (!preparing || ++examples == 4))
          throw Iterations::Killed();
      };
      EXPECT_THROW(run(name, first), Iterations::Killed);
      expect_same_bits(run(name, second), whole);
    }
}

TEST_F(Objectives, ARunStoppedAtAnyMomentEndsWithTheBitsOfAnUnbrokenOne) {
  Iterations unbroken;
  const auto whole = run("whole", unbroken);
  // stop() is asked before each step, and at each example of a preparation.
  for (int at = 1; at <= 9 + 3 * 6; ++at) {
    const std::string name = base::str("stopped", at);
    Iterations first, second;
    int asked = 0;
    run(name, first, [&] { return ++asked >= at; });
    expect_same_bits(run(name, second), whole);
    // What was prepared is not prepared again.
    EXPECT_EQ(first.num_prepared + second.num_prepared, 3) << at;
  }
}

TEST_F(Objectives, ACheckpointHoldsWhatIsPreparedWhereAStepStillNeedsIt) {
  Iterations objective;
  run("r", objective);
  EXPECT_TRUE(prepared("r", "2"));
  EXPECT_TRUE(prepared("r", "4"));
  EXPECT_FALSE(prepared("r", "6"));  // the next iteration begins
  EXPECT_TRUE(prepared("r", "8"));
  EXPECT_FALSE(prepared("r", "9"));
  // Without it, or with a damaged one, the checkpoint before is gone on from.
  for (const bool cut : {false, true}) {
    const std::string name = cut ? "cut" : "lost";
    options_.stop_after = 5;
    Iterations first, second;
    run(name, first);
    const std::string path = folder_.path(name + "/checkpoints/step-000005/prepared.safetensors");
    if (cut)
      base::write_file_atomic(path, base::read_file(path).substr(0, 100));
    else
      fs::remove(path);
    options_.stop_after = 0;
    Iterations unbroken;
    expect_same_bits(run(name, second), run("whole" + name, unbroken));
    EXPECT_THAT(log(name), HasSubstr("\"step\":4,\"resumed\":true,\"skipped\""));
  }
}

TEST_F(Objectives, TheLogHasTheFiguresOfStepsAndPreparations) {
  Iterations objective;
  run("r", objective);
  std::istringstream lines(log("r"));
  int steps = 0, preparations = 0;
  for (std::string text; std::getline(lines, text);) {
    const base::Json line = base::parse_json(text, "log.jsonl");
    if (line.contains("prepared")) {
      EXPECT_EQ(line["step"], 3 * preparations++ + 1);
      EXPECT_GT(line["p"].get<double>(), 0);
      EXPECT_GT(line["seconds"].get<double>(), 0);
    } else {
      EXPECT_EQ(line["step"], ++steps);
      EXPECT_EQ(line["kl"], 0.5);
      EXPECT_EQ(line["clip_share"], 0.25);
      EXPECT_LT(text.find("\"kl\""), text.find("\"clip_share\""));
    }
  }
  EXPECT_EQ(steps, 9);
  EXPECT_EQ(preparations, 3);
}

TEST_F(Objectives, AHaltSavesNothingMoreAndNamesTheLastGoodCheckpoint) {
  const auto halted = [&](const std::string& name, int64_t step, bool preparing) {
    Iterations objective;
    objective.halt = [=](int64_t now, bool in_preparation) -> std::string {
      return now == step && in_preparation == preparing ? "the KL is over 3" : "";
    };
    return fault(name, objective);
  };
  // The weights of 4 steps are what step 5 found bad.
  std::string text = halted("a", 4, false);
  EXPECT_THAT(text, HasSubstr("step 5: the KL is over 3; the last good checkpoint is "));
  EXPECT_THAT(text, HasSubstr("/a/checkpoints/step-000002"));
  EXPECT_THAT(log("a"), HasSubstr("{\"step\":5,\"halted\":\"the KL is over 3\"}\n"));
  EXPECT_THAT(log("a"), Not(HasSubstr("\"step\":5,\"loss\"")));
  EXPECT_FALSE(fs::exists(folder_.path("a/checkpoints/step-000005")));
  text = halted("b", 3, true);
  EXPECT_THAT(text, HasSubstr("step 4: the KL is over 3; the last good checkpoint is "));
  EXPECT_THAT(text, HasSubstr("/b/checkpoints/step-000002"));
  EXPECT_THAT(halted("c", 0, true), HasSubstr("there is no checkpoint before it"));
}

TEST_F(Objectives, NothingThatIsNotFiniteIsSaved) {
  Iterations bad_loss;
  bad_loss.added_loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(fault("loss", bad_loss), HasSubstr("step 1: the loss is not finite"));
  Iterations bad_weights;
  options_.schedule.peak = 1e38;
  options_.schedule.warmup_ratio = 0;
  EXPECT_THAT(fault("rate", bad_weights), HasSubstr("not finite"));
  // Also where no step comes after it that could see it.
  Iterations last;
  options_.schedule.peak = 0.02;
  options_.checkpoint_steps = 0;
  options_.adamw.weight_decay = std::numeric_limits<double>::quiet_NaN();
  last.steps = 1;
  EXPECT_THAT(fault("last", last), HasSubstr("step 1: the weights are not finite after it"));
  EXPECT_TRUE(fs::is_empty(folder_.path("last/checkpoints")));
}

}  // namespace
}  // namespace erank::train
