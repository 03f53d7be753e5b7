// Values out of GGUF's blocks, for kernels.cuh: eight at a time, which is what a thread unpacks.
#pragma once

#include <cstdint>

namespace erank::model::cuda {

__device__ inline float half_at(const uint8_t* p) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(p[0] | p[1] << 8)));
}

// Eight neighbouring values of a block of GGUF's, beginning with value `first`: the constructor
// reads what they share, (i) gives value first + i. What a block is: dequantize.h.
struct EightOfQ8 {
  static constexpr int kValues = 32, kBytes = 34;
  float d;
  const uint8_t* q;

  __device__ EightOfQ8(const uint8_t* p, int first) : d(half_at(p)), q(p + 2 + first) {}
  __device__ float operator()(int i) const { return d * static_cast<int8_t>(q[i]); }
};

// Q4_0, Q4_1, Q5_0, Q5_1: low nibbles are values 0 to 15, high ones 16 to 31.
template <bool has_fifth, bool has_offset>
struct EightOfNibbles {
  static constexpr int kHeader = has_offset ? 4 : 2;
  static constexpr int kValues = 32, kBytes = kHeader + (has_fifth ? 4 : 0) + 16;
  float d, m;
  int fifth, shift;
  const uint8_t* q;

  __device__ EightOfNibbles(const uint8_t* p, int first)
      : d(half_at(p)),
        m(has_offset ? half_at(p + 2) : 0.0f),
        fifth(has_fifth ? p[kHeader + first / 8] : 0),
        shift(first / 16 * 4),
        q(p + kBytes - 16 + first % 16) {}
  __device__ float operator()(int i) const {
    const int n = (q[i] >> shift & 15) | (fifth >> i & 1) << 4;
    return has_offset ? d * n + m : d * (n - (has_fifth ? 16 : 8));
  }
};

// Q4_K, Q5_K: of each 64 values low nibbles are the first 32.
template <bool has_fifth>
struct EightOfK {
  static constexpr int kValues = 256, kBytes = 16 + (has_fifth ? 32 : 0) + 128;
  float d, m;
  int group, shift;
  const uint8_t *high, *q;

  __device__ EightOfK(const uint8_t* p, int first)
      : group(first / 32),
        shift(group % 2 * 4),
        high(p + 16 + first % 32),
        q(p + kBytes - 128 + group / 2 * 32 + first % 32) {
    const uint8_t* const s = p + 4 + group;
    const int scale = group < 4 ? s[0] & 63 : (s[4] & 15) | s[-4] >> 6 << 4;
    const int offset = group < 4 ? s[4] & 63 : s[4] >> 4 | s[0] >> 6 << 4;
    d = half_at(p) * scale;
    m = half_at(p + 2) * offset;
  }
  __device__ float operator()(int i) const {
    const int n = (q[i] >> shift & 15) | (has_fifth ? (high[i] >> group & 1) << 4 : 0);
    return d * n - m;
  }
};

// Of each 128 values low nibbles are the first 64.
struct EightOfQ6K {
  static constexpr int kValues = 256, kBytes = 210;
  float d;
  int shift, high_shift;
  const uint8_t *high, *q;

  __device__ EightOfQ6K(const uint8_t* p, int first)
      : d(half_at(p + 208) * static_cast<int8_t>(p[192 + first / 16])),
        shift(first % 128 / 64 * 4),
        high_shift(first % 128 / 32 * 2),
        high(p + 128 + first / 128 * 32 + first % 32),
        q(p + first / 128 * 64 + first % 64) {}
  __device__ float operator()(int i) const {
    return d * (((q[i] >> shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
  }
};

}  // namespace erank::model::cuda
