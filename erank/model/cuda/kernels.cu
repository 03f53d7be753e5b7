// For nvcc, without libtorch's headers and flags: seconds, not minutes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "erank/model/cuda/kernels.cuh"

namespace erank::model::cuda {
namespace {

struct Launch {
  CUstream_st* stream;

  template <typename Args>
  void operator()(void (*kernel)(const Args), dim3 grid, int threads, const Args& args) const {
    kernel<<<grid, threads, 0, stream>>>(args);
  }
};

}  // namespace

const Kernels kGpuKernels = {
    [](const auto& args, CUstream_st* stream) { launch_add_norm(args, Launch{stream}); },
    [](const auto& args, CUstream_st* stream) { launch_silu_product(args, Launch{stream}); },
    [](const auto& args, CUstream_st* stream) { launch_rotate_and_store(args, Launch{stream}); },
    [](const auto& args, CUstream_st* stream) { launch_unpack(args, Launch{stream}); },
};

}  // namespace erank::model::cuda
