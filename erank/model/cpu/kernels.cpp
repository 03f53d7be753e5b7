#include "erank/model/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
namespace amx {
extern const Kernels kKernels;
}
#endif

namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
  bool supported;
};

#if defined(__x86_64__)
// Whether the processor has tiles with bf16 and int8 products, and the system saves them and lets
// this process use them.
bool has_amx() {
  uint32_t a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr uint32_t kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & (kBf16 | kTile | kInt8)) != (kBf16 | kTile | kInt8)) return false;
  __cpuid(1, a, b, c, d);
  if ((c & bit_OSXSAVE) == 0) return false;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr uint32_t kTileConfig = 1u << 17, kTileData = 1u << 18;
  if ((low & (kTileConfig | kTileData)) != (kTileConfig | kTileData)) return false;
  constexpr int kRequestPermission = 0x1023, kTileDataFeature = 18;  // of arch_prctl(2)
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileDataFeature) == 0;
}
#endif

const Level& chosen() {
  static const Level level = [] {
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
    const bool dot =
        avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    const char* wish = std::getenv("ERANK_CPU_LEVEL");
    const bool tiles = dot && (!wish || std::strcmp(wish, "amx") == 0) && has_amx();
    const Level levels[] = {{"amx", &amx::kKernels, tiles},
                            {"avx512bf16", &avx512bf16::kKernels, dot},
                            {"avx512", &avx512::kKernels, avx512},
                            {"avx2", &avx2::kKernels, avx2}};
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
