#include "erank/model/parameters.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "erank/base/error.h"

namespace erank::model {

using base::str;

void check_device(at::Device device) {
  if (device.is_cuda() && !at::hasCUDA())
    base::fail(
        base::ErrorKind::kInvalidInput, "model",
        "no usable GPU: this libtorch has no CUDA kernels or finds no device; use --device cpu");
}

at::ScalarType usual_dtype(at::Device device) {
  if (device.is_cuda()) return at::kBFloat16;
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") ? at::kBFloat16 : at::kFloat;
#else
  return at::kFloat;
#endif
}

Precision precision_of(at::ScalarType dtype) {
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  return dtype == at::kFloat ? Precision::kFp32 : Precision::kBf16;
}

Parameters::Parameters(const ModelConfig& config, at::ScalarType dtype, at::Device device)
    : config_(config), dtype_(dtype), device_(device) {
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  check_device(device);
  const at::NoGradGuard no_grad;
  const auto tensor = at::TensorOptions().dtype(dtype).device(device);
  const int64_t h = config.hidden_size, d = config.head_dim, q = config.q_size(),
                kv = config.kv_size();
  const int64_t f = config.intermediate_size;
  embed_tokens_ = at::empty({config.vocab_size, h}, tensor);
  norm_ = at::empty({h}, tensor);
  lm_head_.weight =
      config.tie_word_embeddings ? embed_tokens_ : at::empty({config.vocab_size, h}, tensor);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    LayerParameters& layer = layers_.emplace_back();
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

std::vector<NamedTensor> Parameters::named() const {
  std::vector<NamedTensor> all;
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
    const LayerParameters& layer = layers_[i];
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

std::vector<Parameters::NamedLinear> Parameters::linears() {
  std::vector<NamedLinear> all;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = str("model.layers.", i, ".");
    LayerParameters& layer = layers_[i];
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

void Parameters::init_random(uint64_t seed, double scale) {
  const at::NoGradGuard no_grad;
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  for (const auto& [name, tensor] : named()) {
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

void Parameters::add_adapter(const std::string& name, Adapter adapter) {
  ERANK_CHECK(!name.empty() && !adapters_.contains(name), "adapter '", name, "'");
  std::map<std::string, Linear*> linears;
  for (const NamedLinear& linear : this->linears()) linears[linear.name] = linear.linear;
  for (const Adapter::Layer& layer : adapter.layers) {
    const auto found = linears.find(layer.name);
    ERANK_CHECK(found != linears.end() && layer.lora.a.size(1) == found->second->weight.size(1) &&
                    layer.lora.b.size(0) == found->second->weight.size(0) &&
                    !layer.lora.magnitude.defined(),
                "adapter '", name, "', layer ", layer.name);
  }
  adapters_.emplace(name, std::move(adapter));
  activate(name);
}

void Parameters::activate(const std::string& name) {
  const Adapter* chosen = name.empty() ? nullptr : adapter(name);
  ERANK_CHECK(name.empty() || chosen, "no adapter '", name, "'");
  for (const NamedLinear& linear : linears())
    linear.linear->lora = chosen ? chosen->find(linear.name) : nullptr;
  active_ = name;
}

const Adapter* Parameters::adapter(const std::string& name) const {
  const auto found = adapters_.find(name);
  return found == adapters_.end() ? nullptr : &found->second;
}

void Parameters::merge_active() {
  ERANK_CHECK(!active_.empty(), "no active adapter");
  const at::NoGradGuard no_grad;
  for (const NamedLinear& linear : linears()) {
    if (!linear.linear->lora) continue;
    const Lora& lora = *linear.linear->lora;
    at::Tensor& weight = linear.linear->weight;
    weight.copy_(at::addmm(weight.to(at::kFloat), lora.b.to(at::kFloat), lora.a.to(at::kFloat), 1,
                           lora.scaling));
  }
  const std::string merged = active_;
  activate("");
  adapters_.erase(merged);
}

}  // namespace erank::model
