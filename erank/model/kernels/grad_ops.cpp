#include "erank/model/kernels/grad_ops.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "erank/base/error.h"
#include "erank/model/kernels/cpu_kernels.h"
#include "erank/model/kernels/element_type.h"
#include "erank/model/kernels/ops.h"

namespace erank::model::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct AddRmsNorm : torch::autograd::Function<AddRmsNorm> {
  static variable_list forward(AutogradContext* ctx, const Variable& x,
                               const std::optional<at::Tensor>& delta, const Variable& weight,
                               double eps) {
    const at::Tensor sum = delta ? at::add(x, *delta) : x;
    at::Tensor y = at::empty_like(sum);
    const int64_t hidden = sum.size(1);
    with_type(sum, [&](auto* type) {
      using T = Element<decltype(type)>;
      at::parallel_for(0, sum.size(0), row_grain(hidden), [&](int64_t begin, int64_t end) {
        // Without a delta the kernel only reads x.
        cpu_kernels<T>().add_rms_norm(data<T>(sum), nullptr, data<T>(weight), data<T>(y), hidden,
                                      static_cast<float>(eps), begin, end);
      });
    });
    ctx->save_for_backward({sum, weight});
    ctx->set_materialize_grads(false);
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["has_delta"] = delta.has_value();
    return {sum.is_same(x) ? x.view_as(x) : sum, y};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto eps = static_cast<float>(ctx->saved_data["eps"].toDouble());
    const int64_t hidden = x.size(1);
    if (!grads[1].defined()) grads[1] = at::zeros_like(x);
    const at::Tensor grad_y = grads[1].contiguous();
    const at::Tensor through = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
    at::Tensor grad_x = at::empty_like(x), grad_weight;
    const bool has_delta = ctx->saved_data["has_delta"].toBool();
    const bool wants_weight = ctx->needs_input_grad(has_delta ? 2 : 1);
    const int threads = at::get_num_threads();
    at::Tensor sums;
    if (wants_weight) sums = at::zeros({threads, hidden}, x.options().dtype(at::kFloat));
    with_type(x, [&](auto* type) {
      using T = Element<decltype(type)>;
      // A fixed share of rows for each thread, so that the sums' order never changes.
      at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          cpu_kernels<T>().rms_norm_backward(
              data<T>(x), data<T>(weight), data<T>(grad_y), data<T>(through), data<T>(grad_x),
              wants_weight ? data<float>(sums) + i * hidden : nullptr, hidden, eps,
              x.size(0) * i / threads, x.size(0) * (i + 1) / threads);
      });
    });
    if (wants_weight) grad_weight = sums.sum(0).to(weight.scalar_type());
    return {grad_x, has_delta ? grad_x : at::Tensor(), grad_weight, at::Tensor()};
  }
};

struct SiluMul : torch::autograd::Function<SiluMul> {
  static Variable forward(AutogradContext* ctx, const Variable& gate_up) {
    ctx->save_for_backward({gate_up});
    return silu_mul(gate_up);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0], grad_y = grads[0].contiguous();
    at::Tensor grad = at::empty_like(gate_up);
    const int64_t width = grad_y.size(1);
    with_type(gate_up, [&](auto* type) {
      using T = Element<decltype(type)>;
      at::parallel_for(0, grad_y.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
        cpu_kernels<T>().silu_mul_backward(data<T>(gate_up), data<T>(grad_y), data<T>(grad), width,
                                           begin, end);
      });
    });
    return {grad};
  }
};

// A part's share of the outputs, and its adapter's rank (0: none) and scaling. Lists, because that
// is what a context saves.
struct Parts {
  std::vector<int64_t> outputs, ranks;
  std::vector<double> scalings;
};

// The parts' adapters as one: A stacked [R, in], scaling * B on a block diagonal [out, R].
struct StackedAdapters {
  at::Tensor a, b;
};
StackedAdapters stack(const at::Tensor& weight, const Parts& parts, at::TensorList adapters,
                      at::ScalarType dtype) {
  std::vector<at::Tensor> as;
  for (size_t i = 0; i < adapters.size(); i += 2) as.push_back(adapters[i]);
  StackedAdapters stacked;
  stacked.a = at::cat(as, 0).to(dtype);
  stacked.b = at::zeros({weight.size(0), stacked.a.size(0)}, weight.options().dtype(dtype));
  int64_t row = 0, rank = 0;
  size_t next = 1;
  for (size_t i = 0; i < parts.outputs.size();
       row += parts.outputs[i], rank += parts.ranks[i], ++i) {
    if (parts.ranks[i] == 0) continue;
    stacked.b.narrow(0, row, parts.outputs[i])
        .narrow(1, rank, parts.ranks[i])
        .copy_(adapters[next] * parts.scalings[i]);
    next += 2;
  }
  return stacked;
}

