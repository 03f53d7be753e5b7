#include "erank/model/cuda/cuda_network.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "erank/base/error.h"
#include "erank/model/weight_source.h"

namespace erank::model::cuda {
namespace {

// [num_pages, 16, K, D] a layer.
class TensorCache : public KvCache {
 public:
  TensorCache(const ModelConfig& config, int64_t num_pages, at::TensorOptions options)
      : num_pages_(num_pages) {
    for (int64_t i = 0; i < config.num_hidden_layers; ++i)
      for (auto* list : {&keys, &values})
        list->push_back(at::empty(
            {num_pages, kPageTokens, config.num_key_value_heads, config.head_dim}, options));
  }
  int64_t num_pages() const override { return num_pages_; }
  std::vector<at::Tensor> keys, values;

 private:
  int64_t num_pages_;
};

at::Tensor upload(const std::vector<int32_t>& values, at::Device device) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kInt)
      .to(device, at::kLong, false, true);
}

// RoPE (half-split) of x [T, heads, D] by cos, sin [T, 1, D / 2], computed in fp32.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor a = x.narrow(2, 0, half).to(at::kFloat),
                   b = x.narrow(2, half, half).to(at::kFloat);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 2).to(x.scalar_type());
}

}  // namespace

struct CudaNetwork::Plan {
  at::Tensor cos, sin;                     // [T, 1, D / 2]
  at::Tensor pages, offsets;               // [T]: where a token's key goes
  at::Tensor copy_from, copy_to;           // [copies] slots
  std::vector<at::Tensor> sequence_pages;  // [pages so far] of each sequence
};

CudaNetwork::CudaNetwork(const WeightSource& source, Precision precision, at::Device device,
                         base::ProgressSink* progress)
    : Network(source.config(), precision),
      dtype_(precision == Precision::kFp32 ? at::kFloat : at::kBFloat16),
      device_(device),
      rotary_(config_) {
  if (device.is_cuda() && !at::hasCUDA())
    base::fail(
        base::ErrorKind::kInvalidInput, "model",
        "no usable GPU: this libtorch has no CUDA kernels or finds no device; use --device cpu");
  if (precision == Precision::kInt8)
    base::fail(base::ErrorKind::kInvalidInput, "model",
               "--precision int8 is for the CPU; use bf16 on a GPU");
  load(source, progress);
}

void CudaNetwork::load(const WeightSource& source, base::ProgressSink* progress) {
  const c10::InferenceMode guard;
  const ModelConfig& c = config_;
  const int64_t total = c.num_hidden_layers + 1;
  const auto read = [&](const std::string& name, std::vector<int64_t> shape) {
    const at::Tensor tensor = at::empty(shape, at::dtype(dtype_));
    auto* out = static_cast<char*>(tensor.data_ptr());
    const int64_t row_bytes = tensor.numel() / tensor.size(0) * tensor.element_size();
    source.read(name, dtype_, [&](int64_t first, const void* values, int64_t count) {
      std::memcpy(out + first * row_bytes, values, count * row_bytes);
    });
    return tensor.to(device_);
  };
  const int64_t h = c.hidden_size, q = c.q_size(), kv = c.kv_size(), f = c.intermediate_size;
  embedding_ = read("model.embed_tokens.weight", {c.vocab_size, h});
  head_ = c.tie_word_embeddings ? embedding_ : read("lm_head.weight", {c.vocab_size, h});
  final_norm_ = read("model.norm.weight", {h});
  layers_.assign(c.num_hidden_layers, {});
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string p = base::str("model.layers.", i, ".");
    Layer& layer = layers_[i];
    layer.input_norm = read(p + "input_layernorm.weight", {h});
    layer.post_norm = read(p + "post_attention_layernorm.weight", {h});
    layer.qkv = at::cat({read(p + "self_attn.q_proj.weight", {q, h}),
                         read(p + "self_attn.k_proj.weight", {kv, h}),
                         read(p + "self_attn.v_proj.weight", {kv, h})});
    if (c.qkv_bias)
      layer.qkv_bias =
          at::cat({read(p + "self_attn.q_proj.bias", {q}), read(p + "self_attn.k_proj.bias", {kv}),
                   read(p + "self_attn.v_proj.bias", {kv})});
    if (c.qk_norm) {
      layer.q_norm = read(p + "self_attn.q_norm.weight", {c.head_dim});
      layer.k_norm = read(p + "self_attn.k_norm.weight", {c.head_dim});
    }
    layer.o = read(p + "self_attn.o_proj.weight", {h, q});
    if (c.o_bias) layer.o_bias = read(p + "self_attn.o_proj.bias", {h});
    layer.gate_up =
        at::cat({read(p + "mlp.gate_proj.weight", {f, h}), read(p + "mlp.up_proj.weight", {f, h})});
    layer.down = read(p + "mlp.down_proj.weight", {h, f});
    if (progress) progress->update({"load weights", i + 1, total, "layers", ""});
  }
  if (progress) progress->finish();
}

