#include "erank/model/dequantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "erank/base/error.h"

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace erank::model {
namespace {

using data::DType;

static_assert(std::endian::native == std::endian::little);

// IEEE half to float without a branch, so that loops over it vectorise.
float half_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  // Rebias the exponent by 112, twice for infinity and NaN.
  const uint32_t rebias = magnitude >= 0x7c00u ? 224u << 23 : 112u << 23;
  const uint32_t normal = (magnitude << 13) + rebias;
  // A subnormal half is magnitude * 2^-24: the last bits of a float of [0.5, 1).
  const uint32_t small =
      std::bit_cast<uint32_t>(std::bit_cast<float>(0x3f000000u | magnitude) - 0.5f);
  return std::bit_cast<float>((magnitude < 0x400u ? small : normal) | sign);
}

float read_half(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, sizeof half);
  return half_to_float(half);
}

uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>(nan ? 0x7fc0u : rounded);
}

void q8_0(const uint8_t* p, float* out) {
  const float d = read_half(p);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(p[2 + i]));
}

// Low nibbles are values 0..15 of the block, high nibbles 16..31.
void q4_0(const uint8_t* p, float* out) {
  const float d = read_half(p);
  const uint8_t* q = p + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

void q4_1(const uint8_t* p, float* out) {
  const float d = read_half(p), m = read_half(p + 2);
  const uint8_t* q = p + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(q[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
  }
}

// The fifth bits of 32 values, as 0 or 16 each.
std::array<uint8_t, 32> fifth_bits(const uint8_t* p) {
  std::array<uint8_t, 32> out;
  for (int i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>((p[i / 8] >> (i % 8) & 1) << 4);
  return out;
}

void q5_0(const uint8_t* p, float* out) {
  const float d = read_half(p);
  const auto high = fifth_bits(p + 2);
  const uint8_t* q = p + 6;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(((q[i] & 15) | high[i]) - 16);
    out[i + 16] = d * static_cast<float>(((q[i] >> 4) | high[i + 16]) - 16);
  }
}

void q5_1(const uint8_t* p, float* out) {
  const float d = read_half(p), m = read_half(p + 2);
  const auto high = fifth_bits(p + 4);
  const uint8_t* q = p + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) | high[i]) + m;
    out[i + 16] = d * static_cast<float>((q[i] >> 4) | high[i + 16]) + m;
  }
}

// Scale and offset of one group of 32 values.
struct Group {
  float scale, offset;
};

// Twelve bytes hold eight 6-bit scales and eight 6-bit offsets: the first four of each are in the
// low bits of bytes 0..7, the rest in the nibbles of bytes 8..11 and the top bits of bytes 0..7.
std::array<Group, 8> k_groups(const uint8_t* p) {
  const float d = read_half(p), dmin = read_half(p + 2);
  const uint8_t* s = p + 4;
  std::array<Group, 8> out;
  for (int i = 0; i < 4; ++i) {
    out[i] = {d * static_cast<float>(s[i] & 63), dmin * static_cast<float>(s[i + 4] & 63)};
    out[i + 4] = {d * static_cast<float>((s[i + 8] & 15) | (s[i] >> 6 << 4)),
                  dmin * static_cast<float>((s[i + 8] >> 4) | (s[i + 4] >> 6 << 4))};
  }
  return out;
}

void q4_k(const uint8_t* p, float* out) {
  const auto groups = k_groups(p);
  const uint8_t* q = p + 16;
  for (int pair = 0; pair < 4; ++pair, q += 32, out += 64) {
    const auto [d0, m0] = groups[2 * pair];
    const auto [d1, m1] = groups[2 * pair + 1];
    for (int i = 0; i < 32; ++i) out[i] = d0 * static_cast<float>(q[i] & 15) - m0;
    for (int i = 0; i < 32; ++i) out[i + 32] = d1 * static_cast<float>(q[i] >> 4) - m1;
  }
}

void q5_k(const uint8_t* p, float* out) {
  const auto groups = k_groups(p);
  const uint8_t* high = p + 16;
  const uint8_t* q = p + 48;
  for (int pair = 0; pair < 4; ++pair, q += 32, out += 64) {
    const auto [d0, m0] = groups[2 * pair];
    const auto [d1, m1] = groups[2 * pair + 1];
    const int bit = 2 * pair;
    for (int i = 0; i < 32; ++i)
      out[i] = d0 * static_cast<float>((q[i] & 15) | (high[i] >> bit & 1) << 4) - m0;
    for (int i = 0; i < 32; ++i)
      out[i + 32] = d1 * static_cast<float>((q[i] >> 4) | (high[i] >> (bit + 1) & 1) << 4) - m1;
  }
}

