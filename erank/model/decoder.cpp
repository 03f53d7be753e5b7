#include "erank/model/decoder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/unsqueeze.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>

#include "erank/base/error.h"
#include "erank/model/kernels/grad_ops.h"
#include "erank/model/kernels/ops.h"
#include "erank/model/kernels/plain_tree.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::str;
using kernels::to_tensor;

// Up to this many rows our own kernel, which streams the weights once, is faster than libtorch's
// matrix product.
constexpr int64_t kFewRows = 8;
// libtorch keeps a compiled product for every row count it has seen, so row counts are rounded up
// to a multiple.
constexpr int64_t kRowMultiple = 32;

at::Tensor plain_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(x, {x.size(-1)}, weight, eps);
}

// y += scaling * (x A^T) B^T, in x's precision.
at::Tensor with_lora(const at::Tensor& y, const at::Tensor& x, const Lora& lora, bool training) {
  const at::Tensor input = training && lora.dropout > 0 ? at::dropout(x, lora.dropout, true) : x;
  const at::Tensor low = at::linear(input, lora.a.to(x.scalar_type()));
  return y + at::linear(low, lora.b.to(x.scalar_type())) * lora.scaling;
}

}  // namespace

at::ScalarType usual_dtype(at::Device device) {
  if (device.is_cuda()) return at::kBFloat16;
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") ? at::kBFloat16 : at::kFloat;
#else
  return at::kFloat;
#endif
}

Decoder::Decoder(const ModelConfig& config, const DecoderOptions& options)
    : config_(config), options_(options) {
  ERANK_CHECK(options.dtype == at::kFloat || options.dtype == at::kBFloat16);
  if (options.device.is_cuda() && !at::hasCUDA())
    base::fail(
        ErrorKind::kInvalidInput, "decoder",
        "no usable GPU: this libtorch has no CUDA kernels or finds no device; use --device cpu");
  if (options.deterministic && !options.device.is_cpu())
    base::fail(ErrorKind::kInvalidInput, "decoder", "--deterministic is for the CPU only");
  if (options.deterministic && (config.head_dim % 16 != 0 || config.head_dim > 256))
    base::fail(ErrorKind::kInvalidInput, "decoder",
               "--deterministic needs a head size that is a multiple of 16 and at most "
               "256, the model's is ",
               config.head_dim);
  const at::NoGradGuard no_grad;
  const auto tensor = at::TensorOptions().dtype(options.dtype).device(options.device);
  const int64_t h = config.hidden_size, d = config.head_dim, q = config.q_size(),
                kv = config.kv_size();
  const int64_t f = config.intermediate_size;
  embed_tokens_ = at::empty({config.vocab_size, h}, tensor);
  norm_ = at::empty({h}, tensor);
  lm_head_.weight =
      config.tie_word_embeddings ? embed_tokens_ : at::empty({config.vocab_size, h}, tensor);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    DecoderLayer& layer = layers_.emplace_back();
    layer.input_layernorm = at::empty({h}, tensor);
    layer.post_attention_layernorm = at::empty({h}, tensor);
    layer.qkv = at::empty({q + 2 * kv, h}, tensor);
    layer.gate_up = at::empty({2 * f, h}, tensor);
    layer.q_proj.weight = layer.qkv.narrow(0, 0, q);
    layer.k_proj.weight = layer.qkv.narrow(0, q, kv);
    layer.v_proj.weight = layer.qkv.narrow(0, q + kv, kv);
    layer.o_proj.weight = at::empty({h, q}, tensor);
    layer.gate_proj.weight = layer.gate_up.narrow(0, 0, f);
    layer.up_proj.weight = layer.gate_up.narrow(0, f, f);
    layer.down_proj.weight = at::empty({h, f}, tensor);
    if (config.qkv_bias) {
      layer.qkv_bias = at::empty({q + 2 * kv}, tensor);
      layer.q_proj.bias = layer.qkv_bias.narrow(0, 0, q);
      layer.k_proj.bias = layer.qkv_bias.narrow(0, q, kv);
      layer.v_proj.bias = layer.qkv_bias.narrow(0, q + kv, kv);
    }
    if (config.o_bias) layer.o_proj.bias = at::empty({h}, tensor);
    if (config.qk_norm) {
      layer.q_norm = at::empty({d}, tensor);
      layer.k_norm = at::empty({d}, tensor);
    }
  }
}

