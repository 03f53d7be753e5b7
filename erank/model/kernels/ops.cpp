#include "erank/model/kernels/ops.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "erank/base/error.h"
#include "erank/model/kernels/cpu_kernels.h"
#include "erank/model/kernels/element_type.h"

namespace erank::model::kernels {
namespace {

// One tile of queries of one sequence and key/value head.
struct AttentionTask {
  int32_t sequence, kv_head;
  int64_t first_token, tokens;  // in the batch
  int64_t cost;
};

std::vector<AttentionTask> attention_tasks(const Batch& batch, const ModelConfig& config) {
  std::vector<AttentionTask> tasks;
  const int64_t group = config.num_attention_heads / config.num_key_value_heads;
  const int64_t tile = std::max<int64_t>(1, kAttentionRows / group);
  for (size_t b = 0; b + 1 < batch.starts.size(); ++b)
    for (int64_t h = 0; h < config.num_key_value_heads; ++h)
      for (int64_t t = batch.starts[b]; t < batch.starts[b + 1]; t += tile) {
        const int64_t n = std::min<int64_t>(tile, batch.starts[b + 1] - t);
        const int64_t context = batch.positions[t] + n;
        tasks.push_back(
            {static_cast<int32_t>(b), static_cast<int32_t>(h), t, n, context * (n * group + 8)});
      }
  return tasks;
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  bool fp32_out) {
  const int64_t rows = x.size(0), in = x.size(1), out = weight.size(0);
  at::Tensor y = at::empty({rows, out}, x.options().dtype(fp32_out ? at::kFloat : x.scalar_type()));
  with_type(x, [&](auto* type) {
    using T = Element<decltype(type)>;
    const bool separate = fp32_out && x.scalar_type() != at::kFloat;
    const LinearArgs<T> args{data<T>(x),
                             data<T>(weight),
                             data<T>(bias),
                             separate ? nullptr : data<T>(y),
                             separate ? data<float>(y) : nullptr,
                             rows,
                             in,
                             out};
    const int64_t blocks = (out + 63) / 64;
    const int64_t grain = std::max<int64_t>(1, (1 << 20) / std::max<int64_t>(1, 64 * in * rows));
    at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().linear(args, begin * 64, std::min(end * 64, out));
    });
  });
  return y;
}

at::Tensor add_rms_norm(at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                        double eps) {
  at::Tensor y = at::empty_like(x);
  const int64_t hidden = x.size(1);
  with_type(x, [&](auto* type) {
    using T = Element<decltype(type)>;
    at::parallel_for(0, x.size(0), row_grain(hidden), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().add_rms_norm(data<T>(x), data<T>(delta), data<T>(weight), data<T>(y), hidden,
                                    static_cast<float>(eps), begin, end);
    });
  });
  return y;
}

at::Tensor silu_mul(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor y = at::empty({gate_up.size(0), width}, gate_up.options());
  with_type(gate_up, [&](auto* type) {
    using T = Element<decltype(type)>;
    at::parallel_for(0, y.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
      cpu_kernels<T>().silu_mul(data<T>(gate_up), data<T>(y), width, begin, end);
    });
  });
  return y;
}

CachePlan plan_cache(const Batch& batch) {
  CachePlan plan;
  plan.slots.resize(batch.tokens.size());
  for (size_t b = 0; b + 1 < batch.starts.size(); ++b)
    for (int32_t t = batch.starts[b]; t < batch.starts[b + 1]; ++t)
      plan.slots[t] = batch.pages[b][batch.positions[t] / 16] * 16 + batch.positions[t] % 16;
  return plan;
}

at::Tensor cached_attention(at::Tensor& qkv, const DecoderLayer& layer, int64_t layer_idx,
                            const Batch& batch, const CachePlan& plan, KvCache& cache,
                            const ModelConfig& config, const at::Tensor& cos,
                            const at::Tensor& sin) {
  const int64_t tokens = static_cast<int64_t>(batch.tokens.size()), d = config.head_dim;
  const int64_t kv_heads = config.num_key_value_heads, row = qkv.size(1);
  ERANK_CHECK(d % 16 == 0 && d <= 256);
  at::Tensor out = at::empty({qkv.size(0), config.q_size()}, qkv.options());
  if (qkv.size(0) > tokens) out.narrow(0, tokens, qkv.size(0) - tokens).zero_();
  const auto tasks = attention_tasks(batch, config);
  int64_t total = 0;
  for (const auto& task : tasks) total += task.cost;
  with_type(qkv, [&](auto* type) {
    using T = Element<decltype(type)>;
    const auto& kernels = cpu_kernels<T>();
    T* keys = data<T>(cache.keys(layer_idx));
    T* values = data<T>(cache.values(layer_idx));
    const RotaryArgs<T> rotary{data<T>(qkv),
                               data<T>(layer.q_norm),
                               data<T>(layer.k_norm),
                               data<float>(cos),
                               data<float>(sin),
                               batch.positions.data(),
                               plan.slots.data(),
                               keys,
                               values,
                               config.num_attention_heads,
                               kv_heads,
                               d,
                               static_cast<float>(config.rms_norm_eps)};
    at::parallel_for(0, tokens, row_grain(row),
                     [&](int64_t begin, int64_t end) { kernels.rotary(rotary, begin, end); });
    for (const auto& copy : batch.copies)
      for (int64_t h = 0; h < kv_heads; ++h) {
        const int64_t from = (copy.from_slot / 16 * kv_heads + h) * d * 16,
                      to = (copy.to_slot / 16 * kv_heads + h) * d * 16;
        for (int64_t i = 0; i < d; ++i)
          keys[to + i * 16 + copy.to_slot % 16] = keys[from + i * 16 + copy.from_slot % 16];
        std::memcpy(values + to + copy.to_slot % 16 * d, values + from + copy.from_slot % 16 * d,
                    sizeof(T) * d);
      }
    // Each thread takes a run of tasks of about equal cost.
    const int threads = at::get_num_threads();
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      const int64_t from = total * begin / threads, to = total * end / threads;
      int64_t at_cost = 0;
      for (const auto& task : tasks) {
        const int64_t middle = at_cost + task.cost / 2;
        at_cost += task.cost;
        if (middle < from || middle >= to) continue;
        kernels.attention({data<T>(qkv) + task.first_token * row,
                           data<T>(out) + task.first_token * config.q_size(), row, keys, values,
                           batch.pages[task.sequence].data(), batch.positions[task.first_token],
                           task.tokens, config.num_attention_heads, kv_heads, d, task.kv_head,
                           1.0f / std::sqrt(static_cast<float>(d))});
      }
    });
  });
  return out;
}

}  // namespace erank::model::kernels
