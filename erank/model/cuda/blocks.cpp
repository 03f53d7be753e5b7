#include "erank/model/cuda/blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include "erank/base/error.h"

namespace erank::model::cuda {
namespace {

using data::DType;

at::Tensor floats(const at::Tensor& x) { return x.to(at::kFloat); }

// Bytes of each block as numbers of another type.
at::Tensor numbers(const at::Tensor& blocks, int64_t first, int64_t bytes, at::ScalarType type) {
  return floats(blocks.narrow(1, first, bytes).clone(at::MemoryFormat::Contiguous).view(type));
}

at::Tensor half(const at::Tensor& blocks, int64_t first) {
  return numbers(blocks, first, 2, at::kHalf);
}

at::Tensor low(const at::Tensor& q) { return q.bitwise_and(15); }
at::Tensor high(const at::Tensor& q) { return q.__rshift__(4); }

// `count` groups of `bits` bits of each byte, lowest first, in a new dimension before the last.
at::Tensor groups_of_bits(const at::Tensor& bytes, int64_t count, int64_t bits) {
  const at::Tensor shifts = at::arange(0, count * bits, bits, bytes.options()).unsqueeze(1);
  return bytes.unsqueeze(-2).__rshift__(shifts).bitwise_and((1 << bits) - 1);
}

// Q4_0, Q4_1, Q5_0, Q5_1.
at::Tensor blocks_of_32(const at::Tensor& blocks, bool has_fifth, bool has_offset) {
  const int64_t header = has_offset ? 4 : 2;
  const at::Tensor q = blocks.narrow(1, blocks.size(1) - 16, 16);
  at::Tensor n = at::cat({low(q), high(q)}, 1);
  if (has_fifth) {
    const at::Tensor bytes = blocks.narrow(1, header, 4).unsqueeze(2);
    n = n + groups_of_bits(bytes, 8, 1).flatten(1) * 16;
  }
  if (has_offset) return half(blocks, 0) * floats(n) + half(blocks, 2);
  return half(blocks, 0) * (floats(n) - (has_fifth ? 16 : 8));
}

at::Tensor blocks_of_k(const at::Tensor& blocks, bool has_fifth) {
  const at::Tensor a = blocks.narrow(1, 4, 4), b = blocks.narrow(1, 8, 4),
                   c = blocks.narrow(1, 12, 4);
  const auto six_bits = [&](const at::Tensor& first, const at::Tensor& nibbles) {
    return floats(at::cat({first.bitwise_and(63), nibbles + first.__rshift__(6) * 16}, 1));
  };
  const at::Tensor d = half(blocks, 0) * six_bits(a, low(c)),
                   m = half(blocks, 2) * six_bits(b, high(c));
  const at::Tensor q = blocks.narrow(1, blocks.size(1) - 128, 128).reshape({-1, 4, 32});
  at::Tensor n = at::stack({low(q), high(q)}, 2).view({-1, 8, 32});
  if (has_fifth) n = n + groups_of_bits(blocks.narrow(1, 16, 32), 8, 1) * 16;
  return (d.unsqueeze(2) * floats(n) - m.unsqueeze(2)).flatten(1);
}

at::Tensor blocks_of_q6_k(const at::Tensor& blocks) {
  const at::Tensor q = blocks.narrow(1, 0, 128).reshape({-1, 2, 64}),
                   top = blocks.narrow(1, 128, 64).reshape({-1, 2, 32});
  const at::Tensor n = at::cat({low(q), high(q)}, 2) + groups_of_bits(top, 4, 2).flatten(2) * 16;
  const at::Tensor d = half(blocks, 208) * numbers(blocks, 192, 16, at::kChar);
  return (d.unsqueeze(2) * (floats(n.view({-1, 16, 16})) - 32)).flatten(1);
}

}  // namespace

at::Tensor unpack_blocks(DType format, const at::Tensor& blocks) {
  switch (format) {
    case DType::kQ8_0:
      return half(blocks, 0) * numbers(blocks, 2, 32, at::kChar);
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
      return blocks_of_32(blocks, format == DType::kQ5_0 || format == DType::kQ5_1,
                          format == DType::kQ4_1 || format == DType::kQ5_1);
    case DType::kQ4_K:
    case DType::kQ5_K:
      return blocks_of_k(blocks, format == DType::kQ5_K);
    case DType::kQ6_K:
      return blocks_of_q6_k(blocks);
    default:
      ERANK_CHECK(false, data::dtype_name(format), " has no blocks");
  }
  return {};
}

}  // namespace erank::model::cuda