// The rotation's table grows as far as it is used: a configuration may allow millions of positions.
void Decoder::reach_position(int64_t position) {
  if (cos_.defined() && position < cos_.size(0)) return;
  const at::NoGradGuard no_grad;
  const int64_t d = config_.head_dim;
  const int64_t count = std::min(config_.max_position_embeddings,
                                 std::max<int64_t>(4096, (position / 4096 + 1) * 4096));
  // fp32 throughout, as transformers computes them.
  const auto fp32 = at::TensorOptions().dtype(at::kFloat);
  const at::Tensor exponent = at::arange(0, d, 2, fp32) / static_cast<double>(d);
  const at::Tensor frequency = at::reciprocal(at::pow(config_.rope_theta, exponent));
  const at::Tensor angle = at::arange(count, fp32).unsqueeze(1) * frequency.unsqueeze(0);
  cos_ = at::cos(angle).to(options_.device);
  sin_ = at::sin(angle).to(options_.device);
}

bool Decoder::use_kernels() const {
  return options_.device.is_cpu() && !at::GradMode::is_enabled();
}

bool Decoder::use_grad_kernels() const {
  return options_.device.is_cpu() && at::GradMode::is_enabled();
}

at::Tensor Decoder::project(const at::Tensor& x, const Linear& linear) const {
  const bool own = use_kernels() && (options_.deterministic || x.size(0) <= kFewRows);
  const at::Tensor y = own ? kernels::linear(x, linear.weight, linear.bias)
                           : at::linear(x, linear.weight, linear.bias);
  return linear.lora ? with_lora(y, x, *linear.lora, training_) : y;
}

// Several layers of one input at once, their outputs side by side. `weight` and `bias` are what the
// parts are views of.
at::Tensor Decoder::project_fused(const at::Tensor& x, const at::Tensor& weight,
                                  const at::Tensor& bias,
                                  std::initializer_list<const Linear*> parts) const {
  bool adapted = false, trained = false, dropped = false;
  for (const Linear* part : parts) {
    adapted |= part->lora != nullptr;
    trained |= at::GradMode::is_enabled() && part->weight.requires_grad();
    dropped |= part->lora && training_ && part->lora->dropout > 0;
  }
  if (adapted && !trained && !dropped && at::GradMode::is_enabled())
    return kernels::lora_linear(x, weight, bias, parts);
  if (!adapted && !trained) {
    const bool own = use_kernels() && (options_.deterministic || x.size(0) <= kFewRows);
    return own ? kernels::linear(x, weight, bias) : at::linear(x, weight, bias);
  }
  std::vector<at::Tensor> outputs;
  for (const Linear* part : parts) outputs.push_back(project(x, *part));
  return at::cat(outputs, 1);
}

// The heads' own norms of queries and keys, where the model has them.
at::Tensor Decoder::norm_heads(const at::Tensor& qkv, const DecoderLayer& layer) const {
  if (!config_.qk_norm) return qkv;
  const int64_t rows = qkv.size(0), d = config_.head_dim, q = config_.q_size(),
                kv = config_.kv_size();
  const auto normed = [&](int64_t begin, int64_t width, const at::Tensor& weight) {
    return plain_rms_norm(qkv.narrow(1, begin, width).reshape({rows, width / d, d}), weight,
                          config_.rms_norm_eps)
        .reshape({rows, width});
  };
  return at::cat(
      {normed(0, q, layer.q_norm), normed(q, kv, layer.k_norm), qkv.narrow(1, q + kv, kv)}, 1);
}

