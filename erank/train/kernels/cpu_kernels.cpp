#include "erank/train/kernels/cpu_kernels.h"

#include <cstdlib>
#include <cstring>

namespace erank::train::kernels {

#define ERANK_DECLARE_LEVEL(level)             \
  namespace level {                            \
  extern const CpuKernels<float> kFloat;       \
  extern const CpuKernels<uint16_t> kBFloat16; \
  }
ERANK_DECLARE_LEVEL(generic)
#if defined(__x86_64__)
ERANK_DECLARE_LEVEL(avx2)
ERANK_DECLARE_LEVEL(avx512)
#endif
#undef ERANK_DECLARE_LEVEL

namespace {

enum class Level { kGeneric, kAvx2, kAvx512 };

Level choose() {
#if defined(__x86_64__)
  // ERANK_CPU_LEVEL=generic|avx2 chooses a lower level than the processor's: to test and to
  // compare.
  const char* wish = std::getenv("ERANK_CPU_LEVEL");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (wish && std::strcmp(wish, "generic") == 0) return Level::kGeneric;
  if (wish && std::strcmp(wish, "avx2") == 0 && avx2) return Level::kAvx2;
  if (avx512) return Level::kAvx512;
  if (avx2) return Level::kAvx2;
#endif
  return Level::kGeneric;
}

Level level() {
  static const Level chosen = choose();
  return chosen;
}

}  // namespace

template <>
const CpuKernels<float>& cpu_kernels<float>() {
#if defined(__x86_64__)
  if (level() == Level::kAvx512) return avx512::kFloat;
  if (level() == Level::kAvx2) return avx2::kFloat;
#endif
  return generic::kFloat;
}

template <>
const CpuKernels<uint16_t>& cpu_kernels<uint16_t>() {
#if defined(__x86_64__)
  if (level() == Level::kAvx512) return avx512::kBFloat16;
  if (level() == Level::kAvx2) return avx2::kBFloat16;
#endif
  return generic::kBFloat16;
}

const char* cpu_kernels_level() {
  switch (level()) {
    case Level::kAvx512:
      return "avx512";
    case Level::kAvx2:
      return "avx2";
    case Level::kGeneric:
      break;
  }
  return "generic";
}

}  // namespace erank::train::kernels