struct LoraLinear : torch::autograd::Function<LoraLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight,
                          const std::optional<at::Tensor>& bias, const Parts& parts,
                          at::TensorList adapters) {
    const auto [a, b] = stack(weight, parts, adapters, x.scalar_type());
    const at::Tensor low = at::mm(x, a.t());
    at::Tensor y = at::linear(x, weight, bias);
    y.addmm_(low, b.t());
    variable_list saved = {x, weight, low};
    saved.insert(saved.end(), adapters.begin(), adapters.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["outputs"] = parts.outputs;
    ctx->saved_data["ranks"] = parts.ranks;
    ctx->saved_data["scalings"] = parts.scalings;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &low = saved[2];
    const at::TensorList adapters = at::TensorList(saved).slice(3);
    const Parts parts{ctx->saved_data["outputs"].toIntVector(),
                      ctx->saved_data["ranks"].toIntVector(),
                      ctx->saved_data["scalings"].toDoubleVector()};
    const at::Tensor grad = grads[0].contiguous();
    const auto [a, b] = stack(weight, parts, adapters, x.scalar_type());
    const at::Tensor grad_low = at::mm(grad, b);  // scaled
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) {
      grad_x = at::mm(grad, weight);
      grad_x.addmm_(grad_low, a);
    }
    const at::Tensor grad_a = at::mm(grad_low.t(), x).to(at::kFloat);
    variable_list out = {grad_x, {}, {}, {}};
    int64_t row = 0, rank = 0;
    for (size_t i = 0; i < parts.outputs.size();
         row += parts.outputs[i], rank += parts.ranks[i], ++i) {
      const int64_t r = parts.ranks[i];
      if (r == 0) continue;
      out.push_back(grad_a.narrow(0, rank, r));
      const at::Tensor grad_b =
          at::mm(grad.narrow(1, row, parts.outputs[i]).t(), low.narrow(1, rank, r));
      out.push_back(grad_b.to(at::kFloat) * parts.scalings[i]);
    }
    return out;
  }
};

// Rows of 128 bytes and more, so plain copies keep up with memory.
template <typename T>
void copy_row(T* to, const T* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(T));
}

struct Shape {
  int64_t heads, kv_heads, head_dim;
  int64_t group() const { return heads / kv_heads; }
  int64_t row() const { return (heads + 2 * kv_heads) * head_dim; }
};

// One class's tensors: q [S K, G Lq, D] (a key/value head's queries of all its G heads below each
// other), k and v [S K, Lk, D]; padding is zero.
template <typename T>
void gather_queries(const T* rows, int64_t stride, const TreePlan::Class& c, const Shape& s,
                    T* out) {
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
            copy_row(to + l * d, rows + row * stride + h * d, d);
        }
      }
  });
}

template <typename T>
void scatter_queries(const T* from, const TreePlan::Class& c, const Shape& s, T* rows,
                     int64_t stride) {
  const int64_t d = s.head_dim, group = s.group();
  const auto count = static_cast<int64_t>(c.sequences.size());
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < s.heads; ++h) {
        const T* head = from + ((i * s.kv_heads + h / group) * group + h % group) * c.queries * d;
        for (int64_t l = 0; l < c.queries; ++l) {
          const int32_t row = c.query_rows[i * c.queries + l];
          if (row >= 0) copy_row(rows + row * stride + h * d, head + l * d, d);
        }
      }
  });
}

// `rows` points at the first key (or value) head.
template <typename T>
void gather_keys(const T* rows, int64_t stride, const TreePlan::Class& c, const Shape& s, T* out) {
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
            copy_row(to + l * d, rows + row * stride + h * d, d);
        }
      }
  });
}

