#include "erank/rank/fusion.h"

#include <gtest/gtest.h>

namespace erank::rank {
namespace {

TEST(Fusion, ZScoresHaveMeanZeroAndPopulationDeviationOne) {
  const auto z = z_scores(std::vector<double>{1, 2, 3, 4});
  EXPECT_NEAR(z[0], -1.3416407864998738, 1e-15);
  EXPECT_NEAR(z[0] + z[1] + z[2] + z[3], 0, 1e-15);
  double squares = 0;
  for (double x : z) squares += x * x / 4;
  EXPECT_NEAR(squares, 1, 1e-15);
}

TEST(Fusion, AConstantListGivesZerosAlsoWhenItIsConstantOnlyUpToRounding) {
  EXPECT_EQ(z_scores(std::vector<double>{5, 5, 5}), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(z_scores(std::vector<double>{0.1, 0.1, 0.1}), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(z_scores(std::vector<double>{7}), (std::vector<double>{0}));
  EXPECT_TRUE(z_scores(std::vector<double>{}).empty());
}

TEST(Fusion, TheWeightBelongsToTheFirstStage) {
  const std::vector<double> first = {1, 0}, model = {0, 1};
  EXPECT_EQ(blend_z_scores(first, model, 1.0), (std::vector<double>{1, -1}));
  EXPECT_EQ(blend_z_scores(first, model, 0.0), (std::vector<double>{-1, 1}));
  const auto mixed = blend_z_scores(first, model, 0.2);
  EXPECT_NEAR(mixed[0], -0.6, 1e-12);
  EXPECT_NEAR(mixed[1], 0.6, 1e-12);
}

}  // namespace
}  // namespace erank::rank