int64_t CudaNetwork::page_bytes() const {
  return config_.num_hidden_layers * 2 * config_.kv_size() * kPageTokens *
         static_cast<int64_t>(c10::elementSize(dtype_));
}

std::unique_ptr<KvCache> CudaNetwork::make_cache(int64_t num_pages) const {
  const c10::InferenceMode guard;
  try {
    return std::make_unique<TensorCache>(config_, num_pages,
                                         at::TensorOptions().dtype(dtype_).device(device_));
  } catch (const c10::Error&) {
    base::fail(base::ErrorKind::kExhausted, "kv_cache", "cannot allocate ",
               num_pages * page_bytes(), " bytes; ask for less with --kv-cache-bytes");
  }
}

int64_t CudaNetwork::weight_bytes() const {
  int64_t bytes = embedding_.nbytes() + (head_.is_same(embedding_) ? 0 : head_.nbytes());
  for (const Layer& layer : layers_)
    for (const at::Tensor& t : {layer.qkv, layer.o, layer.gate_up, layer.down}) bytes += t.nbytes();
  return bytes;
}

void CudaNetwork::reach_position(int64_t position) {
  if (!rotary_.reach(position)) return;
  const auto table = [&](const std::vector<float>& values) {
    return at::tensor(values, at::kFloat).view({rotary_.num_positions(), -1}).to(device_);
  };
  cos_ = table(rotary_.cos());
  sin_ = table(rotary_.sin());
}

at::Tensor CudaNetwork::norm(const at::Tensor& x, const at::Tensor& weight) const {
  return at::rms_norm(x, {x.size(-1)}, weight, config_.rms_norm_eps);
}

