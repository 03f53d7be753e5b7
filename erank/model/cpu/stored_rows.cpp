#include "erank/model/cpu/stored_rows.h"

#include <algorithm>
#include <cstring>

#include "erank/base/error.h"
#include "erank/model/cpu/kernels.h"
#include "erank/model/dequantize.h"
#include "erank/model/weight_kernels.h"

namespace erank::model::cpu {
namespace {

constexpr int64_t kPartValues = 256;  // whole blocks of every format

}  // namespace

int64_t StoredRows::row_bytes(data::DType format, int64_t values) {
  return values / static_cast<int64_t>(data::dtype_block_values(format)) *
         static_cast<int64_t>(data::dtype_block_bytes(format));
}

int64_t StoredRows::bytes_of(int64_t inputs, const std::vector<data::DType>& formats) {
  int64_t bytes = 0;
  for (const data::DType format : formats) bytes += kStrip * row_bytes(format, inputs);
  return bytes;
}

StoredRows::StoredRows(int64_t inputs, std::vector<data::DType> formats)
    : inputs_(inputs), formats_(std::move(formats)), memory_(bytes_of(inputs, formats_)) {
  int64_t offset = 0;
  for (const data::DType format : formats_) {
    ERANK_CHECK(inputs % static_cast<int64_t>(data::dtype_block_values(format)) == 0);
    offsets_.push_back(offset);
    offset += kStrip * row_bytes(format, inputs);
  }
}

int64_t StoredRows::num_parts() const { return (inputs_ + kPartValues - 1) / kPartValues; }

StoredRows::Part StoredRows::part_of(int64_t strip, int64_t part) const {
  const data::DType format = formats_[strip];
  const int64_t begin = part * kPartValues, values = std::min(kPartValues, inputs_ - begin);
  return {memory_.as<uint8_t>() + offsets_[strip] + kStrip * row_bytes(format, begin), values,
          row_bytes(format, values)};
}

void StoredRows::set(int64_t output, const void* row) {
  const auto* from = static_cast<const uint8_t*>(row);
  for (int64_t i = 0; i < num_parts(); ++i) {
    const Part part = part_of(output / kStrip, i);
    std::memcpy(part.bytes + output % kStrip * part.row_bytes, from, part.row_bytes);
    from += part.row_bytes;
  }
}

void StoredRows::get(int64_t output, Precision precision, float* values) const {
  for (int64_t i = 0; i < num_parts(); ++i, values += kPartValues) {
    const Part part = part_of(output / kStrip, i);
    dequantize(formats_[output / kStrip],
               {part.bytes + output % kStrip * part.row_bytes, static_cast<size_t>(part.row_bytes)},
               values, part.values);
    if (precision == Precision::kFp32) continue;
    uint16_t halves[kPartValues];
    weight_kernels().to_bf16(values, halves, part.values);
    weight_kernels().bf16(reinterpret_cast<const uint8_t*>(halves), values, part.values);
  }
}

void StoredRows::unpack(int64_t panel, Precision precision, void* out) const {
  constexpr int64_t kStrips = kPanel / kStrip;
  const WeightKernels& kernels = weight_kernels();
  alignas(64) float values[kStrip * kPartValues];
  alignas(64) uint16_t halves[kStrip * kPartValues];
  const bool fp32 = precision == Precision::kFp32;
  for (int64_t s = 0; s < kStrips; ++s) {
    const int64_t strip = panel * kStrips + s;
    for (int64_t i = 0; i < num_parts(); ++i) {
      const Part part = part_of(strip, i);
      dequantize(formats_[strip], {part.bytes, static_cast<size_t>(kStrip * part.row_bytes)},
                 values, kStrip * part.values);
      if (!fp32) kernels.to_bf16(values, halves, kStrip * part.values);
      // 4 bytes are a value or a pair of them.
      const int64_t units = fp32 ? part.values : part.values / 2;
      const int64_t first = fp32 ? i * kPartValues : i * kPartValues / 2;
      kernels.transpose16(fp32 ? static_cast<const void*>(values) : halves, units,
                          static_cast<char*>(out) + 4 * (first * kPanel + s * kStrip), 4 * kPanel);
    }
  }
}

}  // namespace erank::model::cpu
