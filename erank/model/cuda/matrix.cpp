#include "erank/model/cuda/matrix.h"

#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>

#include <algorithm>
#include <cstring>

#include "erank/base/error.h"
#include "erank/model/checkpoint.h"
#include "erank/model/weight_kernels.h"
#include "erank/model/weight_source.h"

namespace erank::model::cuda {
namespace {

// Values unpacked at a time: 32 MB of bf16, which second-level caches of GPUs for inference hold.
// Few on the CPU, so that tests see several pieces.
int64_t most_unpacked(at::Device device) { return int64_t{1} << (device.is_cuda() ? 24 : 16); }

Matrix::Rows read_int8(const WeightSource& source, const std::string& name, at::Device device) {
  const auto [rows, columns] = source.size_of(name);
  const at::Tensor values = at::empty({rows, columns}, at::kChar),
                   scales = at::empty({rows, 1}, at::kFloat);
  auto* out = values.mutable_data_ptr<int8_t>();
  auto* scale_out = scales.mutable_data_ptr<float>();
  source.read(name, at::kFloat,
              [=, columns = columns](int64_t first, const void* from, int64_t count) {
                const auto* row = static_cast<const float*>(from);
                for (int64_t r = first; r < first + count; ++r, row += columns)
                  scale_out[r] = weight_kernels().quantize(row, columns, out + r * columns);
              });
  return {values.to(device), scales.to(device), {}};
}

Matrix::Rows read_blocks(const WeightSource& source, const std::string& name, data::DType format,
                         at::Device device) {
  const auto [rows, columns] = source.size_of(name);
  const auto row_bytes = columns / static_cast<int64_t>(data::dtype_block_values(format)) *
                         static_cast<int64_t>(data::dtype_block_bytes(format));
  const at::Tensor values = at::empty({rows, row_bytes}, at::kByte);
  auto* out = values.mutable_data_ptr<uint8_t>();
  const auto take = [=](int64_t first, const void* from, int64_t count) {
    std::memcpy(out + first * row_bytes, from, count * row_bytes);
  };
  at::parallel_for(0, rows, block_rows(columns),
                   [&](int64_t begin, int64_t end) { source.read_stored(name, begin, end, take); });
  return {values.to(device), {}, format};
}

Matrix::Rows read_rows(const WeightSource& source, const std::string& name, Precision precision,
                       at::Device device) {
  if (precision == Precision::kInt8) return read_int8(source, name, device);
  const auto format = precision == Precision::kGguf ? source.stored_format(name) : std::nullopt;
  if (format) return read_blocks(source, name, *format, device);
  const auto dtype = precision == Precision::kFp32 ? at::kFloat : at::kBFloat16;
  return {read_tensor(source, name, dtype, device), {}, {}};
}

}  // namespace

Matrix::Rows Matrix::Rows::narrow(int64_t first, int64_t count) const {
  return {values.narrow(0, first, count),
          scales.defined() ? scales.narrow(0, first, count) : at::Tensor(), blocks};
}

bool Matrix::Rows::alike(const Rows& other) const {
  return blocks == other.blocks && values.scalar_type() == other.values.scalar_type();
}

Matrix::Matrix(const WeightSource& source, const std::vector<std::string>& names,
               Precision precision, at::Device device)
    : inputs_(source.size_of(names[0]).columns) {
  for (const std::string& name : names) {
    Rows rows = read_rows(source, name, precision, device);
    outputs_ += rows.values.size(0);
    if (parts_.empty() || !parts_.back().alike(rows)) {
      parts_.push_back(std::move(rows));
      continue;
    }
    Rows& part = parts_.back();
    part.values = at::cat({part.values, rows.values});
    if (rows.scales.defined()) part.scales = at::cat({part.scales, rows.scales});
  }
}

at::Tensor Matrix::unpacked(int64_t first, int64_t count, const Operations& operations) const {
  at::Tensor out = at::empty({count, inputs_}, parts_[0].values.options().dtype(at::kBFloat16));
  int64_t begin = 0;  // of the part
  for (const Rows& part : parts_) {
    const int64_t end = begin + part.values.size(0);
    const int64_t from = std::max(first, begin), to = std::min(first + count, end);
    if (from < to) {
      const Rows rows = part.narrow(from - begin, to - from);
      at::Tensor into = out.narrow(0, from - first, to - from);
      if (rows.blocks)
        operations.unpack(*rows.blocks, rows.values, into);
      else if (rows.scales.defined())
        at::mul_out(into, rows.values, rows.scales);  // in fp32, rounded once
      else
        into.copy_(rows.values);
    }
    begin = end;
  }
  return out;
}

at::Tensor Matrix::product(const at::Tensor& x, const Operations& operations) const {
  const bool plain = parts_.size() == 1 && at::isFloatingType(parts_[0].values.scalar_type());
  if (plain)
    return at::linear(x, parts_[0].values, bias_.defined() ? std::optional(bias_) : std::nullopt);
  at::Tensor out = at::empty({x.size(0), outputs_}, x.options());
  const int64_t most = std::max<int64_t>(1, most_unpacked(x.device()) / inputs_);
  for (int64_t first = 0; first < outputs_; first += most) {
    const int64_t count = std::min(most, outputs_ - first);
    const at::Tensor weight = unpacked(first, count, operations).t();
    at::Tensor into = out.narrow(1, first, count);
    if (bias_.defined())
      at::addmm_out(into, bias_.narrow(0, first, count), x, weight);
    else
      at::mm_out(into, x, weight);
  }
  return out;
}

at::Tensor Matrix::rows(const at::Tensor& ids, const Operations& operations) const {
  ERANK_CHECK(parts_.size() == 1 && !parts_[0].scales.defined());
  if (!parts_[0].blocks) return at::embedding(parts_[0].values, ids);
  at::Tensor out =
      at::empty({ids.size(0), inputs_}, parts_[0].values.options().dtype(at::kBFloat16));
  operations.unpack(*parts_[0].blocks, parts_[0].values.index_select(0, ids), out);
  return out;
}

int64_t Matrix::bytes() const {
  size_t bytes = 0;
  for (const Rows& part : parts_)
    bytes += part.values.nbytes() + (part.scales.defined() ? part.scales.nbytes() : 0);
  return static_cast<int64_t>(bytes);
}

at::Tensor read_tensor(const WeightSource& source, const std::string& name, at::ScalarType dtype,
                       at::Device device) {
  const auto [rows, columns] = source.size_of(name);
  const at::Tensor tensor = at::empty({rows, columns}, at::dtype(dtype));
  auto* out = static_cast<char*>(tensor.data_ptr());
  const int64_t row_bytes = columns * tensor.element_size();
  source.read(name, dtype, [=](int64_t first, const void* values, int64_t count) {
    std::memcpy(out + first * row_bytes, values, count * row_bytes);
  });
  const at::Tensor there = tensor.to(device);
  return columns == 1 ? there.flatten() : there;
}

int64_t unpacked_bytes(Precision precision, at::Device device) {
  if (precision != Precision::kInt8 && precision != Precision::kGguf) return 0;
  // Without kernels of our own blocks go through numbers in fp32.
  return most_unpacked(device) * (precision == Precision::kInt8 ? 2 : 16);
}

}  // namespace erank::model::cuda