struct TreeAttention : torch::autograd::Function<TreeAttention> {
  static Variable forward(AutogradContext* ctx, const Variable& qkv,
                          const std::shared_ptr<const TreePlan>& plan, const Shape& s,
                          const Variable& cos, const Variable& sin) {
    const auto tokens = static_cast<int64_t>(plan->positions.size());
    const int64_t d = s.head_dim, padding = qkv.size(0) - tokens;
    at::Tensor turned = qkv.detach().clone();
    at::Tensor out = at::empty({qkv.size(0), s.heads * d}, qkv.options());
    if (padding > 0) out.narrow(0, tokens, padding).zero_();
    // A tensor is what a context keeps alive: this one owns the plan.
    const at::Tensor owner = at::from_blob(
        const_cast<TreePlan*>(plan.get()), {1}, [plan](void*) {}, at::dtype(at::kByte));
    variable_list saved = {turned, cos, sin, owner};
    with_type(qkv, [&](auto* type) {
      using T = Element<decltype(type)>;
      T* rows = data<T>(turned);
      turn(rows, *plan, s, cos, sin, 1.0f, tokens);
      for (const auto& c : plan->classes) {
        const auto [q, k, v] = gather(rows, c, s, qkv.options());
        at::Tensor p = at::bmm(q, k.transpose(1, 2));
        for_each_row(c, s, [&](int64_t row, int64_t seen) {
          cpu_kernels<T>().softmax(data<T>(p) + row * c.keys, c.keys, seen,
                                   1.0f / std::sqrt(static_cast<float>(d)));
        });
        const at::Tensor y = at::bmm(p, v);
        scatter_queries(data<T>(y), c, s, data<T>(out), s.heads * d);
        saved.push_back(p);
      }
    });
    ctx->save_for_backward(saved);
    ctx->saved_data["shape"] = std::vector<int64_t>{s.heads, s.kv_heads, s.head_dim};
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& plan = *static_cast<const TreePlan*>(saved[3].const_data_ptr());
    const auto sizes = ctx->saved_data["shape"].toIntVector();
    const Shape s{sizes[0], sizes[1], sizes[2]};
    const at::Tensor &turned = saved[0], grad_out = grads[0].contiguous();
    const int64_t tokens = turned.size(0), d = s.head_dim;
    at::Tensor grad = at::empty_like(turned);
    // A prefix's keys and values collect gradients of all that stands behind it: sum in fp32.
    const int64_t width = 2 * s.kv_heads * d;
    at::Tensor sums = at::zeros({tokens, width}, turned.options().dtype(at::kFloat));
    with_type(turned, [&](auto* type) {
      using T = Element<decltype(type)>;
      const auto& kernels = cpu_kernels<T>();
      for (size_t i = 0; i < plan.classes.size(); ++i) {
        const auto& c = plan.classes[i];
        const at::Tensor& p = saved[4 + i];
        const auto [q, k, v] = gather(data<T>(turned), c, s, turned.options());
        at::Tensor grad_y = at::empty_like(q);
        gather_queries(data<T>(grad_out), s.heads * d, c, s, data<T>(grad_y));
        at::Tensor grad_p = at::bmm(grad_y, v.transpose(1, 2));
        const at::Tensor grad_v = at::bmm(p.transpose(1, 2), grad_y);
        for_each_row(c, s, [&](int64_t row, int64_t seen) {
          kernels.softmax_backward(data<T>(p) + row * c.keys, data<T>(grad_p) + row * c.keys,
                                   c.keys, 1.0f / std::sqrt(static_cast<float>(d)));
        });
        const at::Tensor grad_q = at::bmm(grad_p, k);
        const at::Tensor grad_k = at::bmm(grad_p.transpose(1, 2), q);
        scatter_queries(data<T>(grad_q), c, s, data<T>(grad), s.row());
        add_keys(data<T>(grad_k), data<T>(grad_v), c, s, data<float>(sums));
      }
      at::parallel_for(0, tokens, row_grain(width), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t)
          store_sums(data<float>(sums) + t * width, width,
                     data<T>(grad) + t * s.row() + s.heads * d);
      });
      turn(data<T>(grad), plan, s, saved[1], saved[2], -1.0f, tokens);
    });
    return {grad, {}, {}, {}, {}};
  }

 private:
  template <typename T>
  static void turn(T* rows, const TreePlan& plan, const Shape& s, const at::Tensor& cos,
                   const at::Tensor& sin, float direction, int64_t tokens) {
    at::parallel_for(0, tokens, row_grain(s.row()), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().rotate(rows, s.row(), s.heads + s.kv_heads, s.head_dim, data<float>(cos),
                              data<float>(sin), plan.positions.data(), direction, begin, end);
    });
  }

  template <typename T>
  static std::tuple<at::Tensor, at::Tensor, at::Tensor> gather(T* rows, const TreePlan::Class& c,
                                                               const Shape& s,
                                                               const at::TensorOptions& options) {
    const int64_t batch = static_cast<int64_t>(c.sequences.size()) * s.kv_heads, d = s.head_dim;
    at::Tensor q = at::empty({batch, s.group() * c.queries, d}, options);
    at::Tensor k = at::empty({batch, c.keys, d}, options), v = at::empty_like(k);
    gather_queries(rows, s.row(), c, s, data<T>(q));
    gather_keys(rows + s.heads * d, s.row(), c, s, data<T>(k));
    gather_keys(rows + (s.heads + s.kv_heads) * d, s.row(), c, s, data<T>(v));
    return {q, k, v};
  }

  // body(row of [S K G Lq], how many keys it sees).
  template <typename Body>
  static void for_each_row(const TreePlan::Class& c, const Shape& s, const Body& body) {
    const int64_t rows = static_cast<int64_t>(c.sequences.size()) * s.heads * c.queries;
    at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / c.keys),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         const int64_t sequence = row / (s.heads * c.queries), l = row % c.queries;
                         const bool real = c.query_rows[sequence * c.queries + l] >= 0;
                         body(row, real ? c.ancestors[sequence] + l + 1 : 0);
                       }
                     });
  }

  // Each key/value head belongs to one thread, which goes through the sequences in order: the same
  // additions in the same order every time.
  template <typename T>
  static void add_keys(const T* grad_k, const T* grad_v, const TreePlan::Class& c, const Shape& s,
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

  static void store_sums(const float* from, int64_t n, float* to) { copy_row(to, from, n); }
  static void store_sums(const float* from, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; ++i) to[i] = c10::BFloat16(from[i]).x;
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> add_rms_norm_grad(const at::Tensor& x, const at::Tensor& delta,
                                                    const at::Tensor& weight, double eps) {
  const auto out = AddRmsNorm::apply(
      x, delta.defined() ? std::optional<at::Tensor>(delta) : std::nullopt, weight, eps);
  return {out[0], out[1]};
}

at::Tensor silu_mul_grad(const at::Tensor& gate_up) { return SiluMul::apply(gate_up); }

at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const std::vector<const Linear*>& parts) {
  Parts shares;
  variable_list adapters;
  for (const Linear* part : parts) {
    shares.outputs.push_back(part->weight.size(0));
    shares.ranks.push_back(part->lora ? part->lora->a.size(0) : 0);
    shares.scalings.push_back(part->lora ? part->lora->scaling : 0);
    if (part->lora) adapters.insert(adapters.end(), {part->lora->a, part->lora->b});
  }
  return LoraLinear::apply(x, weight,
                           bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, shares,
                           at::TensorList(adapters));
}

