// AMX with BF16 and INT8, for the products of bf16 and int8 and attention; AVX-512 with BF16 and
// VNNI for the rest.
#define ERANK_KERNEL_LEVEL amx
#define ERANK_KERNEL_WIDE 1
#define ERANK_KERNEL_DOT 1
#define ERANK_KERNEL_TILES 1
#include "erank/model/cpu/tiles.inc"

namespace erank::model::cpu::amx {
namespace {

// In assembler, since GCC 12's intrinsics do not tell the compiler that they read memory.
struct Tiles {
  static void configure(const TileConfig& wanted) {
    TileConfig now;
    asm volatile("sttilecfg %0" : "=m"(now));
    if (__builtin_memcmp(&now, &wanted, sizeof(now)) != 0)
      asm volatile("ldtilecfg %0" : : "m"(wanted));
  }
  template <int t>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(t) : "memory");
  }
  template <int t>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(t) : "memory");
  }
  template <int t>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(t));
  }
  template <int c, int a, int b>
  static void dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
  template <int c, int a, int b>
  static void dot_int8() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
  static void release() { asm volatile("tilerelease"); }
};

}  // namespace
}  // namespace erank::model::cpu::amx

#include "erank/model/cpu/kernels.inc"