// Attention against the cache by libtorch's own operations on normed heads: for devices without our
// kernels and for odd head sizes.
at::Tensor Decoder::attend_plain(const at::Tensor& qkv, int64_t layer_idx, const Batch& batch,
                                 KvCache& cache) const {
  const int64_t t = static_cast<int64_t>(batch.tokens.size()), d = config_.head_dim;
  const int64_t n = config_.num_attention_heads, kv = config_.num_key_value_heads;
  const at::Tensor positions = to_tensor(batch.positions, options_.device);
  const at::Tensor cos = cos_.index_select(0, positions).unsqueeze(1),
                   sin = sin_.index_select(0, positions).unsqueeze(1);
  at::Tensor q = qkv.narrow(0, 0, t).narrow(1, 0, n * d).view({t, n, d});
  at::Tensor k = qkv.narrow(0, 0, t).narrow(1, n * d, kv * d).view({t, kv, d});
  const at::Tensor v = qkv.narrow(0, 0, t).narrow(1, (n + kv) * d, kv * d).view({t, kv, d});
  q = kernels::plain_rotate(q, cos, sin).to(qkv.scalar_type());
  k = kernels::plain_rotate(k, cos, sin).to(qkv.scalar_type());

  const at::Tensor &keys = cache.keys(layer_idx), &values = cache.values(layer_idx);
  const auto slots = kernels::plan_cache(batch).slots;
  std::vector<int32_t> page(slots.size()), offset(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) page[i] = slots[i] / 16, offset[i] = slots[i] % 16;
  const at::Tensor page_idx = to_tensor(page, options_.device).to(at::kLong);
  const at::Tensor offset_idx = to_tensor(offset, options_.device).to(at::kLong);
  // Advanced indices on both sides of a slice: the result is [T, K, D], as k and v are.
  keys.permute({0, 3, 1, 2}).index_put_({page_idx, offset_idx}, k);
  values.permute({0, 2, 1, 3}).index_put_({page_idx, offset_idx}, v);
  for (const auto& copy : batch.copies) {
    const auto from = copy.from_slot, to = copy.to_slot;
    keys.select(0, to / 16)
        .select(2, to % 16)
        .copy_(keys.select(0, from / 16).select(2, from % 16));
    values.select(0, to / 16)
        .select(1, to % 16)
        .copy_(values.select(0, from / 16).select(1, from % 16));
  }
  std::vector<at::Tensor> outputs;
  for (int32_t b = 0; b + 1 < static_cast<int32_t>(batch.starts.size()); ++b) {
    const int64_t begin = batch.starts[b], count = batch.starts[b + 1] - begin;
    if (count == 0) continue;
    const at::Tensor query =
        q.narrow(0, begin, count).transpose(0, 1).unsqueeze(0);  // [1, N, count, D]
    const int64_t context = batch.positions[begin] + count;
    const at::Tensor pages =
        to_tensor(batch.pages[b], options_.device).narrow(0, 0, (context + 15) / 16);
    const at::Tensor key = keys.index_select(0, pages)
                               .permute({1, 0, 3, 2})
                               .reshape({kv, -1, d})
                               .narrow(1, 0, context)
                               .unsqueeze(0);
    const at::Tensor value = values.index_select(0, pages)
                                 .permute({1, 0, 2, 3})
                                 .reshape({kv, -1, d})
                                 .narrow(1, 0, context)
                                 .unsqueeze(0);
    at::Tensor mask;
    if (count != context && count > 1) {
      const at::Tensor row =
          at::arange(context - count, context, query.options().dtype(at::kLong)).unsqueeze(1);
      mask = at::arange(context, query.options().dtype(at::kLong)).unsqueeze(0) <= row;
    }
    const bool causal = count == context && count > 1;
    const at::Tensor out = at::scaled_dot_product_attention(
        query, key, value, mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, 0.0,
        causal, std::nullopt, n != kv);
    outputs.push_back(out.squeeze(0).transpose(0, 1).reshape({count, n * d}));
  }
  at::Tensor out = outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
  if (qkv.size(0) > t) out = at::cat({out, out.new_zeros({qkv.size(0) - t, n * d})}, 0);
  return out;
}

