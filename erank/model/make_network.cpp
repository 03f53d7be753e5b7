#include "erank/model/make_network.h"

#include <new>
#include <string_view>

#include "erank/base/error.h"
#include "erank/base/memory.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/cpu/kernels.h"
#include "erank/model/cuda/cuda_network.h"
#include "erank/model/memory_need.h"
#include "erank/model/parameters.h"

namespace erank::model {

Precision usual_precision(bool cuda) {
  return usual_dtype(cuda ? at::kCUDA : at::kCPU) == at::kFloat ? Precision::kFp32
                                                                : Precision::kBf16;
}

Precision product_precision(Precision precision, bool cuda) {
  return precision == Precision::kGguf ? usual_precision(cuda) : precision;
}

bool int8_is_fast() { return cpu::kernels_level() == std::string_view("avx512bf16"); }

void check_gpu(int number) { cuda::check_gpu(number, cuda::count_gpus()); }

std::unique_ptr<Network> make_network(const WeightSource& source, const NetworkOptions& options,
                                      base::ProgressSink* progress) {
  if (options.gpu) {
    check_precision(source, options.precision);
    check_gpu(*options.gpu);
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(*options.gpu));
    return std::make_unique<cuda::CudaNetwork>(source, options.precision, device, progress);
  }
  check_memory(source, options, base::available_memory());
  try {
    return std::make_unique<cpu::CpuNetwork>(source, options.precision, options.threads, progress);
  } catch (const std::bad_alloc&) {
  } catch (const base::Error& error) {
    if (error.kind() != base::ErrorKind::kExhausted) throw;
  }
  refuse_memory(source, options, base::available_memory());
}

}  // namespace erank::model
