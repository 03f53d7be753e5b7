#include "erank/model/dequantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "erank/base/error.h"
#include "erank/model/weight_kernels.h"

namespace erank::model {
namespace {

using data::DType;

static_assert(std::endian::native == std::endian::little);

void convert(DType dtype, const uint8_t* p, float* out, size_t n) {
  const WeightKernels& kernels = weight_kernels();
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, p, n * sizeof(float));
      return;
    case DType::kF16:
      return kernels.f16(p, out, n);
    case DType::kBF16:
      return kernels.bf16(p, out, n);
    case DType::kQ8_0:
      return kernels.q8_0(p, out, n);
    case DType::kQ4_0:
      return kernels.q4_0(p, out, n);
    case DType::kQ4_1:
      return kernels.q4_1(p, out, n);
    case DType::kQ5_0:
      return kernels.q5_0(p, out, n);
    case DType::kQ5_1:
      return kernels.q5_1(p, out, n);
    case DType::kQ4_K:
      return kernels.q4_k(p, out, n);
    case DType::kQ5_K:
      return kernels.q5_k(p, out, n);
    case DType::kQ6_K:
      return kernels.q6_k(p, out, n);
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
    weight_kernels().to_bf16(values.data(), out + at, n);
  }
}

}  // namespace erank::model
