#include "erank/model/lora.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/model/checkpoint.h"
#include "erank/model/tensor_file.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::Json;

constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kTensorsName = "adapter_model.safetensors";

// Keys that say nothing about the forward pass of a stored adapter. Which layers have one, the
// tensors say.
constexpr std::string_view kHarmless[] = {"auto_mapping",      "base_model_name_or_path",
                                          "exclude_modules",   "inference_mode",
                                          "layers_pattern",    "layers_to_transform",
                                          "megatron_core",     "peft_version",
                                          "qalora_group_size", "revision",
                                          "runtime_config",    "task_type"};

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// PEFT's rule: the layer's whole name, or its last parts.
bool is_target(const std::string& target, const std::string& layer) {
  return layer == target || layer.ends_with("." + target);
}

bool is_targeted(const LoraConfig& config, const std::string& layer) {
  if (config.target_modules.empty()) return layer != "lm_head";
  return std::any_of(config.target_modules.begin(), config.target_modules.end(),
                     [&](const std::string& target) { return is_target(target, layer); });
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

bool says_nothing(const Json& value) {
  return value.is_null() || value == false ||
         ((value.is_object() || value.is_array()) && value.empty());
}

struct StoredConfig {
  LoraConfig config;
  bool every_target = false;  // every targeted layer has an adapter
};

StoredConfig read_config(const std::string& path) {
  const Json json = base::parse_json(base::read_file(path, size_t{16} << 20), path);
  const auto refuse = [&](const std::string& key, const Json& value, const char* expected) {
    base::fail(ErrorKind::kInvalidInput, "load_lora", path, ": \"", key, "\" is ",
               base::dump_json(value).substr(0, 80),
               ", which changes what the adapter computes and is not supported; expected ",
               expected);
  };
  if (base::json_require<std::string>(json, "peft_type", path) != "LORA")
    refuse("peft_type", json["peft_type"], "\"LORA\"");
  StoredConfig stored;
  LoraConfig& config = stored.config;
  config.rank = base::json_require<int64_t>(json, "r", path);
  config.alpha = base::json_require<double>(json, "lora_alpha", path);
  config.dropout = base::json_value<double>(json, "lora_dropout", 0, path);
  config.use_rslora = base::json_value<bool>(json, "use_rslora", false, path);
  if (config.rank < 1 || config.rank > 1 << 16) refuse("r", json["r"], "1 to 65536");
  if (!(config.dropout >= 0 && config.dropout < 1))
    refuse("lora_dropout", json["lora_dropout"], "0 or more and below 1");
  for (const auto& [key, value] : json.items()) {
    if (key == "peft_type" || key == "r" || key == "lora_alpha" || key == "lora_dropout" ||
        key == "use_rslora" ||
        std::find(std::begin(kHarmless), std::end(kHarmless), key) != std::end(kHarmless))
      continue;
    if (key == "target_modules") {
      if (value == "all-linear" || value.is_null()) continue;
      if (!value.is_array()) refuse(key, value, "a list of layer names or \"all-linear\"");
      for (const Json& name : value) {
        if (!name.is_string()) refuse(key, value, "a list of layer names or \"all-linear\"");
        config.target_modules.push_back(name.get<std::string>());
      }
    } else if (key == "bias") {
      if (value != "none") refuse(key, value, "\"none\"");
    } else if (key == "init_lora_weights") {
      // The other ways to begin change the base model's own weights.
      if (!value.is_boolean() && value != "gaussian")
        refuse(key, value, "true, false or \"gaussian\"");
    } else if (!says_nothing(value)) {
      refuse(key, value, "null, false or nothing in it");
    }
  }
  const auto is_set = [&](const char* key) {
    return json.contains(key) && !says_nothing(json[key]);
  };
  stored.every_target = !config.target_modules.empty() && !is_set("layers_to_transform") &&
                        !is_set("exclude_modules");
  return stored;
}

at::Tensor read_tensor(const Checkpoint::Entry& entry, std::vector<int64_t> shape,
                       at::Device device) {
  check_shape(entry, shape, "load_lora");
  at::Tensor tensor = at::empty(shape, at::dtype(at::kFloat));
  float* out = tensor.mutable_data_ptr<float>();
  const int64_t columns = shape[1];
  read_rows(entry, at::kFloat, 0, shape[0], [&](int64_t first, const void* values, int64_t count) {
    std::memcpy(out + first * columns, values, count * columns * sizeof(float));
  });
  return tensor.to(device);
}

}  // namespace

double LoraConfig::scaling() const {
  const auto r = static_cast<double>(rank);
  return use_rslora ? alpha / std::sqrt(r) : alpha / r;
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
    if (!is_targeted(config, name)) continue;
    at::Tensor a = at::empty({config.rank, in}, at::dtype(at::kFloat));
    base::Random random(base::derived_seed(seed, i));
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    float* values = a.mutable_data_ptr<float>();
    for (int64_t j = 0; j < a.numel(); ++j)
      values[j] = static_cast<float>((2 * random.uniform() - 1) * bound);
    const at::Tensor placed = a.to(device);
    adapter.layers.push_back({name,
                              {placed, at::zeros({out, config.rank}, placed.options()),
                               config.scaling(), config.dropout}});
  }
  return adapter;
}

LoraConfig read_lora_config(const std::string& folder) {
  return read_config(folder + "/" + kConfigName).config;
}

Adapter load_adapter(const ModelConfig& model, const std::string& folder, at::Device device) {
  const at::NoGradGuard no_grad;
  const auto [config, every_target] = read_config(folder + "/" + kConfigName);
  const std::string path = folder + "/" + kTensorsName;
  const Checkpoint file = Checkpoint::open(path);
  const auto find = [&](const std::string& layer, const char* part) {
    const std::string name = kPrefix + layer + part;
    // PEFT drops the adapter's own name from the file, other writers keep it.
    const auto* entry = file.find(name + ".weight");
    return entry ? entry : file.find(name + ".default.weight");
  };

  Adapter adapter{config, {}};
  std::set<std::string> used;
  for (const auto& [layer, out, in] : linear_layers(model)) {
    const auto* a = find(layer, ".lora_A");
    const auto* b = find(layer, ".lora_B");
    if (!a != !b)
      base::fail(ErrorKind::kCorrupt, "load_lora", path, ": layer '", layer,
                 "' has only one of lora_A and lora_B");
    if (!a && every_target && is_targeted(config, layer))
      base::fail(ErrorKind::kCorrupt, "load_lora", path, ": no tensors for layer '", layer,
                 "', which ", kConfigName, " targets");
    if (!a) continue;
    adapter.layers.push_back(
        {layer,
         {read_tensor(*a, {config.rank, in}, device), read_tensor(*b, {out, config.rank}, device),
          config.scaling(), config.dropout}});
    used.insert(a->name);
    used.insert(b->name);
  }
  for (const Checkpoint::Entry& entry : file.entries())
    if (!used.contains(entry.name))
      base::fail(ErrorKind::kCorrupt, "load_lora", path, ": tensor '", entry.name,
                 "' belongs to no linear layer of this model");
  if (adapter.layers.empty())
    base::fail(ErrorKind::kCorrupt, "load_lora", path, ": no adapter in this file");
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
  json["bias"] = "none";
  json["target_modules"] = targets;
  json["inference_mode"] = true;
  base::write_file_atomic(folder + "/" + kConfigName, json.dump(2) + "\n");
}

}  // namespace erank::model
