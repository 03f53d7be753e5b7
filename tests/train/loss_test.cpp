#include "erank/train/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "erank/base/random.h"

namespace erank::train {
namespace {

TEST(AnswerLoss, EqualsAHandComputation) {
  // softmax(ln 1, ln 2, ln 5) = 1/8, 2/8, 5/8; softmax(0, 0, 0) = 1/3 each.
  const at::Tensor logits =
      at::tensor({std::log(1.0f), std::log(2.0f), std::log(5.0f), 0.0f, 0.0f, 0.0f}).view({2, 3});
  const auto loss = [&](const std::vector<LossTerm>& terms) {
    return answer_loss(logits, terms).item<double>();
  };
  EXPECT_NEAR(loss({{0, 2}}), -std::log(5.0 / 8), 1e-6);
  EXPECT_NEAR(loss({{0, 0, 0.5f}, {1, 2, 2}}), 0.5 * std::log(8.0) + 2 * std::log(3.0), 1e-6);
  EXPECT_NEAR(loss({{0, 1, 3, true}}), -3 * std::log(6.0 / 8), 1e-6);
  EXPECT_NEAR(loss({{0, 1}, {0, 1}, {1, 0, 1, true}}), 2 * std::log(4.0) - std::log(2.0 / 3), 1e-6);
}

TEST(AnswerLoss, HasTheGradientOfItsFiniteDifferences) {
  base::Random random(4);
  for (int trial = 0; trial < 5; ++trial) {
    const at::Tensor logits = (at::randn({4, 9}, at::dtype(at::kDouble)) * 2).requires_grad_(true);
    std::vector<LossTerm> terms;
    for (int i = 0; i < 12; ++i)
      terms.push_back({static_cast<int32_t>(random.below(4)), static_cast<int32_t>(random.below(9)),
                       static_cast<float>(random.uniform()), i % 3 == 0});
    answer_loss(logits, terms).backward();
    const at::Tensor gradient = logits.grad();
    for (int64_t row = 0; row < 4; ++row)
      for (int64_t column = 0; column < 9; ++column) {
        const auto loss_at = [&](double shift) {
          at::Tensor moved = logits.detach().clone();
          moved[row][column] += shift;
          return answer_loss(moved, terms).item<double>();
        };
        const double difference = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
        EXPECT_NEAR(gradient[row][column].item<double>(), difference, 1e-7);
      }
  }
}

TEST(AnswerLoss, IsFiniteWhereAProbabilityIsOneOrNought) {
  const at::Tensor logits = at::tensor({200.0f, 0.0f, 0.0f}).view({1, 3}).requires_grad_(true);
  const at::Tensor loss = answer_loss(logits, {{0, 0, 1, true}, {0, 1}, {0, 1, 1, true}});
  EXPECT_NEAR(loss.item<double>(), 200 - std::log(1e-6), 0.2);
  loss.backward();
  EXPECT_TRUE(std::isfinite(logits.grad().sum().item<double>()));
}

TEST(DeviceSum, IsThatOfAddingEachScalarInDouble) {
  DeviceSum sum;
  EXPECT_EQ(sum.value(), 0);
  double expected = 0;
  base::Random random(5);
  for (int i = 0; i < 100; ++i) {
    const auto value = static_cast<float>(random.uniform() * (i % 7 == 0 ? 1e6 : 1));
    sum.add(at::tensor(value).requires_grad_(true));
    expected += value;
  }
  EXPECT_EQ(sum.value(), expected);
}

}  // namespace
}  // namespace erank::train
