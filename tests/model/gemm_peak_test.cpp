#include "erank/model/gemm_peak.h"

#include <gtest/gtest.h>

namespace erank::model {
namespace {

TEST(TinyGemmPeak, IsAPlausibleSpeedOfANamedProduct) {
  for (const Precision precision : {Precision::kFp32, Precision::kInt8}) {
    const GemmPeak peak = gemm_peak({.precision = precision, .threads = 1});
    EXPECT_TRUE(peak.name == "libtorch" || peak.name == "own") << peak.name;
    EXPECT_GT(peak.flops_per_s, 1e8);
    EXPECT_LT(peak.flops_per_s, 1e15);
    EXPECT_GE(peak.rows, 512);
  }
}

TEST(TinyGemmPeak, OfNoTimeIsThatOfTheFirstShape) {
  const GemmPeak peak = gemm_peak({.precision = Precision::kFp32, .threads = 1}, 0);
  EXPECT_GT(peak.flops_per_s, 1e8);
  EXPECT_EQ(peak.rows, 512);
}

}  // namespace
}  // namespace erank::model
