#include "tests/model/tiles_emulated.h"

#define ERANK_KERNEL_LEVEL emulated
#define ERANK_KERNEL_TILES 1
#include "erank/model/cpu/tiles.inc"

namespace erank::model::cpu::emulated {
namespace {

void require(bool condition) {
  if (!condition) __builtin_trap();
}

// Denormals are zeros, to tile instructions.
float flushed(float x) {
  return __builtin_fabsf(x) < __FLT_MIN__ ? __builtin_copysignf(0.0f, x) : x;
}
float bf16_at(const uint8_t* p) {
  uint16_t bits;
  __builtin_memcpy(&bits, p, 2);
  return flushed(load1(&bits));
}

struct Tile {
  int rows = 0, row_bytes = 0;  // zero: not configured
  uint8_t bytes[16][64] = {};
};

struct Tiles {
  static inline thread_local Tile tiles[8];
  static inline thread_local TileConfig current{};

  static void configure(const TileConfig& wanted) {
    if (__builtin_memcmp(&current, &wanted, sizeof(wanted)) == 0) return;
    current = wanted;
    uint8_t raw[64];
    __builtin_memcpy(raw, &wanted, sizeof(raw));
    require(raw[0] == 1 && raw[1] == 0);
    for (int i = 0; i < 64; ++i) {
      const bool reserved = (2 <= i && i < 16) || (32 <= i && i < 48) || 56 <= i;
      require(!reserved || raw[i] == 0);
    }
    for (int t = 0; t < 8; ++t) {
      tiles[t] = Tile{raw[48 + t], raw[16 + 2 * t] | raw[17 + 2 * t] << 8};
      require(tiles[t].rows <= 16 && tiles[t].row_bytes <= 64);
      require((tiles[t].rows == 0) == (tiles[t].row_bytes == 0));
    }
  }
  template <int t>
  static void load(const void* from, int64_t stride) {
    Tile& tile = tiles[t];
    require(tile.rows > 0);
    tile = Tile{tile.rows, tile.row_bytes};
    for (int r = 0; r < tile.rows; ++r)
      __builtin_memcpy(tile.bytes[r], static_cast<const char*>(from) + r * stride, tile.row_bytes);
  }
  template <int t>
  static void store(void* to, int64_t stride) {
    const Tile& tile = tiles[t];
    require(tile.rows > 0);
    for (int r = 0; r < tile.rows; ++r)
      __builtin_memcpy(static_cast<char*>(to) + r * stride, tile.bytes[r], tile.row_bytes);
  }
  template <int t>
  static void zero() {
    require(tiles[t].rows > 0);
    tiles[t] = Tile{tiles[t].rows, tiles[t].row_bytes};
  }

  static void require_product(const Tile& c, const Tile& a, const Tile& b) {
    require(c.rows > 0 && a.rows > 0 && b.rows > 0 && c.row_bytes % 4 == 0 && a.row_bytes % 4 == 0);
    require(c.rows == a.rows && c.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows);
  }
  template <int c, int a, int b>
  static void dot_bf16() {
    require_product(tiles[c], tiles[a], tiles[b]);
    for (int m = 0; m < tiles[a].rows; ++m) {
      float even[16] = {}, odd[16] = {};
      for (int k = 0; k < tiles[b].rows; ++k)
        for (int n = 0; n < tiles[c].row_bytes / 4; ++n) {
          const uint8_t *x = tiles[a].bytes[m] + 4 * k, *w = tiles[b].bytes[k] + 4 * n;
          even[n] = flushed(__builtin_fmaf(bf16_at(x), bf16_at(w), even[n]));
          odd[n] = flushed(__builtin_fmaf(bf16_at(x + 2), bf16_at(w + 2), odd[n]));
        }
      for (int n = 0; n < tiles[c].row_bytes / 4; ++n) {
        float y;
        __builtin_memcpy(&y, tiles[c].bytes[m] + 4 * n, 4);
        y = flushed(flushed(y) + flushed(even[n] + odd[n]));
        __builtin_memcpy(tiles[c].bytes[m] + 4 * n, &y, 4);
      }
    }
  }
  template <int c, int a, int b>
  static void dot_int8() {
    require_product(tiles[c], tiles[a], tiles[b]);
    for (int m = 0; m < tiles[a].rows; ++m)
      for (int k = 0; k < tiles[b].rows; ++k)
        for (int n = 0; n < tiles[c].row_bytes / 4; ++n) {
          int32_t y;
          __builtin_memcpy(&y, tiles[c].bytes[m] + 4 * n, 4);
          for (int i = 0; i < 4; ++i)
            y += tiles[a].bytes[m][4 * k + i] * static_cast<int8_t>(tiles[b].bytes[k][4 * n + i]);
          __builtin_memcpy(tiles[c].bytes[m] + 4 * n, &y, 4);
        }
  }

  static void release() {}
};

}  // namespace
}  // namespace erank::model::cpu::emulated

#include "erank/model/cpu/kernels.inc"