std::shared_ptr<const TreePlan> plan_tree(const Batch& batch, double fill) {
  auto planned = std::make_shared<TreePlan>();
  TreePlan& plan = *planned;
  plan.positions = batch.positions;
  const auto length = [&](int32_t b) { return batch.starts[b + 1] - batch.starts[b]; };
  std::vector<int32_t> order;
  for (int32_t b = 0; b + 1 < static_cast<int32_t>(batch.starts.size()); ++b)
    if (length(b) > 0) order.push_back(b);
  const auto context = [&](int32_t b) { return batch.positions[batch.starts[b]] + length(b); };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return std::pair(length(a), context(a)) > std::pair(length(b), context(b));
  });
  const auto round_up = [](int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
  };
  for (size_t i = 0; i < order.size();) {
    TreePlan::Class c;
    size_t end = i;
    for (; end < order.size() && length(order[end]) >= fill * length(order[i]); ++end)
      c.keys = std::max<int64_t>(c.keys, context(order[end]));
    c.queries = length(order[i]);
    // Few different shapes: libtorch keeps a compiled product for each.
    if (c.queries > 16) c.queries = round_up(c.queries, 16);
    c.keys = round_up(c.keys, 32);
    for (; i < end; ++i) {
      const int32_t b = order[i];
      c.sequences.push_back(b);
      std::vector<int32_t> chain;  // its ancestors, the nearest first
      for (int32_t a = batch.parent(b); a >= 0; a = batch.parent(a)) chain.push_back(a);
      int64_t seen = 0;
      const size_t first = c.key_rows.size();
      c.key_rows.resize(first + c.keys, -1);
      for (auto a = chain.rbegin(); a != chain.rend(); ++a)
        for (int32_t t = batch.starts[*a]; t < batch.starts[*a + 1]; ++t)
          c.key_rows[first + seen++] = t;
      ERANK_CHECK(seen == batch.positions[batch.starts[b]], "sequence ", b, " stands at ",
                  batch.positions[batch.starts[b]], " behind ", seen, " tokens");
      c.ancestors.push_back(static_cast<int32_t>(seen));
      for (int64_t l = 0; l < c.queries; ++l) {
        const bool real = l < length(b);
        c.query_rows.push_back(real ? batch.starts[b] + static_cast<int32_t>(l) : -1);
        if (real) c.key_rows[first + seen + l] = batch.starts[b] + static_cast<int32_t>(l);
      }
    }
    plan.classes.push_back(std::move(c));
  }
  return planned;
}

at::Tensor tree_attention(const at::Tensor& qkv, const std::shared_ptr<const TreePlan>& plan,
                          const ModelConfig& config, const at::Tensor& cos, const at::Tensor& sin) {
  const Shape shape{config.num_attention_heads, config.num_key_value_heads, config.head_dim};
  return TreeAttention::apply(qkv, plan, shape, cos, sin);
}

}  // namespace erank::model::kernels
