#include "erank/model/cpu/kernels.h"

#include <cstdlib>
#include <cstring>

namespace erank::model::cpu {

namespace generic {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx512bf16 {
extern const Kernels kKernels;
}
#endif

namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
  bool supported;
};

const Level& chosen() {
  static const Level level = [] {
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
    const bool dot =
        avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    const Level levels[] = {{"avx512bf16", &avx512bf16::kKernels, dot},
                            {"avx512", &avx512::kKernels, avx512},
                            {"avx2", &avx2::kKernels, avx2}};
    const char* wish = std::getenv("ERANK_CPU_LEVEL");
    bool wished = false;
    for (const Level& level : levels) {
      wished |= !wish || std::strcmp(wish, level.name) == 0;
      if (level.supported && wished) return level;
    }
#endif
    return Level{"generic", &generic::kKernels, true};
  }();
  return level;
}

}  // namespace

const Kernels& kernels() { return *chosen().kernels; }
const char* kernels_level() { return chosen().name; }

}  // namespace erank::model::cpu
