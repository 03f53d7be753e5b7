#include "erank/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace erank::train {
namespace {

TEST(LearningRate, RisesInALineAndFallsInACosine) {
  const Schedule schedule{.peak = 2, .warmup_ratio = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 0, 40), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 3, 40), 2);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 4, 40), 2);
  EXPECT_NEAR(learning_rate(schedule, 22, 40), 1, 1e-12);
  EXPECT_NEAR(learning_rate(schedule, 13, 40), 1 + std::cos(std::acos(-1.0) / 4), 1e-12);
  EXPECT_GT(learning_rate(schedule, 39, 40), 0);
  EXPECT_LT(learning_rate(schedule, 39, 40), 0.01);
  for (int64_t step = 5; step < 40; ++step)
    EXPECT_LT(learning_rate(schedule, step, 40), learning_rate(schedule, step - 1, 40));
}

TEST(LearningRate, WarmsUpForTheRatioRoundedUp) {
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1, .warmup_ratio = 0.05}, 0, 21), 0.5);
  // 0.1 * 30 is a little more than 3 in binary.
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1, .warmup_ratio = 0.1}, 0, 30), 1.0 / 3);
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1, .warmup_ratio = 1}, 2, 4), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1, .warmup_ratio = 0}, 0, 4), 1);
}

TEST(LearningRate, EndsAtItsFloorOrStaysConstant) {
  const Schedule floored{.peak = 1, .warmup_ratio = 0, .floor_ratio = 0.2};
  EXPECT_NEAR(learning_rate(floored, 50, 100), 0.6, 1e-12);
  EXPECT_NEAR(learning_rate(floored, 100, 100), 0.2, 1e-12);
  const Schedule constant{.peak = 1, .warmup_ratio = 0.5, .constant = true};
  EXPECT_DOUBLE_EQ(learning_rate(constant, 1, 4), 1);
  EXPECT_DOUBLE_EQ(learning_rate(constant, 3, 4), 1);
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 1}, 0, 1), 1);  // a run of one step
}

}  // namespace
}  // namespace erank::train
