#include "erank/train/kernels/tree_attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "erank/base/error.h"
#include "erank/train/kernels/cpu_kernels.h"
#include "erank/train/kernels/element_type.h"

namespace erank::train::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Rows of 128 bytes and more, so copies keep up with memory.
template <typename T>
void copy_row(T* to, const T* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(T));
}

struct Shape {
  int64_t heads, kv_heads, head_dim, window;
  int64_t group() const { return heads / kv_heads; }
  int64_t row() const { return (heads + 2 * kv_heads) * head_dim; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

// Heads of tokens' rows: a part of [T, stride], from the first head on.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
};

// One class's tensors: q [S K, G Lq, D] (a key/value head's queries of all its G heads one after
// another), k and v [S K, Lk, D]; padding is zero.
template <typename T>
void gather_queries(Rows<const T> rows, const TreePlan::Class& c, const Shape& s, T* out) {
  const int64_t d = s.head_dim, group = s.group();
  const auto count = static_cast<int64_t>(c.sequences.size());
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < s.heads; ++h) {
        T* to = out + ((i * s.kv_heads + h / group) * group + h % group) * c.queries * d;
        for (int64_t l = 0; l < c.queries; ++l) {
          const int32_t row = c.query_rows[i * c.queries + l];
          if (row < 0)
            std::memset(to + l * d, 0, d * sizeof(T));
          else
            copy_row(to + l * d, rows.data + row * rows.stride + h * d, d);
        }
      }
  });
}

template <typename T>
void scatter_queries(const T* from, const TreePlan::Class& c, const Shape& s, Rows<T> rows) {
  const int64_t d = s.head_dim, group = s.group();
  const auto count = static_cast<int64_t>(c.sequences.size());
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < s.heads; ++h) {
        const T* head = from + ((i * s.kv_heads + h / group) * group + h % group) * c.queries * d;
        for (int64_t l = 0; l < c.queries; ++l) {
          const int32_t row = c.query_rows[i * c.queries + l];
          if (row >= 0) copy_row(rows.data + row * rows.stride + h * d, head + l * d, d);
        }
      }
  });
}

template <typename T>
void gather_keys(Rows<const T> rows, const TreePlan::Class& c, const Shape& s, T* out) {
  const int64_t d = s.head_dim;
  const auto count = static_cast<int64_t>(c.sequences.size());
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < s.kv_heads; ++h) {
        T* to = out + (i * s.kv_heads + h) * c.keys * d;
        for (int64_t l = 0; l < c.keys; ++l) {
          const int32_t row = c.key_rows[i * c.keys + l];
          if (row < 0)
            std::memset(to + l * d, 0, d * sizeof(T));
          else
            copy_row(to + l * d, rows.data + row * rows.stride + h * d, d);
        }
      }
  });
}

// Queries, keys and values of one class from rows of [T, (N + 2 K) D].
template <typename T>
std::tuple<at::Tensor, at::Tensor, at::Tensor> gather(const at::Tensor& qkv,
                                                      const TreePlan::Class& c, const Shape& s) {
  const int64_t batch = static_cast<int64_t>(c.sequences.size()) * s.kv_heads, d = s.head_dim;
  at::Tensor q = at::empty({batch, s.group() * c.queries, d}, qkv.options());
  at::Tensor k = at::empty({batch, c.keys, d}, qkv.options()), v = at::empty_like(k);
  const T* rows = data<T>(qkv);
  gather_queries({rows, s.row()}, c, s, data<T>(q));
  gather_keys({rows + s.heads * d, s.row()}, c, s, data<T>(k));
  gather_keys({rows + (s.heads + s.kv_heads) * d, s.row()}, c, s, data<T>(v));
  return {q, k, v};
}

// body(row of [S K G Lq], how many keys end at its own position); a window hides the first of them.
template <typename Body>
void for_each_row(const TreePlan::Class& c, const Shape& s, const Body& body) {
  const int64_t rows = static_cast<int64_t>(c.sequences.size()) * s.heads * c.queries;
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / c.keys), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t sequence = row / (s.heads * c.queries), l = row % c.queries;
      const bool real = c.query_rows[sequence * c.queries + l] >= 0;
      body(row, real ? c.ancestors[sequence] + l + 1 : 0);
    }
  });
}

// Each key/value head belongs to one thread, which goes through the sequences in order: the same
// additions in the same order every time. sums: [T, 2 K, D].
template <typename T>
void add_keys(const T* grad_k, const T* grad_v, const TreePlan::Class& c, const Shape& s,
              float* sums) {
  const int64_t d = s.head_dim;
  at::parallel_for(0, 2 * s.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const T* from = part < s.kv_heads ? grad_k : grad_v;
      for (size_t i = 0; i < c.sequences.size(); ++i)
        for (int64_t l = 0; l < c.keys; ++l) {
          const int32_t row = c.key_rows[i * c.keys + l];
          if (row < 0) continue;
          const int64_t head = static_cast<int64_t>(i) * s.kv_heads + part % s.kv_heads;
          cpu_kernels<T>().accumulate(sums + (row * 2 * s.kv_heads + part) * d,
                                      from + (head * c.keys + l) * d, d);
        }
    }
  });
}

void store_sums(const float* from, int64_t n, float* to) { copy_row(to, from, n); }
void store_sums(const float* from, int64_t n, uint16_t* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = c10::BFloat16(from[i]).x;
}