at::Tensor Decoder::hidden(const Batch& batch, KvCache* cache) {
  const int64_t t = static_cast<int64_t>(batch.tokens.size());
  ERANK_CHECK(t > 0 && batch.positions.size() == batch.tokens.size() && batch.starts.size() >= 2 &&
                  batch.starts.back() == t && !batch.rows.empty(),
              "batch of ", t, " tokens");
  ERANK_CHECK(!cache || !at::GradMode::is_enabled(), "a cache has no gradients");
  ERANK_CHECK(batch.parents.empty() || (!cache && batch.parents.size() + 1 == batch.starts.size()));
  for (size_t i = 0; i < batch.tokens.size(); ++i)
    ERANK_CHECK(batch.tokens[i] >= 0 && batch.tokens[i] < config_.vocab_size &&
                    batch.positions[i] >= 0 && batch.positions[i] < config_.max_position_embeddings,
                "token ", batch.tokens[i], " at position ", batch.positions[i]);
  reach_position(*std::max_element(batch.positions.begin(), batch.positions.end()));

  const bool kernel = use_kernels(), grad_kernel = use_grad_kernels();
  const bool kernel_attention =
      kernel && cache && config_.head_dim % 16 == 0 && config_.head_dim <= 256;
  std::vector<int32_t> tokens = batch.tokens;
  if (kernel && t > kFewRows && !options_.deterministic)
    tokens.resize((t + kRowMultiple - 1) / kRowMultiple * kRowMultiple, batch.tokens[0]);
  const auto plan = kernel_attention ? kernels::plan_cache(batch) : kernels::CachePlan{};
  std::shared_ptr<const kernels::TreePlan> tree;
  std::optional<kernels::PlainTree> plain_tree;
  if (!cache && options_.device.is_cpu()) tree = kernels::plan_tree(batch);
  // Few classes: each costs a GPU a dozen launches a layer.
  if (!cache && !options_.device.is_cpu())
    plain_tree.emplace(*kernels::plan_tree(batch, 0.4), config_, cos_, sin_, options_.dtype);

  at::Tensor x = at::embedding(embed_tokens_, to_tensor(tokens, options_.device));
  const auto add_norm = [&](const at::Tensor& delta, const at::Tensor& weight) {
    if (kernel) return kernels::add_rms_norm(x, delta, weight, config_.rms_norm_eps);
    if (grad_kernel) {
      at::Tensor y;
      std::tie(x, y) = kernels::add_rms_norm_grad(x, delta, weight, config_.rms_norm_eps);
      return y;
    }
    if (delta.defined()) x = x + delta;
    return plain_rms_norm(x, weight, config_.rms_norm_eps);
  };
  at::Tensor h = add_norm({}, layers_.empty() ? norm_ : layers_[0].input_layernorm);
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const DecoderLayer& layer = layers_[i];
    at::Tensor qkv =
        project_fused(h, layer.qkv, layer.qkv_bias, {&layer.q_proj, &layer.k_proj, &layer.v_proj});
    at::Tensor attended;
    if (kernel_attention)
      attended = kernels::cached_attention(qkv, layer, i, batch, plan, *cache, config_, cos_, sin_);
    else if (plain_tree)
      attended = plain_tree->attend(norm_heads(qkv, layer));
    else if (tree)
      attended = kernels::tree_attention(norm_heads(qkv, layer), tree, config_, cos_, sin_);
    else
      attended = attend_plain(norm_heads(qkv, layer), i, batch, *cache);
    const bool last = i + 1 == config_.num_hidden_layers;
    if (last) {  // behind the last attention only the asked rows matter
      const at::Tensor rows = to_tensor(batch.rows, options_.device);
      attended = attended.index_select(0, rows);
      x = x.index_select(0, rows);
    }
    h = add_norm(project_fused(attended, layer.o_proj.weight, layer.o_proj.bias, {&layer.o_proj}),
                 layer.post_attention_layernorm);
    const at::Tensor gate_up =
        project_fused(h, layer.gate_up, {}, {&layer.gate_proj, &layer.up_proj});
    const int64_t f = config_.intermediate_size;
    const at::Tensor gated = kernel ? kernels::silu_mul(gate_up)
                             : grad_kernel
                                 ? kernels::silu_mul_grad(gate_up)
                                 : at::silu(gate_up.narrow(1, 0, f)) * gate_up.narrow(1, f, f);
    h = add_norm(
        project_fused(gated, layer.down_proj.weight, layer.down_proj.bias, {&layer.down_proj}),
        last ? norm_ : layers_[i + 1].input_layernorm);
  }
  return h;
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  if (use_kernels() && !lm_head_.lora)
    return kernels::linear(hidden, lm_head_.weight, lm_head_.bias, true);
  return project(hidden, lm_head_).to(at::kFloat);
}

