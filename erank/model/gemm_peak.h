// The GEMM peak: the speed of the best matrix product that this machine has been seen to do, which
// training, benches and documents measure themselves against.
#pragma once

#include <ATen/core/ScalarType.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace erank::model {

// y [rows, out] = x [rows, in] w^T, w [out, in]: 2 rows in out FLOPs.
struct GemmShape {
  int64_t rows, in, out;
  double flops() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
  }
};

// The shapes that are tried: those of the layers of small and large models at 512 to 4096 rows.
std::span<const GemmShape> gemm_peak_shapes();

// A way to compute a product beside libtorch's. `prepare` makes operands of random values for a
// shape and returns a call that computes the product once and returns when it is done.
struct GemmCandidate {
  std::string name;
  std::function<std::function<void()>(const GemmShape&)> prepare;
};

struct GemmPeak {
  double flops_per_s = 0;
  std::string name;  // of the fastest: "libtorch" or a candidate's
  GemmShape shape{};
};

// The highest FLOP/s over all shapes of libtorch's product in `dtype` on `device`, on
// at::get_num_threads() threads, and of `candidates`. Measures anew at every call, for a second or
// a few.
GemmPeak gemm_peak(at::ScalarType dtype, at::Device device,
                   const std::vector<GemmCandidate>& candidates = {});

}  // namespace erank::model