at::Tensor CudaNetwork::attend(const at::Tensor& qkv, int64_t layer_idx, const Batch& batch,
                               const Plan& plan, KvCache& cache) const {
  const Layer& layer = layers_[layer_idx];
  const int64_t t = qkv.size(0), d = config_.head_dim;
  const int64_t n = config_.num_attention_heads, kv = config_.num_key_value_heads;
  at::Tensor q = qkv.narrow(1, 0, n * d).reshape({t, n, d});
  at::Tensor k = qkv.narrow(1, n * d, kv * d).reshape({t, kv, d});
  const at::Tensor v = qkv.narrow(1, (n + kv) * d, kv * d).reshape({t, kv, d});
  if (config_.qk_norm) q = norm(q, layer.q_norm), k = norm(k, layer.k_norm);
  q = rotate(q, plan.cos, plan.sin);
  k = rotate(k, plan.cos, plan.sin);

  auto& tensors = static_cast<TensorCache&>(cache);
  at::Tensor &keys = tensors.keys[layer_idx], &values = tensors.values[layer_idx];
  keys.index_put_({plan.pages, plan.offsets}, k);
  values.index_put_({plan.pages, plan.offsets}, v);
  if (plan.copy_from.defined())
    for (at::Tensor* all : {&keys, &values}) {
      at::Tensor slots = all->view({-1, kv, d});
      slots.index_put_({plan.copy_to}, slots.index_select(0, plan.copy_from));
    }
  std::vector<at::Tensor> outputs;
  for (size_t b = 0; b + 1 < batch.starts.size(); ++b) {
    const int64_t begin = batch.starts[b], count = batch.starts[b + 1] - begin;
    if (count == 0) continue;
    const at::Tensor query =
        q.narrow(0, begin, count).transpose(0, 1).unsqueeze(0);  // [1, N, count, D]
    const int64_t context = batch.positions[begin] + count;
    const auto gather = [&](const at::Tensor& all) {  // [1, K, context, D]
      return all.index_select(0, plan.sequence_pages[b])
          .reshape({-1, kv, d})
          .narrow(0, 0, context)
          .transpose(0, 1)
          .unsqueeze(0);
    };
    const int64_t window = config_.window_of(layer_idx);
    const bool cut = window > 0 && context > window;  // whether a window hides anything
    at::Tensor mask;
    if (cut || (count != context && count > 1)) {
      const at::Tensor row =
          at::arange(context - count, context, query.options().dtype(at::kLong)).unsqueeze(1);
      const at::Tensor column = at::arange(context, query.options().dtype(at::kLong)).unsqueeze(0);
      mask = column <= row;
      if (cut) mask = mask & (column > row - window);
    }
    const bool causal = !cut && count == context && count > 1;
    const at::Tensor out = at::scaled_dot_product_attention(
        query, gather(keys), gather(values),
        mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, 0.0, causal, std::nullopt,
        n != kv);
    outputs.push_back(out.squeeze(0).transpose(0, 1).reshape({count, n * d}));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

void CudaNetwork::forward(const Batch& batch, KvCache& cache) {
  const c10::InferenceMode guard;
  batch.check(config_.vocab_size, config_.context(), cache.num_pages());
  reach_position(*std::max_element(batch.positions.begin(), batch.positions.end()));
  Plan plan;
  const at::Tensor positions = upload(batch.positions, device_);
  plan.cos = cos_.index_select(0, positions).unsqueeze(1);
  plan.sin = sin_.index_select(0, positions).unsqueeze(1);
  std::vector<int32_t> pages, offsets, from, to;
  for (size_t b = 0; b + 1 < batch.starts.size(); ++b) {
    const auto* own = batch.pages.data() + batch.page_starts[b];
    for (int32_t t = batch.starts[b]; t < batch.starts[b + 1]; ++t) {
      pages.push_back(own[batch.positions[t] / kPageTokens]);
      offsets.push_back(batch.positions[t] % kPageTokens);
    }
    const int32_t end = batch.starts[b + 1] > batch.starts[b]
                            ? batch.positions[batch.starts[b + 1] - 1] / kPageTokens + 1
                            : 0;
    plan.sequence_pages.push_back(upload(std::vector<int32_t>(own, own + end), device_));
  }
  plan.pages = upload(pages, device_), plan.offsets = upload(offsets, device_);
  for (const auto& copy : batch.copies) from.push_back(copy.from_slot), to.push_back(copy.to_slot);
  if (!from.empty()) plan.copy_from = upload(from, device_), plan.copy_to = upload(to, device_);

  at::Tensor x = at::embedding(embedding_, upload(batch.tokens, device_));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor qkv =
        at::linear(norm(x, layer.input_norm), layer.qkv,
                   layer.qkv_bias.defined() ? std::optional(layer.qkv_bias) : std::nullopt);
    at::Tensor attended = attend(qkv, static_cast<int64_t>(i), batch, plan, cache);
    if (i + 1 == layers_.size()) {  // after the last attention only the asked rows matter
      const at::Tensor rows = upload(batch.rows, device_);
      attended = attended.index_select(0, rows);
      x = x.index_select(0, rows);
    }
    x = x + at::linear(attended, layer.o,
                       layer.o_bias.defined() ? std::optional(layer.o_bias) : std::nullopt);
    const at::Tensor gate_up = at::linear(norm(x, layer.post_norm), layer.gate_up);
    const int64_t f = config_.intermediate_size;
    x = x + at::linear(at::silu(gate_up.narrow(1, 0, f)) * gate_up.narrow(1, f, f), layer.down);
  }
  hidden_ = norm(x, final_norm_);
}

void CudaNetwork::read_rows(int64_t first, std::span<const RowRequest> requests,
                            std::span<RowResult> results) {
  const c10::InferenceMode guard;
  ERANK_CHECK(requests.size() == results.size() && hidden_.defined() && first >= 0 &&
              first + std::ssize(requests) <= hidden_.size(0));
  const at::Tensor logits =
      at::linear(hidden_.narrow(0, first, std::ssize(requests)), head_).to(at::kFloat);
  const at::Tensor on_host = logits.to(at::kCPU).contiguous();
  const int64_t v = config_.vocab_size;
  for (int64_t r = 0; r < std::ssize(requests); ++r) {
    const float* row = on_host.const_data_ptr<float>() + r * v;
    const RowRequest& request = requests[r];
    RowResult& result = results[r];
    result = {};
    result.max = -std::numeric_limits<float>::infinity();
    bool numbers = true;
    for (int64_t i = 0; i < v; ++i) {
      numbers &= row[i] == row[i];
      if (row[i] > result.max) result.max = row[i], result.argmax = static_cast<int32_t>(i);
    }
    result.finite = numbers && std::isfinite(result.max);
    if (request.sum && result.finite)
      for (int64_t i = 0; i < v; ++i) result.sum += std::exp(row[i] - result.max);
    for (int32_t i = 0; i < request.num_ids; ++i) request.out[i] = row[request.ids[i]];
    if (request.logits) std::memcpy(request.logits, row, v * sizeof(float));
  }
}

}  // namespace erank::model::cuda
