// The GEMM peak: the throughput of the fastest matrix product measured on this machine, to which
// training, benchmarks and documents relate their own.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "erank/model/network.h"

namespace erank::model {

struct GemmPeak {
  double flops_per_s = 0;  // int8: operations per second
  std::string name;        // of the fastest: "libtorch" or "own"
  int64_t rows = 0, in = 0, out = 0;
};

// The highest FLOP/s of matmuls [rows, in] x [in, out] over the shapes of small and large
// layers at 512 to 4096 rows, by libtorch and, on the CPU, by the network's own kernels (weights
// packed before). On options.threads threads. Measures anew at every call, for a few seconds, or
// for about `seconds` where that is less: then of fewer shapes, one at least.
GemmPeak gemm_peak(const NetworkOptions& options,
                   double seconds = std::numeric_limits<double>::infinity());

}  // namespace erank::model
