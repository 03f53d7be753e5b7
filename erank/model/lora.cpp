#include "erank/model/lora.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/model/checkpoint.h"
#include "erank/model/peft_folder.h"
#include "erank/model/tensor_file.h"

namespace erank::model {
namespace {

using base::ErrorKind;

constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kTensorsName = "adapter_model.safetensors";

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

bool is_target(const std::string& target, const std::string& layer) {
  return layer == target || layer.ends_with("." + target);
}

// The linear layers of such a model in the order of the checkpoint, without the embedding.
struct LayerShape {
  std::string name;
  int64_t out, in;
};
std::vector<LayerShape> linear_layers(const ModelConfig& model) {
  constexpr std::string_view kWeight = ".weight";
  std::vector<LayerShape> layers;
  for (const TensorShape& tensor : parameter_shapes(model))
    if (tensor.shape.size() == 2 && tensor.name != "model.embed_tokens.weight")
      layers.push_back({tensor.name.substr(0, tensor.name.size() - kWeight.size()), tensor.shape[0],
                        tensor.shape[1]});
  return layers;
}

}  // namespace

bool LoraConfig::targets(const std::string& layer) const {
  if (target_modules.empty()) return layer != "lm_head" && layer != "model.embed_tokens";
  return std::any_of(target_modules.begin(), target_modules.end(),
                     [&](const std::string& target) { return is_target(target, layer); });
}

int64_t LoraConfig::rank_of(const std::string& layer) const {
  const auto own = ranks.find(layer);
  return own == ranks.end() ? rank : own->second;
}

double LoraConfig::scaling_of(const std::string& layer) const {
  const auto r = static_cast<double>(rank_of(layer));
  const auto own = alphas.find(layer);
  return (own == alphas.end() ? alpha : own->second) / (use_rslora ? std::sqrt(r) : r);
}

const Lora* Adapter::find(const std::string& layer) const {
  for (const Layer& one : layers)
    if (one.name == layer) return &one.lora;
  return nullptr;
}

std::vector<NamedTensor> Adapter::named() const {
  std::vector<NamedTensor> all;
  for (const Layer& layer : layers) {
    all.push_back({kPrefix + layer.name + ".lora_A.weight", layer.lora.a});
    all.push_back({kPrefix + layer.name + ".lora_B.weight", layer.lora.b});
  }
  return all;
}

Adapter make_adapter(const ModelConfig& model, const LoraConfig& config, uint64_t seed,
                     at::Device device) {
  const at::NoGradGuard no_grad;
  ERANK_CHECK(config.rank > 0 && config.dropout >= 0 && config.dropout < 1);
  const auto shapes = linear_layers(model);
  for (const std::string& target : config.target_modules)
    if (std::none_of(shapes.begin(), shapes.end(),
                     [&](const auto& layer) { return is_target(target, layer.name); }))
      base::fail(ErrorKind::kInvalidInput, "add_lora", "no layer of this model is called \"",
                 target,
                 "\"; expected q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj"
                 " (lm_head where it is not tied)");
  Adapter adapter{config, {}};
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto& [name, out, in] = shapes[i];
    if (!config.targets(name)) continue;
    const int64_t rank = config.rank_of(name);
    at::Tensor a = at::empty({rank, in}, at::dtype(at::kFloat));
    base::Random random(base::derived_seed(seed, i));
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    float* values = a.mutable_data_ptr<float>();
    for (int64_t j = 0; j < a.numel(); ++j)
      values[j] = static_cast<float>((2 * random.uniform() - 1) * bound);
    const at::Tensor placed = a.to(device);
    adapter.layers.push_back({name,
                              {placed, at::zeros({out, rank}, placed.options()),
                               config.scaling_of(name), config.dropout, at::Tensor()}});
  }
  return adapter;
}

Adapter load_adapter(const ModelConfig& model, const std::string& folder, at::Device device) {
  const at::NoGradGuard no_grad;
  PeftFolder stored = PeftFolder::open(model, folder);
  if (const std::string more = stored.beyond_lora(); !more.empty())
    base::fail(ErrorKind::kInvalidInput, "load_lora", folder,
               ": holds more than LoRA on linear "
               "layers (",
               more,
               "), which cannot be trained on; `erank model merge --model BASE "
               "--adapter ",
               folder, " --out DIR` makes a model of it that can");
  Adapter adapter{std::move(stored.config), std::move(stored.layers)};
  for (Adapter::Layer& layer : adapter.layers) {
    layer.lora.a = layer.lora.a.to(device);
    layer.lora.b = layer.lora.b.to(device);
  }
  return adapter;
}

void save_adapter(const Adapter& adapter, const std::string& folder, const std::string& base_name,
                  at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  ERANK_CHECK(!adapter.layers.empty(), "no adapter to save");
  for (const NamedTensor& tensor : adapter.named())
    if (!is_finite(tensor.tensor.to(dtype)))
      base::fail(ErrorKind::kInvalidInput, "save_lora", folder, ": tensor '", tensor.name,
                 "' has values that are not finite; nothing was written");
  const LoraConfig& config = adapter.config;
  std::set<std::string> targets(config.target_modules.begin(), config.target_modules.end());
  if (targets.empty())
    for (const Adapter::Layer& layer : adapter.layers) targets.insert(last_part(layer.name));

  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    base::fail(ErrorKind::kInvalidInput, "save_lora", folder,
               ": cannot make this folder: ", error.message());
  save_tensors(folder + "/" + kTensorsName, adapter.named(), dtype);
  base::OrderedJson json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["base_model_name_or_path"] = base_name;
  json["r"] = config.rank;
  json["lora_alpha"] = config.alpha;
  json["lora_dropout"] = config.dropout;
  json["use_rslora"] = config.use_rslora;
  // The names have no character but the dot that means another one in a pattern.
  if (!config.ranks.empty()) json["rank_pattern"] = config.ranks;
  if (!config.alphas.empty()) json["alpha_pattern"] = config.alphas;
  json["bias"] = "none";
  json["target_modules"] = targets;
  json["inference_mode"] = true;
  base::write_file_atomic(folder + "/" + kConfigName, json.dump(2) + "\n");
}

}  // namespace erank::model
