#include "erank/model/peft_folder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <regex>
#include <set>

#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::Json;

constexpr const char* kWhere = "load_lora";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kTensorsName = "adapter_model.safetensors";
constexpr const char* kEmbedding = "model.embed_tokens";
constexpr const char* kHead = "lm_head";
constexpr const char* kMerge =
    "; merge it with peft (PeftModel.from_pretrained(base, adapter).merge_and_unload(), then "
    "save_pretrained) and give that folder as the model";

// Keys that say nothing about the forward pass of a stored adapter: where it came from, how it was
// initialised, how its gradients were computed. Which layers have one, the tensors say.
constexpr std::string_view kHarmless[] = {"auto_mapping",      "base_model_name_or_path",
                                          "corda_config",      "eva_config",
                                          "exclude_modules",   "inference_mode",
                                          "layers_pattern",    "layers_to_transform",
                                          "loftq_config",      "lora_ga_config",
                                          "megatron_core",     "peft_version",
                                          "qalora_group_size", "revision",
                                          "runtime_config",    "task_type",
                                          "velora_config"};
// Ways to begin that leave the base's own weights as they are.
constexpr std::string_view kInitialisations[] = {"gaussian", "orthogonal", "eva", "mica"};

template <size_t N>
bool contains(const std::string_view (&list)[N], std::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

bool says_nothing(const Json& value) {
  return value.is_null() || value == false ||
         ((value.is_object() || value.is_array()) && value.empty());
}

// adapter_config.json, before the file's names of layers are known.
struct StoredConfig {
  LoraConfig config;
  bool every_target = false;  // the list of targets is what has an adapter
  bool dora = false, bias = false;
  bool ties = false;               // what is saved of the embedding is saved of a tied head too
  std::vector<std::string> saved;  // modules_to_save
  std::map<std::string, std::vector<int64_t>> tokens;                     // trainable_token_indices
  std::vector<std::pair<std::string, Json>> rank_pattern, alpha_pattern;  // in the file's order
};

class ConfigReader {
 public:
  explicit ConfigReader(const std::string& path) : path_(path) {}

  StoredConfig read() {
    if (!base::file_exists(path_))
      base::fail(ErrorKind::kNotFound, kWhere, path_, ": no such file; expected a folder of PEFT");
    const std::string text = base::read_file(path_, size_t{16} << 20);
    json_ = base::parse_json(text, path_);
    if (!json_.is_object())
      base::fail(ErrorKind::kInvalidInput, kWhere, path_, ": expected a JSON object");
    if (base::json_require<std::string>(json_, "peft_type", path_) != "LORA")
      refuse("peft_type", "\"LORA\"");
    StoredConfig stored;
    LoraConfig& config = stored.config;
    config.rank = base::json_require<int64_t>(json_, "r", path_);
    config.alpha = base::json_require<double>(json_, "lora_alpha", path_);
    config.dropout = base::json_value<double>(json_, "lora_dropout", 0, path_);
    config.use_rslora = base::json_value<bool>(json_, "use_rslora", false, path_);
    stored.dora = base::json_value<bool>(json_, "use_dora", false, path_);
    stored.ties = base::json_value<bool>(json_, "ensure_weight_tying", false, path_);
    if (config.rank < 1 || config.rank > kMaxRank) refuse("r", "1 to 65536");
    if (!(config.dropout >= 0 && config.dropout < 1))
      refuse("lora_dropout", "0 or more and below 1");
    read_targets(stored);
    stored.bias = is_set("bias") && json_["bias"] != "none";
    if (stored.bias && json_["bias"] != "all" && json_["bias"] != "lora_only")
      refuse("bias", "\"none\", \"all\" or \"lora_only\"");
    if (is_set("modules_to_save")) stored.saved = names("modules_to_save");
    if (is_set("trainable_token_indices")) stored.tokens = token_indices();
    if (is_set("init_lora_weights") && !json_["init_lora_weights"].is_boolean() &&
        !contains(kInitialisations, json_["init_lora_weights"].is_string()
                                        ? json_["init_lora_weights"].get<std::string>()
                                        : ""))
      refuse("init_lora_weights", "a way to begin that leaves the base's weights as they are");
    const auto ordered = base::OrderedJson::parse(text);
    stored.rank_pattern = pattern("rank_pattern", ordered);
    stored.alpha_pattern = pattern("alpha_pattern", ordered);
    for (const auto& [key, value] : json_.items())
      if (!contains(kRead, key) && !contains(kHarmless, key) && !says_nothing(value))
        refuse(key, "null, false or nothing in it");
    return stored;
  }

 private:
  static constexpr int64_t kMaxRank = 1 << 16;
  static constexpr std::string_view kRead[] = {"peft_type",
                                               "r",
                                               "lora_alpha",
                                               "lora_dropout",
                                               "use_rslora",
                                               "use_dora",
                                               "bias",
                                               "target_modules",
                                               "rank_pattern",
                                               "modules_to_save",
                                               "alpha_pattern",
                                               "trainable_token_indices",
                                               "init_lora_weights",
                                               "ensure_weight_tying"};

  [[noreturn]] void refuse(const std::string& key, const char* expected) const {
    base::fail(ErrorKind::kInvalidInput, kWhere, path_, ": \"", key, "\" is ",
               base::dump_json(json_[key]).substr(0, 80),
               ", which changes what the adapter computes and is not supported; expected ",
               expected, kMerge);
  }
  bool is_set(const char* key) const { return json_.contains(key) && !says_nothing(json_[key]); }

  std::vector<std::string> names(const char* key) const {
    const Json& list = json_[key];
    if (!list.is_array() ||
        !std::all_of(list.begin(), list.end(), [](const Json& name) { return name.is_string(); }))
      refuse(key, "a list of names");
    return list.get<std::vector<std::string>>();
  }

  // A text is a regular expression or "all-linear": then the tensors' names say all.
  void read_targets(StoredConfig& stored) const {
    if (!is_set("target_modules") || json_["target_modules"].is_string()) return;
    stored.config.target_modules = names("target_modules");
    stored.every_target = !is_set("layers_to_transform") && !is_set("exclude_modules");
  }

  std::map<std::string, std::vector<int64_t>> token_indices() const {
    const Json& value = json_["trainable_token_indices"];
    const Json by_layer = value.is_array() ? Json{{"embed_tokens", value}} : value;
    std::map<std::string, std::vector<int64_t>> tokens;
    if (by_layer.is_object())
      for (const auto& [layer, ids] : by_layer.items()) {
        if (!ids.is_array() || !std::all_of(ids.begin(), ids.end(), [](const Json& id) {
              return id.is_number_integer() && id.get<int64_t>() >= 0;
            }))
          refuse("trainable_token_indices", "lists of token ids");
        tokens[layer] = ids.get<std::vector<int64_t>>();
      }
    else
      refuse("trainable_token_indices", "lists of token ids");
    return tokens;
  }

  std::vector<std::pair<std::string, Json>> pattern(const char* key,
                                                    const base::OrderedJson& ordered) const {
    if (!is_set(key)) return {};
    if (!json_[key].is_object()) refuse(key, "an object of patterns and numbers");
    std::vector<std::pair<std::string, Json>> all;
    for (const auto& [name, value] : ordered[key].items()) {
      const bool is_rank = std::string_view(key) == "rank_pattern";
      if (is_rank ? !(value.is_number_integer() && value >= 1 && value <= kMaxRank)
                  : !value.is_number())
        refuse(key, is_rank ? "ranks of 1 to 65536" : "numbers");
      if (!is_plain(name)) refuse(key, "names of layers, or plain regular expressions of them");
      all.emplace_back(name, Json(value));
    }
    return all;
  }

  // Whether Python and C++ mean the same by a regular expression, and matching it is quick: few
  // repetitions, none of a group.
  static bool is_plain(const std::string& pattern) {
    constexpr size_t kMostRepetitions = 4;
    size_t repetitions = 0;
    for (size_t i = 0; i < pattern.size(); ++i) {
      const char c = pattern[i], next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
      if (c == '*' || c == '+' || c == '{') ++repetitions;
      if (c == ')' && (next == '*' || next == '+' || next == '{')) return false;
      if (c == '(' && next == '?' && !std::string_view(pattern).substr(i).starts_with("(?:"))
        return false;
      if (c == '[' && std::string_view("]^:.=").find(next) != std::string_view::npos) return false;
      if (c == '\\') {
        if (std::string_view(".dDwWsS\\-_").find(next) == std::string_view::npos) return false;
        ++i;
      }
    }
    if (repetitions > kMostRepetitions || pattern.size() > 512) return false;
    try {
      const std::regex compiled(pattern);
      return true;
    } catch (const std::regex_error&) {
      return false;
    }
  }

  const std::string& path_;
  Json json_;
};

// PEFT's get_pattern_key: the first pattern that the name, or its last parts, match.
std::optional<Json> matched(const std::vector<std::pair<std::string, Json>>& patterns,
                            const std::string& layer) {
  for (const auto& [pattern, value] : patterns)
    if (std::regex_match(layer, std::regex("(.*\\.)?(" + pattern + ")"))) return value;
  return std::nullopt;
}

// A tensor's name in the file: "<layer><part>".
struct Place {
  std::string layer, part;
};

constexpr std::string_view kParts[] = {".lora_A.weight",
                                       ".lora_B.weight",
                                       ".lora_embedding_A",
                                       ".lora_embedding_B",
                                       ".lora_magnitude_vector",
                                       ".lora_magnitude_vector.weight",
                                       ".token_adapter.trainable_tokens_delta",
                                       ".base_layer.weight",
                                       ".base_layer.bias",
                                       ".weight",
                                       ".bias"};

// PEFT drops the adapter's own name from the file, other writers keep it.
std::optional<Place> place_of(std::string name) {
  constexpr std::string_view kOwnName = ".default";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name = name.substr(kPrefix.size());
  if (const size_t at = name.find(kOwnName); at != std::string::npos)
    if (const size_t end = at + kOwnName.size(); end == name.size() || name[end] == '.')
      name.erase(at, kOwnName.size());
  // Of a saved module, or of one with modules in it: "mlp.modules_to_save.up_proj.weight".
  std::string inside;
  for (const std::string marker : {".modules_to_save", ".original_module"})
    if (const size_t at = name.find(marker + "."); at != std::string::npos) {
      name.erase(at, marker.size());
      inside = marker;
    }
  for (const std::string_view part : kParts)
    if (name.ends_with(part))
      return Place{name.substr(0, name.size() - part.size()), inside + std::string(part)};
  return std::nullopt;
}

bool is_lora(const std::string& part) {
  return part.starts_with(".lora_A") || part.starts_with(".lora_embedding_A");
}

// What the file's names of layers make of the configuration.
void resolve(StoredConfig& stored, const Checkpoint& file) {
  std::vector<std::string> layers;
  for (const Checkpoint::Entry& entry : file.entries())
    if (const auto place = place_of(entry.name); place && is_lora(place->part))
      layers.push_back(place->layer);
  LoraConfig& config = stored.config;
  if (!stored.every_target) config.target_modules = layers;
  for (const std::string& layer : layers) {
    if (const auto rank = matched(stored.rank_pattern, layer); rank && *rank != config.rank)
      config.ranks[layer] = rank->get<int64_t>();
    if (const auto alpha = matched(stored.alpha_pattern, layer); alpha && *alpha != config.alpha)
      config.alphas[layer] = alpha->get<double>();
  }
}

Checkpoint open_tensors(const std::string& folder) {
  const std::string path = folder + "/" + kTensorsName;
  const std::string pickle = folder + "/adapter_model.bin";
  if (!base::file_exists(path) && base::file_exists(pickle))
    base::fail(ErrorKind::kNotFound, kWhere, folder,
               ": has adapter_model.bin alone, which only "
               "Python can read; load it with peft and save it again (save_pretrained), which "
               "writes ",
               kTensorsName);
  return Checkpoint::open(path);
}

// [shape[0], shape[1]] or [shape[0]], fp32.
at::Tensor read_tensor(const Checkpoint::Entry& entry, const std::vector<int64_t>& shape) {
  check_shape(entry, shape, kWhere);
  at::Tensor tensor = at::empty(shape, at::dtype(at::kFloat));
  float* out = tensor.mutable_data_ptr<float>();
  const int64_t columns = shape.size() == 2 ? shape[1] : 1;
  read_rows(entry, at::kFloat, 0, shape[0], [&](int64_t first, const void* values, int64_t count) {
    std::memcpy(out + first * columns, values, count * columns * sizeof(float));
  });
  return tensor;
}

class FolderReader {
 public:
  FolderReader(const ModelConfig& model, const std::string& folder)
      : model_(model),
        config_path_(folder + "/" + kConfigName),
        path_(folder + "/" + kTensorsName),
        stored_(ConfigReader(config_path_).read()) {
    out_.file = open_tensors(folder);
    resolve(stored_, out_.file);
    for (TensorShape& parameter : parameter_shapes(model_)) {
      order_.push_back(parameter.name);
      shapes_.emplace(std::move(parameter.name), std::move(parameter.shape));
    }
    if (model_.tie_word_embeddings) {
      order_.push_back("lm_head.weight");
      shapes_.emplace("lm_head.weight", shapes_.at("model.embed_tokens.weight"));
    }
  }

  PeftFolder read() {
    for (const Checkpoint::Entry& entry : out_.file.entries()) {
      const auto place = place_of(entry.name);
      if (!place || !take(entry, *place))
        base::fail(ErrorKind::kCorrupt, kWhere, path_, ": tensor '", entry.name,
                   "' has no place in this model and adapter");
    }
    out_.config = stored_.config;
    for (const std::string& parameter : order_) {
      constexpr std::string_view kWeight = ".weight";
      if (parameter.ends_with(kWeight) && shapes_.at(parameter).size() == 2)
        read_layer(parameter.substr(0, parameter.size() - kWeight.size()));
    }
    for (const auto& [layer, ids] : stored_.tokens) read_rows_of(layer, ids);
    check_all_used();
    join_tied();
    if (out_.layers.empty() && out_.replaced.empty() && out_.rows.empty())
      base::fail(ErrorKind::kCorrupt, kWhere, path_, ": no adapter in this file");
    return std::move(out_);
  }

 private:
  using Entry = Checkpoint::Entry;

  // Sorts a tensor in; false: it has no place.
  bool take(const Entry& entry, const Place& place) {
    const auto& [layer, part] = place;
    if (part.find("lora_") != std::string::npos || part.starts_with(".token_adapter")) {
      const bool known =
          shapes_.contains(layer + ".weight") && shapes_.at(layer + ".weight").size() == 2;
      return known && parts_[layer].emplace(part, &entry).second;
    }
    const std::string parameter = layer + part.substr(part.rfind('.'));
    if (!shapes_.contains(parameter)) return false;
    const std::vector<int64_t>& shape = shapes_.at(parameter);
    if ((layer == kEmbedding || layer == kHead) && entry.info->shape.size() == 2 &&
        entry.info->shape[0] != shape[0])
      base::fail(ErrorKind::kInvalidInput, kWhere, path_, ": tensor '", entry.name, "' has ",
                 entry.info->shape[0], " rows, the base model ", shape[0],
                 ": its vocabulary was resized before training", kMerge);
    check_shape(entry, shape, kWhere);
    const bool own_name = part == ".weight" || part == ".bias";
    const bool saved =
        (own_name || part.starts_with(".modules_to_save")) &&
        (is_saved(layer) || (stored_.ties && layer == kHead && is_saved(kEmbedding)));
    const bool bias =
        stored_.bias && parameter.ends_with(".bias") && (own_name || part == ".base_layer.bias");
    auto& list = saved || bias ? out_.replaced : out_.copies;
    return list.emplace(parameter, &entry).second;
  }

  // PEFT's rule: the layer, or a module that it is in, ends so, whatever the dots.
  static bool is_in(std::string_view layer, const std::string& name) {
    for (size_t end = layer.size();; end = layer.rfind('.', end - 1)) {
      if (end == layer.npos) return false;
      if (layer.substr(0, end).ends_with(name)) return true;
      if (end == 0) return false;
    }
  }
  bool is_saved(const std::string& layer) const {
    return std::any_of(stored_.saved.begin(), stored_.saved.end(),
                       [&](const std::string& name) { return is_in(layer, name); });
  }

  // The layer's part; it is then used.
  const Entry* use(const std::string& layer, const char* part) {
    const auto parts = parts_.find(layer);
    if (parts == parts_.end()) return nullptr;
    const auto found = parts->second.find(part);
    if (found == parts->second.end()) return nullptr;
    const Entry* entry = found->second;
    parts->second.erase(found);
    return entry;
  }

  void read_layer(const std::string& layer) {
    const bool embedding = layer == kEmbedding;
    const std::vector<int64_t>& shape = shapes_.at(layer + ".weight");  // [out, in]
    const Entry* a = use(layer, embedding ? ".lora_embedding_A" : ".lora_A.weight");
    const Entry* b = use(layer, embedding ? ".lora_embedding_B" : ".lora_B.weight");
    if (!a != !b)
      base::fail(ErrorKind::kCorrupt, kWhere, path_, ": layer '", layer,
                 "' has only one of lora_A and lora_B");
    if (!a && stored_.every_target && stored_.config.targets(layer) &&
        !(layer == kHead && model_.tie_word_embeddings))
      base::fail(ErrorKind::kCorrupt, kWhere, path_, ": no tensors for layer '", layer, "', which ",
                 kConfigName, " targets");
    if (!a) return;
    const int64_t rank = stored_.config.rank_of(layer);
    Lora lora;
    lora.scaling = stored_.config.scaling_of(layer);
    lora.dropout = stored_.config.dropout;
    if (embedding) {
      lora.a = read_tensor(*b, {shape[1], rank}).t().contiguous();
      lora.b = read_tensor(*a, {rank, shape[0]}).t().contiguous();
    } else {
      lora.a = read_tensor(*a, {rank, shape[1]});
      lora.b = read_tensor(*b, {shape[0], rank});
    }
    if (stored_.dora) {
      if (embedding)
        base::fail(ErrorKind::kInvalidInput, kWhere, path_,
                   ": DoRA (\"use_dora\") of the "
                   "embedding is not supported",
                   kMerge);
      const Entry* magnitude = use(layer, ".lora_magnitude_vector");
      if (!magnitude) magnitude = use(layer, ".lora_magnitude_vector.weight");
      if (!magnitude)
        base::fail(ErrorKind::kCorrupt, kWhere, path_, ": layer '", layer,
                   "' has no lora_magnitude_vector, which \"use_dora\" needs");
      lora.magnitude = read_tensor(*magnitude, {shape[0]});
    }
    out_.layers.push_back({layer, std::move(lora)});
  }

  void read_rows_of(const std::string& name, const std::vector<int64_t>& ids) {
    const auto is_called = [&](const std::string& layer) {
      return layer == name || layer.ends_with("." + name);
    };
    const std::string layer = is_called(kEmbedding) ? kEmbedding : is_called(kHead) ? kHead : "";
    const auto refuse = [&](const auto&... what) {
      base::fail(ErrorKind::kCorrupt, kWhere, config_path_, ": \"trainable_token_indices\" of '",
                 name, "' ", what...);
    };
    if (layer.empty()) refuse("are of no embedding or head");
    const Entry* delta = use(layer, ".token_adapter.trainable_tokens_delta");
    if (!delta && layer == kHead && model_.tie_word_embeddings) {  // PEFT keeps it tied
      for (const auto& [other, same] : stored_.tokens)
        if (other.ends_with("embed_tokens") && same == ids) return;
    }
    if (!delta) refuse("have no tensor in ", kTensorsName);
    const std::vector<int64_t>& shape = shapes_.at(layer + ".weight");
    if (std::set<int64_t>(ids.begin(), ids.end()).size() != ids.size())
      refuse("name a token twice");
    for (const int64_t id : ids)
      if (id >= shape[0]) refuse("hold ", id, ", the vocabulary has ", shape[0], " tokens");
    out_.rows[layer + ".weight"] = {
        ids, read_tensor(*delta, {static_cast<int64_t>(ids.size()), shape[1]})};
  }

  void check_all_used() const {
    for (const auto& [layer, parts] : parts_)
      for (const auto& [part, entry] : parts)
        base::fail(ErrorKind::kCorrupt, kWhere, path_, ": tensor '", entry->name, "' is none that ",
                   kConfigName, " speaks of");
    for (const std::string& name : stored_.saved)
      if (std::none_of(out_.replaced.begin(), out_.replaced.end(), [&](const auto& one) {
            return is_in(one.first.substr(0, one.first.rfind('.')), name);
          }))
        base::fail(ErrorKind::kCorrupt, kWhere, path_, ": no tensor of '", name, "', which ",
                   kConfigName, " has in \"modules_to_save\"");
    for (const auto& [parameter, rows] : out_.rows)
      if (touches(parameter))
        base::fail(ErrorKind::kInvalidInput, kWhere, path_, ": '", parameter,
                   "' has rows of \"trainable_token_indices\" and another adapter too", kMerge);
    if (model_.tie_word_embeddings && !out_.rows.empty() &&
        (out_.rows.contains("lm_head.weight") || touches("lm_head.weight")))
      base::fail(ErrorKind::kInvalidInput, kWhere, path_,
                 ": \"trainable_token_indices\" of a head "
                 "that is tied to the embedding are not supported",
                 kMerge);
  }

  bool touches(const std::string& parameter) const {
    return out_.replaced.contains(parameter) ||
           std::any_of(out_.layers.begin(), out_.layers.end(),
                       [&](const auto& layer) { return layer.name + ".weight" == parameter; });
  }

  // Of a tied model: a head that got what the embedding got is still tied.
  void join_tied() {
    if (!model_.tie_word_embeddings) return;
    const std::string table = "model.embed_tokens.weight", head = "lm_head.weight";
    if (!touches(table) && !touches(head)) return;
    const auto find = [&](const char* name) {
      return std::find_if(out_.layers.begin(), out_.layers.end(),
                          [&](const auto& layer) { return layer.name == name; });
    };
    const auto a = find(kEmbedding), b = find(kHead);
    bool same = (a == out_.layers.end()) == (b == out_.layers.end()) &&
                out_.replaced.contains(table) == out_.replaced.contains(head);
    if (same && a != out_.layers.end())
      same = a->lora.scaling == b->lora.scaling && at::equal(a->lora.a, b->lora.a) &&
             at::equal(a->lora.b, b->lora.b) && !b->lora.magnitude.defined();
    if (same && out_.replaced.contains(table))
      same = equal_values(*out_.replaced.at(table), *out_.replaced.at(head));
    out_.unties = !same;
    if (!same) return;
    out_.replaced.erase(head);
    if (b != out_.layers.end()) out_.layers.erase(b);
  }

  const ModelConfig& model_;
  const std::string config_path_, path_;
  StoredConfig stored_;
  std::vector<std::string> order_;
  std::map<std::string, std::vector<int64_t>> shapes_;                // by parameter
  std::map<std::string, std::map<std::string, const Entry*>> parts_;  // by layer and part, unused
  PeftFolder out_;
};

}  // namespace

PeftFolder PeftFolder::open(const ModelConfig& model, const std::string& folder) {
  const at::NoGradGuard no_grad;
  return FolderReader(model, folder).read();
}

std::string PeftFolder::beyond_lora() const {
  std::vector<std::string> more;
  for (const Adapter::Layer& layer : layers) {
    if (layer.lora.magnitude.defined()) more.push_back("DoRA of " + layer.name);
    if (layer.name == kEmbedding || (layer.name == kHead && unties))
      more.push_back("LoRA of " + layer.name);
  }
  for (const auto& [parameter, entry] : replaced) more.push_back(parameter);
  for (const auto& [parameter, some] : rows) more.push_back("rows of " + parameter);
  if (more.size() <= 1) return more.empty() ? "" : more.front();
  return base::str(more.front(), " and ", more.size() - 1, " more");
}

LoraConfig read_lora_config(const std::string& folder) {
  const std::string path = folder + "/" + kConfigName;
  StoredConfig stored = ConfigReader(path).read();
  resolve(stored, open_tensors(folder));
  return stored.config;
}

}  // namespace erank::model
