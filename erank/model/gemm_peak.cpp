#include "erank/model/gemm_peak.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>

#include <algorithm>
#include <chrono>

namespace erank::model {
namespace {

using Clock = std::chrono::steady_clock;

constexpr GemmShape kShapes[] = {
    {2048, 1024, 3072}, {2048, 576, 1536}, {512, 1024, 3072},
    {1024, 2048, 2048}, {4096, 576, 3072}, {4096, 1024, 1024},
};
// Of a shape: at least so many calls, then more until the time is over.
constexpr int kMinCalls = 3, kMaxCalls = 30;
constexpr double kSeconds = 0.1;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::function<void()> libtorch_product(const GemmShape& shape, at::TensorOptions options) {
  const at::Tensor x = at::rand({shape.rows, shape.in}, options),
                   w = at::rand({shape.out, shape.in}, options);
  // Reading a value waits for a GPU.
  return [x, w] { at::linear(x, w).select(0, 0).select(0, 0).to(at::kCPU); };
}

}  // namespace

std::span<const GemmShape> gemm_peak_shapes() { return kShapes; }

GemmPeak gemm_peak(at::ScalarType dtype, at::Device device,
                   const std::vector<GemmCandidate>& candidates) {
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  std::vector<GemmCandidate> all = {
      {"libtorch", [&](const GemmShape& shape) { return libtorch_product(shape, options); }}};
  all.insert(all.end(), candidates.begin(), candidates.end());
  GemmPeak peak;
  for (const GemmCandidate& candidate : all)
    for (const GemmShape& shape : kShapes) {
      const auto product = candidate.prepare(shape);
      product();  // compiles, touches its memory
      const auto begin = Clock::now();
      for (int i = 0; i < kMaxCalls && (i < kMinCalls || seconds_since(begin) < kSeconds); ++i) {
        const auto start = Clock::now();
        product();
        const double speed = shape.flops() / seconds_since(start);
        if (speed > peak.flops_per_s) peak = {speed, candidate.name, shape};
      }
    }
  return peak;
}

}  // namespace erank::model
