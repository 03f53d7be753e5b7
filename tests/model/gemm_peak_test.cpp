#include "erank/model/gemm_peak.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace erank::model {
namespace {

TEST(TinyGemmPeak, IsTheFastestCandidatesOnItsBestShape) {
  const GemmPeak library = gemm_peak(at::kFloat, at::kCPU);
  EXPECT_EQ(library.name, "libtorch");
  EXPECT_GT(library.flops_per_s, 1e8);
  EXPECT_LT(library.flops_per_s, 1e15);
  // One that is faster than any machine on one shape, and slow on the others.
  const GemmShape best = gemm_peak_shapes()[1];
  const GemmCandidate own{"own", [&](const GemmShape& shape) -> std::function<void()> {
                            if (shape.rows == best.rows && shape.in == best.in) return [] {};
                            return
                                [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
                          }};
  const GemmPeak peak = gemm_peak(at::kFloat, at::kCPU, {own});
  EXPECT_EQ(peak.name, "own");
  EXPECT_EQ(peak.shape.rows, best.rows);
  EXPECT_EQ(peak.shape.in, best.in);
  EXPECT_GT(peak.flops_per_s, library.flops_per_s);
}

}  // namespace
}  // namespace erank::model
