#include "erank/train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/safetensors.h"
#include "tests/test_folder.h"
#include "tests/train/thread_ranks.h"

namespace erank::train {
namespace {

// Adam with decoupled weight decay of one value, in double.
struct ByHand {
  AdamWOptions options;
  double value = 0, m = 0, v = 0;
  int t = 0;
  void step(double gradient, double rate) {
    ++t;
    value -= rate * options.weight_decay * value;
    m = options.beta1 * m + (1 - options.beta1) * gradient;
    v = options.beta2 * v + (1 - options.beta2) * gradient * gradient;
    const double m_hat = m / (1 - std::pow(options.beta1, t));
    const double v_hat = v / (1 - std::pow(options.beta2, t));
    value -= rate * m_hat / (std::sqrt(v_hat) + options.epsilon);
  }
};

// The gradient of `parameter` becomes `values`.
at::Tensor loss_with(const at::Tensor& parameter, const std::vector<float>& values) {
  return (parameter.to(at::kFloat) * at::tensor(values)).sum();
}

TEST(AdamW, EqualsAHandComputationWithDecayAndClipping) {
  const AdamWOptions options{.beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.1, .clip_norm = 2};
  at::Tensor a = at::tensor({1.0f, -2.0f}), b = at::tensor({0.5f});
  AdamW optimizer({{"a", a}, {"b", b}}, options);
  ByHand hand[3] = {{options, 1}, {options, -2}, {options, 0.5}};
  const float gradients[][3] = {
      {0.1f, -0.2f, 0.3f}, {3, -4, 12}, {0, 0.5f, -1}, {-30, 1, 0}, {0.01f, 0.02f, 0.03f}};
  for (int i = 0; i < 5; ++i) {
    const float* g = gradients[i];
    const double rate = 0.1 / (i + 1);
    optimizer.backward(loss_with(a, {g[0], g[1]}) + loss_with(b, {g[2]}));
    const double norm = std::sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]);
    EXPECT_NEAR(optimizer.step(rate), norm, 1e-5 * norm);
    const double scale = std::min(1.0, 2 / norm);
    for (int j = 0; j < 3; ++j) hand[j].step(scale * g[j], rate);
    EXPECT_NEAR(a[0].item<double>(), hand[0].value, 1e-5) << i;
    EXPECT_NEAR(a[1].item<double>(), hand[1].value, 1e-5) << i;
    EXPECT_NEAR(b[0].item<double>(), hand[2].value, 1e-5) << i;
  }
  EXPECT_EQ(optimizer.num_steps(), 5);
}

TEST(AdamW, AddsThePassesOfAStepAndForgetsThemBehindIt) {
  const AdamWOptions options{.clip_norm = 0};
  at::Tensor whole = at::tensor({1.0f, 2.0f}), parts = whole.clone();
  AdamW one({{"p", whole}}, options), two({{"p", parts}}, options);
  for (int step = 0; step < 3; ++step) {
    one.backward(loss_with(whole, {4, -1}));
    two.backward(loss_with(parts, {3, 0}));
    two.backward(loss_with(parts, {1, -1}));
    EXPECT_DOUBLE_EQ(one.step(0.1), two.step(0.1));
    EXPECT_TRUE(at::equal(whole.detach(), parts.detach()));
  }
}

TEST(AdamW, LeavesOutGradientsThatAreNotFinite) {
  at::Tensor p = at::tensor({1.0f, 2.0f});
  AdamW optimizer({{"p", p}}, {});
  optimizer.backward(loss_with(p, {1, 1}));
  optimizer.step(0.1);
  const TestFolder folder;
  const at::Tensor before = p.detach().clone();
  optimizer.save(folder.path("before.safetensors"));
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    optimizer.backward(loss_with(p, {bad, 1}));
    EXPECT_FALSE(std::isfinite(optimizer.step(0.1)));
    EXPECT_TRUE(at::equal(p.detach(), before));
    optimizer.save(folder.path("after.safetensors"));
    EXPECT_EQ(base::read_file(folder.path("after.safetensors")),
              base::read_file(folder.path("before.safetensors")));
    EXPECT_EQ(optimizer.num_steps(), 1);
    EXPECT_TRUE(optimizer.is_finite());
  }
  optimizer.backward(loss_with(p, {1, 1}));
  EXPECT_NEAR(optimizer.step(0.1), std::sqrt(2), 1e-5);  // the bad gradients are forgotten
}

TEST(AdamW, KnowsWhetherWeightsAndMomentsAreFinite) {
  for (const auto type : {at::kFloat, at::kBFloat16})
    for (const double rate : {0.1, 1e36, std::nan(""), 1e39}) {
      at::Tensor p = at::tensor({1.0f, 2.0f}).to(type);
      AdamW optimizer({{"p", p}}, {});
      optimizer.backward(loss_with(p, {1, 1}));
      optimizer.step(rate);
      EXPECT_EQ(optimizer.is_finite(), rate < 1e37) << rate;
    }
}

