#include "erank/train/kernels/cpu_kernels.h"

#include <string_view>

#include "erank/model/cpu/kernels.h"

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

// model/cpu chooses; these kernels have no use for its bf16 and int8 instructions.
Level level() {
  const std::string_view chosen = model::cpu::kernels_level();
  if (chosen == "amx" || chosen.starts_with("avx512")) return Level::kAvx512;
  return chosen == "avx2" ? Level::kAvx2 : Level::kGeneric;
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

}  // namespace erank::train::kernels