struct TreeAttention : torch::autograd::Function<TreeAttention> {
  static Variable forward(AutogradContext* ctx, const Variable& qkv,
                          const std::shared_ptr<const TreePlan>& plan, const Shape& s,
                          const Variable& cos, const Variable& sin) {
    at::Tensor rotated = qkv.detach().clone();
    at::Tensor out = at::empty({qkv.size(0), s.heads * s.head_dim}, qkv.options());
    // A tensor is what a context keeps alive: this one owns the plan.
    const at::Tensor owner = at::from_blob(
        const_cast<TreePlan*>(plan.get()), {1}, [plan](void*) {}, at::dtype(at::kByte));
    variable_list saved = {rotated, cos, sin, owner};
    with_type(qkv, [&](auto* type) {
      using T = Element<decltype(type)>;
      rotate<T>(*plan, s, {data<T>(rotated), data<float>(cos), data<float>(sin)}, 1.0f);
      for (const auto& c : plan->classes) {
        const auto [q, k, v] = gather<T>(rotated, c, s);
        at::Tensor p = at::bmm(q, k.transpose(1, 2));
        for_each_row(c, s, [&](int64_t row, int64_t seen) {
          const int64_t hidden = s.window > 0 ? std::max<int64_t>(0, seen - s.window) : 0;
          T* scores = data<T>(p) + row * c.keys;
          std::memset(scores, 0, hidden * sizeof(T));
          cpu_kernels<T>().softmax(scores + hidden, c.keys - hidden, seen - hidden, s.scale());
        });
        const at::Tensor y = at::bmm(p, v);
        scatter_queries<T>(data<T>(y), c, s, {data<T>(out), s.heads * s.head_dim});
        saved.push_back(p);
      }
    });
    ctx->save_for_backward(saved);
    ctx->saved_data["shape"] = std::vector<int64_t>{s.heads, s.kv_heads, s.head_dim, s.window};
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& plan = *static_cast<const TreePlan*>(saved[3].const_data_ptr());
    const auto sizes = ctx->saved_data["shape"].toIntVector();
    const Shape s{sizes[0], sizes[1], sizes[2], sizes[3]};
    const at::Tensor &rotated = saved[0], grad_out = grads[0].contiguous();
    const int64_t tokens = rotated.size(0), d = s.head_dim;
    at::Tensor grad = at::empty_like(rotated);
    // A prefix's keys and values collect gradients of all that comes after it: sum in fp32.
    const int64_t width = 2 * s.kv_heads * d;
    at::Tensor sums = at::zeros({tokens, width}, rotated.options().dtype(at::kFloat));
    with_type(rotated, [&](auto* type) {
      using T = Element<decltype(type)>;
      for (size_t i = 0; i < plan.classes.size(); ++i) {
        const auto& c = plan.classes[i];
        const at::Tensor& p = saved[4 + i];
        const auto [q, k, v] = gather<T>(rotated, c, s);
        at::Tensor grad_y = at::empty_like(q);
        gather_queries<T>({data<T>(grad_out), s.heads * d}, c, s, data<T>(grad_y));
        at::Tensor grad_p = at::bmm(grad_y, v.transpose(1, 2));
        const at::Tensor grad_v = at::bmm(p.transpose(1, 2), grad_y);
        for_each_row(c, s, [&](int64_t row, int64_t seen) {
          cpu_kernels<T>().softmax_backward(data<T>(p) + row * c.keys,
                                            data<T>(grad_p) + row * c.keys, c.keys, s.scale());
        });
        const at::Tensor grad_q = at::bmm(grad_p, k);
        const at::Tensor grad_k = at::bmm(grad_p.transpose(1, 2), q);
        scatter_queries<T>(data<T>(grad_q), c, s, {data<T>(grad), s.row()});
        add_keys<T>(data<T>(grad_k), data<T>(grad_v), c, s, data<float>(sums));
      }
      at::parallel_for(0, tokens, row_grain(width), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t)
          store_sums(data<float>(sums) + t * width, width,
                     data<T>(grad) + t * s.row() + s.heads * d);
      });
      rotate<T>(plan, s, {data<T>(grad), data<float>(saved[1]), data<float>(saved[2])}, -1.0f);
    });
    return {grad, {}, {}, {}, {}};
  }

 private:
  template <typename T>
  struct Rotated {
    T* rows;  // [T, (N + 2 K) D]
    const float *cos, *sin;
  };
  template <typename T>
  static void rotate(const TreePlan& plan, const Shape& s, const Rotated<T>& x, float direction) {
    const RotateArgs<T> args{
        x.rows,     x.cos,    x.sin, plan.positions.data(), s.row(), s.heads + s.kv_heads,
        s.head_dim, direction};
    at::parallel_for(
        0, static_cast<int64_t>(plan.positions.size()), row_grain(s.row()),
        [&](int64_t begin, int64_t end) { cpu_kernels<T>().rotate(args, begin, end); });
  }
};

}  // namespace

at::Tensor tree_attention(const at::Tensor& qkv, const std::shared_ptr<const TreePlan>& plan,
                          const model::ModelConfig& config, int64_t window, const at::Tensor& cos,
                          const at::Tensor& sin) {
  ERANK_CHECK(qkv.size(0) == static_cast<int64_t>(plan->positions.size()));
  const Shape shape{config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                    window};
  return TreeAttention::apply(qkv, plan, shape, cos, sin);
}

}  // namespace erank::train::kernels
