#include "erank/model/make_network.h"

#include <string_view>

#include "erank/base/error.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/cpu/kernels.h"
#include "erank/model/cuda/cuda_network.h"
#include "erank/model/parameters.h"

namespace erank::model {

Precision usual_precision(bool cuda) {
  return usual_dtype(cuda ? at::kCUDA : at::kCPU) == at::kFloat ? Precision::kFp32
                                                                : Precision::kBf16;
}

bool int8_is_fast() {
  const std::string_view level = cpu::kernels_level();
  return level == "amx" || level == "avx512bf16";
}

std::unique_ptr<Network> make_network(const WeightSource& source, const NetworkOptions& options,
                                      base::ProgressSink* progress) {
  if (options.cuda)
    return std::make_unique<cuda::CudaNetwork>(source, options.precision, at::kCUDA, progress);
  return std::make_unique<cpu::CpuNetwork>(source, options.precision, options.threads, progress);
}

}  // namespace erank::model
