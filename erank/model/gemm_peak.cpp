#include "erank/model/gemm_peak.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_int_mm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "erank/base/threads.h"
#include "erank/model/cpu/packed_matrix.h"
#include "erank/model/cpu/team.h"

namespace erank::model {
namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  int64_t rows, in, out;
};
constexpr Shape kShapes[] = {
    {512, 1024, 3072},  {2048, 576, 1536}, {2048, 1024, 3072},
    {1024, 2048, 2048}, {4096, 576, 3072}, {4096, 1024, 1024},
};
// Large enough that the time to launch and to wait for one does not count.
constexpr Shape kGpuShapes[] = {{8192, 4096, 4096}, {16384, 8192, 8192}};
// Of a shape: at least so many calls, then more until the time is over. The first one is slow: it
// compiles and touches its memory.
constexpr int kMinCalls = 4, kMaxCalls = 30;
constexpr double kSeconds = 0.1;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::function<void()> libtorch_product(const Shape& shape, const NetworkOptions& options) {
  if (options.precision == Precision::kInt8 && !options.gpu) {
    const at::Tensor x = at::randint(-127, 127, {shape.rows, shape.in}, at::kChar),
                     w = at::randint(-127, 127, {shape.in, shape.out}, at::kChar);
    return [x, w] { at::_int_mm(x, w); };
  }
  const auto tensor =
      at::TensorOptions()
          .dtype(options.precision == Precision::kFp32 ? at::kFloat : at::kBFloat16)
          .device(options.gpu ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(*options.gpu))
                              : at::Device(at::kCPU));
  const at::Tensor x = at::rand({shape.rows, shape.in}, tensor),
                   w = at::rand({shape.out, shape.in}, tensor);
  // Reading a value waits for a GPU.
  return [x, w] { at::linear(x, w).select(0, 0).select(0, 0).to(at::kCPU); };
}

// Each member multiplies rows of its own by all panels.
std::function<void()> own_product(const Shape& shape, Precision precision, cpu::Team& team) {
  auto matrix = std::make_shared<cpu::PackedMatrix>(shape.out, shape.in, precision);
  const at::Tensor row = at::rand({shape.in}, at::kFloat);
  const at::Tensor values = precision == Precision::kBf16 ? row.to(at::kBFloat16) : row;
  for (int64_t n = 0; n < shape.out; ++n)
    matrix->set(n, values.const_data_ptr(), shape.in, nullptr);
  const int64_t ldx = matrix->inputs();
  at::Tensor x;
  if (precision == Precision::kInt8)
    x = at::randint(1, 255, {shape.rows, ldx}, at::kByte);
  else
    x = at::rand({shape.rows, ldx}, values.options());
  const at::Tensor scales = at::rand({shape.rows}, at::kFloat);
  constexpr int64_t kBlock = 96;
  auto y = std::make_shared<std::vector<std::vector<float>>>(
      team.size(), std::vector<float>(kBlock * cpu::kPanel));
  return [=, &team] {
    team.run([&](int member) {
      const int64_t blocks = (shape.rows + kBlock - 1) / kBlock;
      for (int64_t block = member; block < blocks; block += team.size()) {
        const int64_t begin = block * kBlock;
        const cpu::PackedMatrix::Rows rows{
            static_cast<const char*>(x.const_data_ptr()) + begin * ldx * x.element_size(), ldx,
            scales.const_data_ptr<float>() + begin, std::min(kBlock, shape.rows - begin)};
        for (int64_t panel = 0; panel < matrix->num_panels(); ++panel)
          matrix->multiply(rows, panel, (*y)[member].data(), cpu::kPanel);
      }
    });
  };
}

void measure(const std::function<void()>& product, const char* name, const Shape& shape,
             double seconds_left, GemmPeak& peak) {
  const double flops =
      2.0 * static_cast<double>(shape.rows * shape.in) * static_cast<double>(shape.out);
  const auto begin = Clock::now();
  const auto more = [&](int calls) {
    const double seconds = seconds_since(begin);
    return calls == 0 || (seconds < seconds_left && (calls < kMinCalls || seconds < kSeconds));
  };
  for (int i = 0; i < kMaxCalls && more(i); ++i) {
    const auto start = Clock::now();
    product();
    const double speed = flops / seconds_since(start);
    if (speed > peak.flops_per_s) peak = {speed, name, shape.rows, shape.in, shape.out};
  }
}

}  // namespace

GemmPeak gemm_peak(const NetworkOptions& options, double seconds) {
  const at::NoGradGuard no_grad;
  const auto begin = Clock::now();
  const auto left = [&] { return seconds - seconds_since(begin); };
  std::optional<cpu::Team> team;
  if (!options.gpu) team.emplace(options.threads > 0 ? options.threads : base::num_processors());
  GemmPeak peak;
  const std::span<const Shape> shapes =
      options.gpu ? std::span<const Shape>(kGpuShapes) : std::span<const Shape>(kShapes);
  for (const Shape& shape : shapes) {
    if (peak.flops_per_s > 0 && left() <= 0) break;
    measure(libtorch_product(shape, options), "libtorch", shape, left(), peak);
    if (team) measure(own_product(shape, options.precision, *team), "own", shape, left(), peak);
  }
  return peak;
}

}  // namespace erank::model