std::vector<NamedParameter> Decoder::parameters() {
  std::vector<NamedParameter> all;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    if (tensor.defined()) all.push_back({name, tensor});
  };
  const auto add_linear = [&](const std::string& name, const Linear& linear) {
    add(name + ".weight", linear.weight);
    add(name + ".bias", linear.bias);
  };
  add("model.embed_tokens.weight", embed_tokens_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = str("model.layers.", i, ".");
    const DecoderLayer& layer = layers_[i];
    add(prefix + "input_layernorm.weight", layer.input_layernorm);
    add_linear(prefix + "self_attn.q_proj", layer.q_proj);
    add_linear(prefix + "self_attn.k_proj", layer.k_proj);
    add_linear(prefix + "self_attn.v_proj", layer.v_proj);
    add(prefix + "self_attn.q_norm.weight", layer.q_norm);
    add(prefix + "self_attn.k_norm.weight", layer.k_norm);
    add_linear(prefix + "self_attn.o_proj", layer.o_proj);
    add(prefix + "post_attention_layernorm.weight", layer.post_attention_layernorm);
    add_linear(prefix + "mlp.gate_proj", layer.gate_proj);
    add_linear(prefix + "mlp.up_proj", layer.up_proj);
    add_linear(prefix + "mlp.down_proj", layer.down_proj);
  }
  add("model.norm.weight", norm_);
  if (!config_.tie_word_embeddings) add_linear("lm_head", lm_head_);
  return all;
}

std::vector<Decoder::NamedLinear> Decoder::linears() {
  std::vector<NamedLinear> all;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = str("model.layers.", i, ".");
    DecoderLayer& layer = layers_[i];
    all.push_back({prefix + "self_attn.q_proj", &layer.q_proj});
    all.push_back({prefix + "self_attn.k_proj", &layer.k_proj});
    all.push_back({prefix + "self_attn.v_proj", &layer.v_proj});
    all.push_back({prefix + "self_attn.o_proj", &layer.o_proj});
    all.push_back({prefix + "mlp.gate_proj", &layer.gate_proj});
    all.push_back({prefix + "mlp.up_proj", &layer.up_proj});
    all.push_back({prefix + "mlp.down_proj", &layer.down_proj});
  }
  if (!config_.tie_word_embeddings) all.push_back({"lm_head", &lm_head_});
  return all;
}

void Decoder::init_random(uint64_t seed, double scale) {
  const at::NoGradGuard no_grad;
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  for (auto& [name, tensor] : parameters()) {
    const bool norm = name.find("norm") != std::string::npos;
    if (norm)
      tensor.fill_(1);
    else if (tensor.device().is_cpu())
      tensor.normal_(0, scale, generator);
    else
      tensor.copy_(at::empty(tensor.sizes(), tensor.options().device(at::kCPU))
                       .normal_(0, scale, generator));
  }
}

}  // namespace erank::model