// 16 values: the low four bits from q (shifted by `shift`), the top two from `high`.
template <int kShift, int kHighShift>
void q6_k_part(const uint8_t* q, const uint8_t* high, float d, float* out) {
  for (int i = 0; i < 16; ++i)
    out[i] =
        d * static_cast<float>(((q[i] >> kShift & 15) | (high[i] >> kHighShift & 3) << 4) - 32);
}

void q6_k(const uint8_t* p, float* out) {
  const uint8_t *q = p, *high = p + 128, *scales = p + 192;
  const float d = read_half(p + 208);
  for (int half = 0; half < 2; ++half, q += 64, high += 32, scales += 8, out += 128) {
    float ds[8];
    for (int i = 0; i < 8; ++i) ds[i] = d * static_cast<float>(static_cast<int8_t>(scales[i]));
    for (int i = 0; i < 2; ++i) {
      const int at = 16 * i;
      q6_k_part<0, 0>(q + at, high + at, ds[i], out + at);
      q6_k_part<0, 2>(q + 32 + at, high + at, ds[i + 2], out + 32 + at);
      q6_k_part<4, 4>(q + at, high + at, ds[i + 4], out + 64 + at);
      q6_k_part<4, 6>(q + 32 + at, high + at, ds[i + 6], out + 96 + at);
    }
  }
}

void f16(const uint8_t* p, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = read_half(p + 2 * i);
}

void bf16(const uint8_t* p, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, p + 2 * i, sizeof bits);
    out[i] = std::bit_cast<float>(uint32_t{bits} << 16);
  }
}

template <size_t kBlockBytes, size_t kBlockValues>
void each_block(void (&block)(const uint8_t*, float*), const uint8_t* p, float* out, size_t n) {
  for (; n > 0; n -= kBlockValues, p += kBlockBytes, out += kBlockValues) block(p, out);
}

void convert(DType dtype, const uint8_t* p, float* out, size_t n) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, p, n * sizeof(float));
      return;
    case DType::kF16:
      return f16(p, out, n);
    case DType::kBF16:
      return bf16(p, out, n);
    case DType::kQ8_0:
      return each_block<34, 32>(q8_0, p, out, n);
    case DType::kQ4_0:
      return each_block<18, 32>(q4_0, p, out, n);
    case DType::kQ4_1:
      return each_block<20, 32>(q4_1, p, out, n);
    case DType::kQ5_0:
      return each_block<22, 32>(q5_0, p, out, n);
    case DType::kQ5_1:
      return each_block<24, 32>(q5_1, p, out, n);
    case DType::kQ4_K:
      return each_block<144, 256>(q4_k, p, out, n);
    case DType::kQ5_K:
      return each_block<176, 256>(q5_k, p, out, n);
    case DType::kQ6_K:
      return each_block<210, 256>(q6_k, p, out, n);
    default:
      ERANK_CHECK(false, data::dtype_name(dtype), " holds no weights");
  }
}

void check_sizes(DType dtype, size_t bytes, size_t num_values) {
  const size_t values = data::dtype_block_values(dtype);
  ERANK_CHECK(
      num_values % values == 0 && bytes == num_values / values * data::dtype_block_bytes(dtype),
      bytes, " bytes of ", data::dtype_name(dtype), " for ", num_values, " values");
}

}  // namespace

void dequantize(DType dtype, std::span<const uint8_t> blocks, float* out, size_t num_values) {
  check_sizes(dtype, blocks.size(), num_values);
  convert(dtype, blocks.data(), out, num_values);
}

void dequantize_bf16(DType dtype, std::span<const uint8_t> blocks, uint16_t* out,
                     size_t num_values) {
  check_sizes(dtype, blocks.size(), num_values);
  if (dtype == DType::kBF16) {
    std::memcpy(out, blocks.data(), blocks.size());
    return;
  }
  constexpr size_t kPiece = 2048;  // whole blocks of every type; stays in the first-level cache
  std::array<float, kPiece> values;
  const size_t piece_bytes =
      kPiece / data::dtype_block_values(dtype) * data::dtype_block_bytes(dtype);
  const uint8_t* p = blocks.data();
  for (size_t at = 0; at < num_values; at += kPiece, p += piece_bytes) {
    const size_t n = std::min(kPiece, num_values - at);
    convert(dtype, p, values.data(), n);
    for (size_t i = 0; i < n; ++i) out[at + i] = to_bf16(values[i]);
  }
}

}  // namespace erank::model
