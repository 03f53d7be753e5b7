#include "erank/model/random_source.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/model/dequantize.h"
#include "erank/model/weight_kernels.h"

namespace erank::model {
namespace {

using data::DType;

constexpr float kDeviation = 0.02f;

void put_half(uint8_t* to, float value) {
  const uint16_t bits = c10::Half(value).x;
  std::memcpy(to, &bits, 2);
}

// Gives a block of random bytes scales and offsets for values of mean 0; dequantize.h and
// weight_kernels.inc say where they are.
void scale_block(DType format, uint8_t* block) {
  constexpr float kNibble = 4.6f;  // the deviation of 0 .. 15
  switch (format) {
    case DType::kQ4_0:
      return put_half(block, kDeviation / kNibble);
    case DType::kQ8_0:
      return put_half(block, kDeviation / 73.9f);
    case DType::kQ4_K: {
      // Every scale is 32 and every offset 60, which with dmin = 4 d is 7.5 * 32 d.
      constexpr float kScale = kDeviation / kNibble / 32;
      put_half(block, kScale);
      put_half(block + 2, 4 * kScale);
      std::memset(block + 4, 32 | 2 << 6, 4);
      std::memset(block + 8, 60 | 3 << 6, 4);
      std::memset(block + 12, 0xc0, 4);
      return;
    }
    case DType::kQ6_K:
      std::memset(block + 192, 8, 16);
      return put_half(block + 208, kDeviation / 18.5f / 8);
    default:
      ERANK_CHECK(false, "no random blocks of ", data::dtype_name(format));
  }
}

}  // namespace

float cheap_normal(uint64_t bits) {
  const auto sum = static_cast<float>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                      ((bits >> 32) & 0xffff) + (bits >> 48));
  constexpr float kMean = 2 * 65535.0f, kScale = 1.7320508f / 65536.0f;  // sqrt(12 / 4) / 2^16
  return (sum - kMean) * kScale;
}

uint64_t name_hash(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

RandomSource::RandomSource(const ModelConfig& config, uint64_t seed, bool blocks)
    : WeightSource(config), seed_(seed), blocks_(blocks) {
  for (const TensorShape& tensor : parameter_shapes(config))
    sizes_.emplace(tensor.name,
                   Size{tensor.shape[0], tensor.shape.size() == 2 ? tensor.shape[1] : 1});
}

WeightSource::Size RandomSource::size_of(const std::string& name) const {
  const auto found = sizes_.find(name);
  ERANK_CHECK(found != sizes_.end(), "no tensor '", name, "'");
  return found->second;
}

std::optional<DType> RandomSource::stored_format(const std::string& name) const {
  const int64_t columns = size_of(name).columns;
  if (!blocks_ || columns % 32 != 0) return {};
  const bool outer = name == "model.embed_tokens.weight" || name == "lm_head.weight";
  if (columns % 256 != 0) return outer ? DType::kQ8_0 : DType::kQ4_0;
  return outer ? DType::kQ6_K : DType::kQ4_K;
}

void RandomSource::read_stored(const std::string& name, int64_t begin, int64_t end,
                               const TakeRows& take) const {
  const auto format = stored_format(name);
  ERANK_CHECK(format.has_value());
  const size_t block_bytes = data::dtype_block_bytes(*format);
  const size_t blocks = size_of(name).columns / data::dtype_block_values(*format);
  std::vector<uint8_t> row((blocks * block_bytes + 7) / 8 * 8);
  const uint64_t seed = base::derived_seed(seed_, name_hash(name));
  for (int64_t r = begin; r < end; ++r) {
    base::Random random(base::derived_seed(seed, r));
    for (size_t i = 0; i < row.size(); i += 8) {
      const uint64_t bits = random.next();
      std::memcpy(row.data() + i, &bits, 8);
    }
    for (size_t i = 0; i < blocks; ++i) scale_block(*format, row.data() + i * block_bytes);
    take(r, row.data(), 1);
  }
}

void RandomSource::read_base(const std::string& name, at::ScalarType dtype, int64_t begin,
                             int64_t end, const TakeRows& take) const {
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  const int64_t columns = size_of(name).columns;
  std::vector<float> values(columns);
  std::vector<uint16_t> halves(columns);
  const auto give = [&](int64_t row) {
    if (dtype == at::kFloat) return take(row, values.data(), 1);
    weight_kernels().to_bf16(values.data(), halves.data(), columns);
    take(row, halves.data(), 1);
  };
  if (const auto format = stored_format(name))
    return read_stored(name, begin, end, [&](int64_t row, const void* blocks, int64_t) {
      const size_t bytes =
          columns / data::dtype_block_values(*format) * data::dtype_block_bytes(*format);
      dequantize(*format, {static_cast<const uint8_t*>(blocks), bytes}, values.data(), columns);
      give(row);
    });
  const uint64_t seed = base::derived_seed(seed_, name_hash(name));
  for (int64_t r = begin; r < end; ++r) {
    base::Random random(base::derived_seed(seed, r));
    if (columns > 1)
      for (float& value : values) value = kDeviation * cheap_normal(random.next());
    else
      values[0] = name.ends_with(".bias") ? 0.0f : 1.0f;
    give(r);
  }
}

}  // namespace erank::model
