#include "erank/train/kernels/reference_tree.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

namespace erank::train::kernels {
namespace {

std::vector<int32_t> with_row_zero(std::vector<int32_t> rows) {
  std::replace(rows.begin(), rows.end(), -1, 0);
  return rows;
}

}  // namespace

at::Tensor to_tensor(const std::vector<int32_t>& values, at::Device device) {
  return at::tensor(at::ArrayRef<int32_t>(values), at::dtype(at::kInt)).to(device);
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor a = wide.narrow(2, 0, half), b = wide.narrow(2, half, half);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 2);
}

ReferenceTree::ReferenceTree(const TreePlan& plan, const model::ModelConfig& config,
                             const at::Tensor& cos, const at::Tensor& sin, at::ScalarType dtype)
    : heads_(config.num_attention_heads),
      kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim) {
  const at::Device device = cos.device();
  const at::Tensor positions = to_tensor(plan.positions, device);
  cos_ = cos.index_select(0, positions).unsqueeze(1);
  sin_ = sin.index_select(0, positions).unsqueeze(1);
  std::vector<int32_t> order(plan.positions.size());
  int32_t next = 0;
  for (const TreePlan::Class& c : plan.classes) {
    Class& out = classes_.emplace_back();
    out.sequences = static_cast<int64_t>(c.sequences.size());
    out.queries = c.queries, out.keys = c.keys;
    for (const int32_t row : c.query_rows) {
      if (row >= 0) order[row] = next;
      ++next;
    }
    out.query_rows = to_tensor(with_row_zero(c.query_rows), device);
    out.key_rows = to_tensor(with_row_zero(c.key_rows), device);
    // A padded query sees keys too, so that its softmax, which nobody reads, is a number.
    const auto ints = at::dtype(at::kInt).device(device);
    const at::Tensor last =  // the last key that it sees
        (to_tensor(c.ancestors, device).view({-1, 1, 1, 1, 1}) +
         at::arange(c.queries, ints).view({1, 1, 1, -1, 1}))
            .clamp_max(c.keys - 1);
    const at::Tensor keys = at::arange(c.keys, ints).view({1, 1, 1, 1, -1});
    const auto mask_of = [&](const at::Tensor& hidden) {
      return at::zeros(hidden.sizes(), ints.dtype(dtype))
          .masked_fill_(hidden, -std::numeric_limits<double>::infinity())
          .expand({out.sequences, 1, heads_ / kv_heads_, c.queries, c.keys})
          .reshape({out.sequences, 1, heads_ / kv_heads_ * c.queries, c.keys});
    };
    out.mask = mask_of(keys > last);
    if (config.sliding_window > 0)
      out.window_mask = mask_of((keys > last).logical_or(keys <= last - config.sliding_window));
  }
  order_ = to_tensor(order, device);
}

at::Tensor ReferenceTree::attend(const at::Tensor& qkv, int64_t window) const {
  const int64_t tokens = qkv.size(0), d = head_dim_, group = heads_ / kv_heads_;
  const at::Tensor rows = qkv.view({tokens, heads_ + 2 * kv_heads_, d});
  // Keys and values stay fp32 until they are gathered: a prefix's collect gradients of all that
  // comes after it.
  const at::Tensor rotated = rotate(rows.narrow(1, 0, heads_ + kv_heads_), cos_, sin_);
  const at::Tensor queries = rotated.narrow(1, 0, heads_).to(qkv.scalar_type());
  const at::Tensor keys_values =
      at::cat({rotated.narrow(1, heads_, kv_heads_), rows.narrow(1, heads_ + kv_heads_, kv_heads_)},
              1);  // [T, 2 K, D] fp32
  std::vector<at::Tensor> outputs;
  for (const Class& c : classes_) {
    // The queries of all heads that share a key/value head come one after another.
    const at::Tensor q = queries.index_select(0, c.query_rows)
                             .view({c.sequences, c.queries, kv_heads_, group, d})
                             .permute({0, 2, 3, 1, 4})
                             .reshape({c.sequences, kv_heads_, group * c.queries, d});
    const at::Tensor kv = keys_values.index_select(0, c.key_rows)
                              .to(qkv.scalar_type())
                              .view({c.sequences, c.keys, 2 * kv_heads_, d})
                              .transpose(1, 2);
    const at::Tensor y = at::scaled_dot_product_attention(q, kv.narrow(1, 0, kv_heads_),
                                                          kv.narrow(1, kv_heads_, kv_heads_),
                                                          window > 0 ? c.window_mask : c.mask);
    outputs.push_back(y.view({c.sequences, kv_heads_, group, c.queries, d})
                          .permute({0, 3, 1, 2, 4})
                          .reshape({c.sequences * c.queries, heads_ * d}));
  }
  return at::cat(outputs, 0).index_select(0, order_);
}

}  // namespace erank::train::kernels
