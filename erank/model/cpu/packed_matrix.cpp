#include "erank/model/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "erank/base/error.h"
#include "erank/model/weight_kernels.h"

namespace erank::model::cpu {
namespace {

int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

int64_t bytes_of(Precision precision) {
  return precision == Precision::kFp32 ? 4 : precision == Precision::kBf16 ? 2 : 1;
}

// The groups of 4 inputs of each section of an int8 product.
std::vector<int32_t> section_groups(int64_t inputs, const Int8Layout& layout) {
  std::vector<int32_t> groups;
  const int64_t section = layout.section > 0 ? layout.section : inputs;
  const int64_t num_outliers = std::ssize(layout.outliers);
  ERANK_CHECK(section % 16 == 0 && num_outliers % 16 == 0 && num_outliers <= kMaxOutliers);
  for (int64_t k = 0; k < inputs; k += section)
    groups.push_back(static_cast<int32_t>(std::min(section, inputs - k) / 4));
  if (num_outliers > 0) groups.insert(groups.end(), 2, static_cast<int32_t>(num_outliers / 4));
  return groups;
}

// Of this thread, for the panels that it unpacks.
void* panel_memory(int64_t bytes) {
  thread_local Memory memory;
  if (memory.bytes() < bytes) memory = Memory(bytes);
  return memory.as<void>();
}

}  // namespace

int64_t MatrixPlan::bytes() const {
  const int64_t columns = padded(outputs), width = padded(inputs);
  if (!stored.empty()) return StoredRows::bytes_of(width, stored);
  if (precision != Precision::kInt8) return columns * width * bytes_of(precision);
  return columns *
         (width + 2 * std::ssize(int8.outliers) + 8 * std::ssize(section_groups(width, int8)));
}

int64_t PackedMatrix::bytes() const {
  return memory_.bytes() + stored_.bytes() +
         static_cast<int64_t>(scale_.size() * sizeof(float) + offset_.size() * sizeof(int32_t));
}
int64_t PackedMatrix::element_bytes() const { return bytes_of(precision_); }
int64_t PackedMatrix::group() const { return 4 / element_bytes(); }
int64_t PackedMatrix::scale_index(int64_t column) const {
  return column / kPanel * num_sections() * kPanel + column % kPanel;
}

PackedMatrix::PackedMatrix(const MatrixPlan& plan)
    : outputs_(padded(plan.outputs)),
      inputs_(padded(plan.inputs)),
      width_(inputs_),
      precision_(plan.precision) {
  ERANK_CHECK(precision_ != Precision::kGguf);
  if (!plan.stored.empty()) {
    ERANK_CHECK(precision_ != Precision::kInt8 && inputs_ == plan.inputs &&
                std::ssize(plan.stored) * StoredRows::kStrip == outputs_);
    stored_ = StoredRows(inputs_, plan.stored);
    return;
  }
  if (precision_ == Precision::kInt8) {
    outliers_ = plan.int8.outliers;
    section_groups_ = section_groups(inputs_, plan.int8);
    width_ += 2 * std::ssize(outliers_);
    scale_.assign(outputs_ * num_sections(), 0);
    offset_.assign(outputs_ * num_sections(), 0);
  }
  memory_ = Memory(outputs_ * width_ * element_bytes());
}

void PackedMatrix::set(int64_t column, const void* values, int64_t n, const int32_t* places) {
  if (is_stored()) {
    ERANK_CHECK(n == inputs_ && !places);
    return stored_.set(column, values);
  }
  const int64_t g = group();
  const int64_t panel = column / kPanel * width_ * kPanel, offset = column % kPanel * g;
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
    std::vector<float> row(width_);
    for (int64_t i = 0; places && i < n; ++i) row[places[i]] = from[i];
    if (!places) std::memcpy(row.data(), from, n * sizeof(float));
    const int64_t num_outliers = std::ssize(outliers_);
    for (int64_t i = 0; i < num_outliers; ++i) {
      row[inputs_ + i] = row[inputs_ + num_outliers + i] = row[outliers_[i]];
      row[outliers_[i]] = 0;
    }
    auto* to = memory_.as<int8_t>() + panel + offset;
    int64_t at = scale_index(column);
    for (int64_t k = 0; const int32_t groups : section_groups_) {
      const int64_t n = 4 * groups;
      int32_t sum = 0;
      scale_[at] = weight_kernels().pack_int8(row.data() + k, n, to + k * kPanel, 4 * kPanel, &sum);
      offset_[at] = -128 * sum;
      k += n;
      at += kPanel;
    }
  }
}

void PackedMatrix::get(int64_t column, float* values, int64_t n) const {
  if (is_stored()) {
    ERANK_CHECK(n == inputs_);
    return stored_.get(column, precision_, values);
  }
  const int64_t g = group();
  const int64_t panel = column / kPanel * width_ * kPanel, offset = column % kPanel * g;
  const auto place = [&](int64_t k) { return panel + k / g * g * kPanel + offset + k % g; };
  if (precision_ != Precision::kInt8) {
    for (int64_t i = 0; i < n; ++i) {
      if (precision_ == Precision::kFp32) {
        values[i] = memory_.as<float>()[place(i)];
      } else {
        const uint32_t bits = static_cast<uint32_t>(memory_.as<uint16_t>()[place(i)]) << 16;
        std::memcpy(values + i, &bits, 4);
      }
    }
    return;
  }
  int64_t at = scale_index(column), k = 0;
  for (const int32_t groups : section_groups_) {
    for (const int64_t end = k + 4 * groups; k < end; ++k) {
      const float value = scale_[at] * static_cast<float>(memory_.as<int8_t>()[place(k)]);
      if (k < std::min(n, inputs_))
        values[k] = value;
      else if (k >= inputs_ && outliers_[(k - inputs_) % std::ssize(outliers_)] < n)
        values[outliers_[(k - inputs_) % std::ssize(outliers_)]] = value;
    }
    at += kPanel;
  }
}

bool PackedMatrix::reserve_panel(int64_t bytes) noexcept {
  try {
    panel_memory(bytes);
    return true;
  } catch (...) {
    return false;
  }
}

void PackedMatrix::multiply(const Rows& rows, int64_t panel, float* y, int64_t ldy) const {
  MatmulArgs args{};
  args.x = rows.x;
  args.ldx = rows.ldx;
  if (is_stored()) {
    void* unpacked = panel_memory(width_ * kPanel * element_bytes());
    stored_.unpack(panel, precision_, unpacked);
    args.panel = unpacked;
  } else {
    args.panel = memory_.as<char>() + panel * width_ * kPanel * element_bytes();
  }
  args.groups = width_ / group();
  args.rows = rows.rows;
  args.y = y;
  args.ldy = ldy;
  if (precision_ == Precision::kInt8) {
    args.w_scale = scale_.data() + panel * num_sections() * kPanel;
    args.w_offset = offset_.data() + panel * num_sections() * kPanel;
    args.x_scale = rows.x_scale;
    args.section_groups = section_groups_.data();
    args.num_sections = num_sections();
    kernels().matmul_int8(args);
  } else if (precision_ == Precision::kBf16) {
    kernels().bf16.matmul(args);
  } else {
    kernels().f32.matmul(args);
  }
}

}  // namespace erank::model::cpu