TEST(AdamW, StepsTooSmallForBf16AddUpInTheMasters) {
  at::Tensor narrow = at::tensor({1.0f, -3.0f}).to(at::kBFloat16), wide = at::tensor({1.0f, -3.0f});
  AdamW a({{"p", narrow}}, {}), b({{"p", wide}}, {});
  EXPECT_EQ(a.state_bytes(), 2 * (12 + 4 + 2));  // state, gradient, a pass's gradient
  EXPECT_EQ(b.state_bytes(), 2 * (8 + 4 + 4));
  EXPECT_EQ(b.num_values(), 2);
  for (int step = 0; step < 40; ++step) {
    a.backward(loss_with(narrow, {0.5f, 0.25f}));
    b.backward(loss_with(wide, {0.5f, 0.25f}));
    a.step(2e-4), b.step(2e-4);
    EXPECT_TRUE(at::equal(narrow.detach(), wide.detach().to(at::kBFloat16)));
  }
  EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
  EXPECT_LT(narrow[0].item<double>(), 1);
}

TEST(AdamW, GoesOnFromItsStateAsIfItHadNotStopped) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor start = at::randn({5}).to(dtype);
    at::Tensor p = start.clone(), again = start.clone();
    const AdamWOptions options{.weight_decay = 0.01};
    AdamW first({{"p", p}}, options), second({{"p", again}}, options);
    const auto step = [](AdamW& optimizer, const at::Tensor& parameter, float g) {
      optimizer.backward(loss_with(parameter, {g, 1, -g, 2 * g, 0}));
      optimizer.step(1e-2);
    };
    for (int i = 0; i < 4; ++i) step(first, p, 0.3f * static_cast<float>(i));
    const TestFolder folder;
    first.save(folder.path("state.safetensors"));
    EXPECT_EQ(data::SafetensorsFile::open(folder.path("state.safetensors")).tensors().size(),
              dtype == at::kFloat ? 2u : 3u);
    if (dtype == at::kFloat) {
      const at::NoGradGuard no_grad;
      again.copy_(p);
    }
    second.load(folder.path("state.safetensors"), 4);
    for (int i = 0; i < 3; ++i) step(first, p, 0.7f), step(second, again, 0.7f);
    EXPECT_TRUE(at::equal(p.detach(), again.detach()));
  }
}

// Each rank has a part of the gradients; the sums of these are exact.
TEST(AdamW, RanksTogetherEqualOneAndHaveItsFile) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int size : {2, 3, 5}) {
      const std::vector<int64_t> sizes = {7, 1, 12};  // with five ranks two have none
      const auto make = [&] {
        std::vector<model::NamedTensor> parameters;
        for (size_t i = 0; i < sizes.size(); ++i)
          parameters.push_back({base::str("p", i), at::arange(sizes[i]).to(at::kFloat).to(dtype)});
        return parameters;
      };
      const AdamWOptions options{.weight_decay = 0.1, .clip_norm = 3};
      const auto learn = [&](AdamW& optimizer, std::vector<model::NamedTensor>& parameters,
                             double share) {
        for (int step = 0; step < 3; ++step) {
          at::Tensor loss = at::zeros({});
          for (const auto& p : parameters)
            loss = loss + (p.tensor.to(at::kFloat) * (step - 1.25)).sum() * share;
          if (share > 0) optimizer.backward(loss);  // a rank may have nothing to do
          optimizer.step(0.1);
        }
      };
      const TestFolder folder;
      auto expected = make();
      AdamW one(expected, options);
      learn(one, expected, 1);
      one.save(folder.path("one.safetensors"));
      EXPECT_TRUE(one.is_finite());

      run_ranks(size, [&](Communicator& ranks) {
        auto parameters = make();
        AdamW optimizer(parameters, options, ranks);
        learn(optimizer, parameters, ranks.rank() < 2 ? 0.5 : 0);
        for (size_t i = 0; i < parameters.size(); ++i)
          EXPECT_TRUE(at::equal(parameters[i].tensor.detach(), expected[i].tensor.detach()));
        optimizer.save(folder.path("ranks.safetensors"));
        EXPECT_TRUE(optimizer.is_finite());
        EXPECT_LT(optimizer.state_bytes(), one.state_bytes());
      });
      EXPECT_EQ(base::read_file(folder.path("ranks.safetensors")),
                base::read_file(folder.path("one.safetensors")));

      // Any number of ranks goes on from it.
      auto goes_on = make();
      for (size_t i = 0; i < sizes.size(); ++i)
        goes_on[i].tensor.copy_(expected[i].tensor.detach());
      AdamW again(goes_on, options);
      again.load(folder.path("ranks.safetensors"), 3);
      learn(again, goes_on, 1);
      run_ranks(size, [&](Communicator& ranks) {
        auto parameters = make();
        for (size_t i = 0; i < sizes.size(); ++i)
          parameters[i].tensor.copy_(expected[i].tensor.detach());
        AdamW optimizer(parameters, options, ranks);
        optimizer.load(folder.path("one.safetensors"), 3);
        learn(optimizer, parameters, ranks.rank() < 2 ? 0.5 : 0);
        for (size_t i = 0; i < parameters.size(); ++i)
          EXPECT_TRUE(at::equal(parameters[i].tensor.detach(), goes_on[i].tensor.detach()));
      });
    }
}

}  // namespace
}  // namespace erank::train
