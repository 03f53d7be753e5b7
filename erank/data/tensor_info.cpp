#include "erank/data/tensor_info.h"

#include <algorithm>
#include <limits>

#include "erank/base/error.h"

namespace erank::data {
namespace {

struct Layout {
  const char* name;
  size_t block_values, block_bytes;
};

Layout layout_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {"F32", 1, 4};
    case DType::kF16:
      return {"F16", 1, 2};
    case DType::kBF16:
      return {"BF16", 1, 2};
    case DType::kI64:
      return {"I64", 1, 8};
    case DType::kI32:
      return {"I32", 1, 4};
    case DType::kU8:
      return {"U8", 1, 1};
    case DType::kI8:
      return {"I8", 1, 1};
    case DType::kF8_E4M3:
      return {"F8_E4M3", 1, 1};
    case DType::kQ8_0:
      return {"Q8_0", 32, 2 + 32};
    case DType::kQ4_0:
      return {"Q4_0", 32, 2 + 16};
    case DType::kQ4_1:
      return {"Q4_1", 32, 4 + 16};
    case DType::kQ5_0:
      return {"Q5_0", 32, 2 + 4 + 16};
    case DType::kQ5_1:
      return {"Q5_1", 32, 4 + 4 + 16};
    case DType::kQ4_K:
      return {"Q4_K", 256, 4 + 12 + 128};
    case DType::kQ5_K:
      return {"Q5_K", 256, 4 + 12 + 32 + 128};
    case DType::kQ6_K:
      return {"Q6_K", 256, 128 + 64 + 16 + 2};
  }
  ERANK_CHECK(false, "unknown DType ", static_cast<int>(dtype));
  return {};
}

}  // namespace

const char* dtype_name(DType dtype) { return layout_of(dtype).name; }
size_t dtype_block_values(DType dtype) { return layout_of(dtype).block_values; }
size_t dtype_block_bytes(DType dtype) { return layout_of(dtype).block_bytes; }

std::optional<size_t> tensor_bytes(DType dtype, const std::vector<int64_t>& shape) {
  const Layout layout = layout_of(dtype);
  const int64_t block = static_cast<int64_t>(layout.block_values);
  if ((shape.empty() ? 1 : shape.back()) % block != 0) return std::nullopt;
  int64_t values = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    empty = empty || size == 0;
    if (__builtin_mul_overflow(values, std::max<int64_t>(size, 1), &values)) return std::nullopt;
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(values / block, static_cast<int64_t>(layout.block_bytes), &bytes))
    return std::nullopt;
  return empty ? 0 : static_cast<size_t>(bytes);
}

std::string quoted_name(std::string_view name) {
  constexpr size_t kLongest = 80;
  std::string out = "'";
  for (const char c : name.substr(0, kLongest)) out += c >= ' ' && c <= '~' ? c : '?';
  if (name.size() > kLongest) out += "...";
  return out + "'";
}

}  // namespace erank::data
