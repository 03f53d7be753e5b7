// What the headers of weight files say about a tensor. Bytes stay in the mapped file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace erank::data {

// Every element type that the readers accept. The Q* types are GGUF's block formats (32 or 256
// values a block).
enum class DType {
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kU8,
  kI8,
  kF8_E4M3,  // 4 bits of exponent, 3 of mantissa, no infinity: torch's float8_e4m3fn
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

const char* dtype_name(DType dtype);     // "F32", "Q4_K"
size_t dtype_block_values(DType dtype);  // values a block: 1 for plain types, else 32 or 256
size_t dtype_block_bytes(DType dtype);   // bytes a block

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // slowest dimension first, in both file kinds
  // Byte range [begin, end) inside the mapped file, checked to lie in it and to be the shape's
  // size. A safetensors file may put it at any address: copy the values out, do not cast the
  // pointer.
  size_t begin = 0;
  size_t end = 0;
  size_t part = 0;  // of a GGUF in several files: which one
};

// Bytes of a tensor of this shape; a shape without dimensions holds one value. Nothing when a
// dimension is negative, when the number of values (zero dimensions left out) or of bytes is over
// 2^63 - 1, or when the last dimension is not whole blocks.
std::optional<size_t> tensor_bytes(DType dtype, const std::vector<int64_t>& shape);

// 'name' for a message: at most 80 bytes of it, whatever is not printable ASCII as '?'.
std::string quoted_name(std::string_view name);

}  // namespace erank::data
