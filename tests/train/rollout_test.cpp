// Sampling and learning in turn, in one process and on one thread: what reinforcement learning
// does.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "erank/engine/engine.h"
#include "erank/model/lora.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "erank/train/loss.h"
#include "erank/train/optimizer.h"
#include "erank/train/packing.h"
#include "erank/train/tree_forward.h"
#include "tests/train/tiny_training.h"

namespace erank::train {
namespace {

const text::Ids kPrompt = {5, 9, 22, 41, 7, 13};
constexpr int32_t kLearned = 30, kOther = 31;

// A network of the parameters and the engine on it.
struct Sampler {
  explicit Sampler(const model::Parameters& parameters)
      : network(model::make_network(model::ParametersSource(parameters),
                                    {.precision = model::Precision::kFp32, .threads = 1})),
        engine(*network, {.kv_cache_bytes = int64_t{1} << 20}) {}

  // Greedy tokens after the prompt and the probabilities of the two choices after them.
  engine::Completion sample() {
    engine::Completion result;
    engine.submit({.prompt = kPrompt, .max_new_tokens = 4, .choices = {{kLearned}, {kOther}}},
                  [&](engine::Completion completion) { result = std::move(completion); });
    engine.run();
    if (result.fault) std::rethrow_exception(result.fault);
    return result;
  }
  // The probability that kLearned comes right after the prompt.
  double p_learned() {
    double p = 0;
    engine.submit({.prompt = kPrompt, .choices = {{kLearned}, {kOther}}},
                  [&](const engine::Completion& completion) { p = completion.p_choices.at(0); });
    engine.run();
    return p;
  }

  std::unique_ptr<model::Network> network;
  engine::Engine engine;
};

class TinyRollouts : public ::testing::TestWithParam<bool> {
 protected:
  TinyRollouts() : parameters_(tiny_config(), at::kFloat) {
    parameters_.init_random(1, 0.15);
    if (!GetParam())
      parameters_.add_adapter(
          "a", model::make_adapter(tiny_config(), {.rank = 4, .target_modules = {}}, 2));
  }
  std::vector<model::NamedTensor> trained() const {
    return GetParam() ? parameters_.named() : parameters_.adapter("a")->named();
  }
  // One step towards kLearned after the prompt.
  void learn(TreeForward& forward, AdamW& optimizer, double rate) {
    const Example example{"q", kPrompt, {{{}, {{0, kLearned}}}}};
    for (const MicroBatch& micro : pack({{&example}}, {}))
      optimizer.backward(answer_loss(forward.forward(micro.batch), micro.terms));
    optimizer.step(rate);
  }

  model::Parameters parameters_;
};

TEST_P(TinyRollouts, SampleLearnAndSampleAgainInOneProcess) {
  Sampler sampler(parameters_);
  TreeForward forward(parameters_);
  AdamW optimizer(trained(), {});
  const double first = sampler.p_learned();
  const engine::Completion before = sampler.sample();
  double last = first;
  for (int step = 0; step < 3; ++step) {
    learn(forward, optimizer, 0.01);
    // Until it is told, the network keeps its own copy.
    EXPECT_NEAR(sampler.p_learned(), last, 1e-5 * last);
    sampler.engine.weights_changed(model::ParametersSource(parameters_));
    const double now = sampler.p_learned();
    EXPECT_GT(now, last) << step;
    last = now;
    sampler.engine.check_integrity();
  }
  EXPECT_GT(last, 2 * first);
  const engine::Completion after = sampler.sample();
  Sampler fresh(parameters_);
  EXPECT_EQ(fresh.p_learned(), last);
  const engine::Completion expected = fresh.sample();
  EXPECT_EQ(after.new_tokens, expected.new_tokens);
  EXPECT_EQ(after.p_choices, expected.p_choices);
  EXPECT_NE(after.p_choices, before.p_choices);
}

TEST_P(TinyRollouts, TheNetworksProbabilitiesAreThoseThatTrainingSees) {
  TreeForward forward(parameters_);
  AdamW optimizer(trained(), {});
  learn(forward, optimizer, 0.02);
  const Example example{"q", kPrompt, {{{}, {{0, kLearned}}}}};
  const at::NoGradGuard no_grad;
  const auto micro = pack({{&example}}, {});
  const double loss =
      answer_loss(forward.forward(micro.front().batch), micro.front().terms).item<double>();
  EXPECT_NEAR(-std::log(Sampler(parameters_).p_learned()), loss, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Tiny, TinyRollouts, ::testing::Bool(), [](const auto& info) {
  return info.param ? "EveryParameter" : "Adapter";
});

}  // namespace
}  // namespace erank::train
