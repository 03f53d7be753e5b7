#include "erank/model/cpu/packed_matrix.h"

#include <cstring>

#include "erank/base/error.h"
#include "erank/model/quantize.h"

namespace erank::model::cpu {
namespace {

int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

}  // namespace

int64_t PackedMatrix::element_bytes() const {
  return precision_ == Precision::kFp32 ? 4 : precision_ == Precision::kBf16 ? 2 : 1;
}
int64_t PackedMatrix::group() const { return 4 / element_bytes(); }

PackedMatrix::PackedMatrix(int64_t outputs, int64_t inputs, Precision precision)
    : outputs_(padded(outputs)), inputs_(padded(inputs)), precision_(precision) {
  memory_ = Memory(outputs_ * inputs_ * element_bytes());
  if (precision == Precision::kInt8) {
    scale_.assign(outputs_, 0);
    sum_.assign(outputs_, 0);
  }
}

void PackedMatrix::set(int64_t column, const void* values, int64_t n, const int32_t* places) {
  const int64_t g = group();
  const int64_t panel = column / kPanel * inputs_ * kPanel, offset = column % kPanel * g;
  const auto place = [&](int64_t i) {
    const int64_t k = places ? places[i] : i;
    return panel + k / g * g * kPanel + offset + k % g;
  };
  if (precision_ == Precision::kFp32) {
    const auto* from = static_cast<const float*>(values);
    for (int64_t i = 0; i < n; ++i) memory_.as<float>()[place(i)] = from[i];
  } else if (precision_ == Precision::kBf16) {
    const auto* from = static_cast<const uint16_t*>(values);
    auto* to = memory_.as<uint16_t>();
    if (places) {
      for (int64_t i = 0; i < n; ++i) to[place(i)] = from[i];
      return;
    }
    to += panel + offset;
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) std::memcpy(to + i * kPanel, from + i, 4);
    if (i < n) to[i * kPanel] = from[i];
  } else {
    const auto* from = static_cast<const float*>(values);
    std::vector<int8_t> row(n);
    scale_[column] = quantize_row(from, n, row.data());
    int32_t sum = 0;
    auto* to = memory_.as<int8_t>();
    for (int64_t i = 0; i < n; ++i) {
      to[place(i)] = row[i];
      sum += row[i];
    }
    sum_[column] = 128 * sum;
  }
}

void PackedMatrix::get(int64_t column, float* values, int64_t n) const {
  const int64_t g = group();
  const int64_t panel = column / kPanel * inputs_ * kPanel, offset = column % kPanel * g;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = panel + i / g * g * kPanel + offset + i % g;
    if (precision_ == Precision::kFp32) {
      values[i] = memory_.as<float>()[at];
    } else if (precision_ == Precision::kBf16) {
      const uint32_t bits = static_cast<uint32_t>(memory_.as<uint16_t>()[at]) << 16;
      std::memcpy(values + i, &bits, 4);
    } else {
      values[i] = scale_[column] * static_cast<float>(memory_.as<int8_t>()[at]);
    }
  }
}

void PackedMatrix::multiply(const Rows& rows, int64_t panel, float* y, int64_t ldy) const {
  MatmulArgs args{};
  args.x = rows.x;
  args.ldx = rows.ldx;
  args.x_scale = rows.x_scale;
  args.panel = memory_.as<char>() + panel * inputs_ * kPanel * element_bytes();
  args.groups = inputs_ / group();
  args.rows = rows.rows;
  args.y = y;
  args.ldy = ldy;
  if (precision_ == Precision::kInt8) {
    args.w_scale = scale_.data() + panel * kPanel;
    args.w_sum = sum_.data() + panel * kPanel;
    kernels().matmul_int8(args);
  } else if (precision_ == Precision::kBf16) {
    kernels().bf16.matmul(args);
  } else {
    kernels().f32.matmul(args);
  }
}

}  // namespace erank::model::cpu
