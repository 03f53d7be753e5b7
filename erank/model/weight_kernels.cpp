#include "erank/model/weight_kernels.h"

#include <string_view>

#include "erank/model/cpu/kernels.h"

namespace erank::model {

namespace generic {
extern const WeightKernels kWeightKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const WeightKernels kWeightKernels;
}
namespace avx512 {
extern const WeightKernels kWeightKernels;
}
#endif

const WeightKernels& weight_kernels() {
  static const WeightKernels& chosen = []() -> const WeightKernels& {
#if defined(__x86_64__)
    const std::string_view level = cpu::kernels_level();
    if (level == "avx2") return avx2::kWeightKernels;
    if (level != "generic") return avx512::kWeightKernels;  // it and what comes after it
#endif
    return generic::kWeightKernels;
  }();
  return chosen;
}

}  // namespace erank::model
