#include "erank/model/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/quantization.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::Json;

constexpr const char* kWhere = "ModelConfig";

struct FamilyName {
  Family family;
  const char* architecture;  // config.json `architectures`
  const char* model_type;    // config.json `model_type`, GGUF `general.architecture`
};
constexpr FamilyName kFamilies[] = {{Family::kLlama, "LlamaForCausalLM", "llama"},
                                    {Family::kQwen2, "Qwen2ForCausalLM", "qwen2"},
                                    {Family::kQwen3, "Qwen3ForCausalLM", "qwen3"}};

const FamilyName& name_of(Family family) {
  return *std::find_if(std::begin(kFamilies), std::end(kFamilies),
                       [&](const FamilyName& f) { return f.family == family; });
}

// The table of derivations: what a key that config.json does not hold means, family by family;
// nullopt: the key is required. These are transformers' own class defaults, where they are stable.
struct Derivation {
  std::optional<int64_t> kv_heads;  // 0: as many as query heads
  int64_t head_dim;                 // 0: hidden_size / num_attention_heads
  std::optional<double> rope_theta;
  bool qkv_bias;            // what `attention_bias` is when it is missing
  bool has_attention_bias;  // whether the family knows that key; it covers q, k, v and o
  bool qk_norm;
};
Derivation derivation_of(Family family) {
  switch (family) {
    case Family::kLlama:
      return {0, 0, 10000.0, false, true, false};
    case Family::kQwen2:
      return {std::nullopt, 0, std::nullopt, true, false, false};
    case Family::kQwen3:
      return {std::nullopt, 128, std::nullopt, false, true, true};
  }
  ERANK_CHECK(false);
}

// Keys that from_json reads.
constexpr std::string_view kRead[] = {"architectures",       "model_type",
                                      "hidden_size",         "intermediate_size",
                                      "num_hidden_layers",   "num_attention_heads",
                                      "num_key_value_heads", "head_dim",
                                      "vocab_size",          "max_position_embeddings",
                                      "rms_norm_eps",        "rope_theta",
                                      "rope_parameters",     "rope_scaling",
                                      "attention_bias",      "tie_word_embeddings",
                                      "layer_types",         "eos_token_id",
                                      "bos_token_id",        "use_sliding_window",
                                      "sliding_window"};

// Keys that change nothing in the forward pass: training, generation, bookkeeping.
constexpr std::string_view kHarmless[] = {"_name_or_path",
                                          "attention_dropout",
                                          "chunk_size_feed_forward",
                                          "dtype",
                                          "finetuning_task",
                                          "id2label",
                                          "initializer_range",
                                          "is_llama_config",
                                          "label2id",
                                          "max_window_layers",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "pad_token_id",
                                          "pretraining_tp",
                                          "problem_type",
                                          "return_dict",
                                          "torch_dtype",
                                          "transformers.js_config",
                                          "transformers_version",
                                          "unsloth_fixed",
                                          "unsloth_version",
                                          "use_cache"};

bool is_false(const Json& v) { return v == false; }
bool is_one(const Json& v) { return v.is_number() && v.get<double>() == 1; }
bool is_silu(const Json& v) { return v == "silu"; }

// Keys that change the maths and are honoured with one value only. Null counts as missing.
struct OnlyValue {
  std::string_view key;
  bool (*accepts)(const Json&);
  const char* expected;
};
constexpr OnlyValue kOnly[] = {
    {"hidden_act", is_silu, "\"silu\""},
    {"mlp_bias", is_false, "false"},
    {"is_encoder_decoder", is_false, "false"},
    {"add_cross_attention", is_false, "false"},
    {"partial_rotary_factor", is_one, "1"},
    {"rope_interleaved", is_false, "false"},
    {"use_mrope", is_false, "false"},
    {"quantization_config", is_known_quantization,
     "no quantised weights, 8-bit floats (\"fp8\", or compressed-tensors' \"float-quantized\"), or "
     "compressed-tensors' int8 with a scale for each output; else take the model's unquantised "
     "folder, or a GGUF of it"},
    {"quantization", nullptr, "no quantised weights"},
};

template <typename Range>
bool contains(const Range& range, std::string_view key) {
  return std::find(std::begin(range), std::end(range), key) != std::end(range);
}

[[noreturn]] void refuse(const std::string& where, std::string_view key, const Json& value,
                         std::string_view expected) {
  std::string shown = base::dump_json(value);
  if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
  base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"", key, "\" is ", shown,
             ", which changes the model's maths and is not supported; expected ", expected);
}

Family family_of(const Json& json, const std::string& where) {
  std::optional<Family> family;
  const auto check = [&](const char* key, const std::string& value,
                         const char* FamilyName::*field) {
    for (const FamilyName& f : kFamilies) {
      if (value != f.*field) continue;
      if (family && *family != f.family)
        base::fail(ErrorKind::kInvalidInput, kWhere, where,
                   ": \"architectures\" and \"model_type\" name different families");
      family = f.family;
      return;
    }
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"", key, "\" is \"", value,
               "\"; supported are LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM "
               "(llama, qwen2, qwen3)");
  };
  if (json.contains("architectures") && !json["architectures"].is_null()) {
    const Json& list = json["architectures"];
    if (!list.is_array() || list.size() != 1 || !list[0].is_string())
      refuse(where, "architectures", list, "a list of one name");
    check("architectures", list[0].get<std::string>(), &FamilyName::architecture);
  }
  const auto model_type = base::json_value<std::string>(json, "model_type", "", where);
  if (!model_type.empty()) check("model_type", model_type, &FamilyName::model_type);
  if (!family)
    base::fail(ErrorKind::kInvalidInput, kWhere, where,
               ": neither \"architectures\" nor \"model_type\" says what model this is");
  return *family;
}

void check_keys(const Json& json, Family family, const std::string& where) {
  for (const auto& [key, value] : json.items()) {
    if (contains(kRead, key) || contains(kHarmless, key)) continue;
    const auto* only = std::find_if(std::begin(kOnly), std::end(kOnly),
                                    [&name = key](const OnlyValue& o) { return o.key == name; });
    if (only == std::end(kOnly))
      base::fail(ErrorKind::kInvalidInput, kWhere, where, ": unknown key \"", key,
                 "\"; it may change the model's maths. If it does not, remove it from the file");
    if (!value.is_null() && !(only->accepts && only->accepts(value)))
      refuse(where, key, value, only->expected);
  }
  if (base::json_value<bool>(json, "use_sliding_window", false, where))
    refuse(where, "use_sliding_window", json["use_sliding_window"], "false");
  if (family == Family::kLlama && json.contains("sliding_window") &&
      !json["sliding_window"].is_null())
    refuse(where, "sliding_window", json["sliding_window"], "null");
}

// rope_theta is at the top level, or (transformers 5) in rope_parameters or rope_scaling.
std::optional<double> read_rope(const Json& json, const std::string& where) {
  std::optional<double> theta;
  const auto take = [&](const Json& object, const std::string& place) {
    const Json& value = object["rope_theta"];
    if (!value.is_number()) refuse(where, place, value, "a number");
    if (theta && *theta != value.get<double>())
      base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"rope_theta\" is ", *theta, " and \"",
                 place, "\" is ", value.get<double>());
    theta = value.get<double>();
  };
  if (json.contains("rope_theta") && !json["rope_theta"].is_null()) take(json, "rope_theta");
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    if (!json.contains(name) || json[name].is_null()) continue;
    const Json& rope = json[name];
    if (!rope.is_object()) refuse(where, name, rope, "an object or null");
    for (const auto& [key, value] : rope.items()) {
      if (key == "rope_theta" && !value.is_null())
        take(rope, std::string(name) + ".rope_theta");
      else if ((key == "rope_type" || key == "type") && value == "default")
        continue;
      else if (key == "partial_rotary_factor" && is_one(value))
        continue;
      else if (!value.is_null())
        refuse(where, std::string(name) + "." + key, value, "no scaling (rope_type \"default\")");
    }
  }
  return theta;
}

std::vector<int32_t> read_token_ids(const Json& json, const char* key, const std::string& where) {
  if (!json.contains(key) || json[key].is_null()) return {};
  std::vector<int32_t> ids;
  const Json list = json[key].is_array() ? json[key] : Json::array({json[key]});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      refuse(where, key, json[key], "a token id or a list of them");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// Sizes that cannot be a model's, before anybody allocates by them.
void check_shape(const ModelConfig& c, const std::string& where) {
  const auto range = [&](const char* key, int64_t value, int64_t most) {
    if (value < 1 || value > most)
      base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"", key, "\" is ", value,
                 ", expected 1 to ", most);
  };
  range("hidden_size", c.hidden_size, 1 << 20);
  range("intermediate_size", c.intermediate_size, 1 << 22);
  range("num_hidden_layers", c.num_hidden_layers, 1 << 12);
  range("num_attention_heads", c.num_attention_heads, 1 << 12);
  range("num_key_value_heads", c.num_key_value_heads, 1 << 12);
  range("head_dim", c.head_dim, 1 << 12);
  range("vocab_size", c.vocab_size, 1 << 24);
  range("max_position_embeddings", c.max_position_embeddings, 1 << 24);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": ", c.num_attention_heads,
               " query heads cannot share ", c.num_key_value_heads, " key/value heads evenly");
  if (c.head_dim % 2 != 0)
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"head_dim\" is ", c.head_dim,
               "; rotary embeddings need an even one");
  if (!(c.rms_norm_eps > 0 && c.rms_norm_eps < 1))
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"rms_norm_eps\" is ", c.rms_norm_eps,
               ", expected above 0 and below 1");
  if (!(c.rope_theta > 0 && std::isfinite(c.rope_theta)))
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"rope_theta\" is ", c.rope_theta,
               ", expected above 0");
}

int64_t derive_head_dim(int64_t hidden_size, int64_t num_heads, const std::string& where) {
  if (num_heads < 1 || hidden_size % num_heads != 0)
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": no \"head_dim\", and hidden size ",
               hidden_size, " cannot be divided by ", num_heads, " heads");
  return hidden_size / num_heads;
}

// GGUF keeps floats in 32 bits: the decimal number that was meant is the shortest one with that
// value (1e-05, not 9.999999747378752e-06).
double shortest_decimal(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(value)).ptr;
  double result = value;
  std::from_chars(text, end, result);
  return result;
}

}  // namespace

const char* family_name(Family family) { return name_of(family).model_type; }

ModelConfig ModelConfig::from_json(const Json& json, const std::string& where) {
  if (!json.is_object())
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": expected a JSON object");
  ModelConfig c;
  c.family = family_of(json, where);
  check_keys(json, c.family, where);
  const Derivation derive = derivation_of(c.family);
  const auto size = [&](const char* key) { return base::json_require<int64_t>(json, key, where); };
  c.hidden_size = size("hidden_size");
  c.intermediate_size = size("intermediate_size");
  c.num_hidden_layers = size("num_hidden_layers");
  c.num_attention_heads = size("num_attention_heads");
  c.vocab_size = size("vocab_size");
  c.max_position_embeddings = size("max_position_embeddings");
  c.rms_norm_eps = base::json_require<double>(json, "rms_norm_eps", where);
  c.num_key_value_heads = base::json_value<int64_t>(json, "num_key_value_heads", 0, where);
  if (c.num_key_value_heads == 0) {
    if (!derive.kv_heads) size("num_key_value_heads");
    c.num_key_value_heads = c.num_attention_heads;
  }
  c.head_dim = base::json_value<int64_t>(json, "head_dim", 0, where);
  if (c.head_dim == 0)
    c.head_dim = derive.head_dim != 0
                     ? derive.head_dim
                     : derive_head_dim(c.hidden_size, c.num_attention_heads, where);
  const std::optional<double> theta = read_rope(json, where);
  if (!theta && !derive.rope_theta) base::json_require<double>(json, "rope_theta", where);
  c.rope_theta = theta ? *theta : *derive.rope_theta;
  c.tie_word_embeddings = base::json_value<bool>(json, "tie_word_embeddings", false, where);
  c.qk_norm = derive.qk_norm;
  const bool bias = base::json_value<bool>(json, "attention_bias", derive.qkv_bias, where);
  if (!derive.has_attention_bias && bias != derive.qkv_bias)
    refuse(where, "attention_bias", bias, derive.qkv_bias ? "true" : "false");
  c.qkv_bias = bias;
  c.o_bias = bias && derive.has_attention_bias;
  if (json.contains("layer_types") && !json["layer_types"].is_null()) {
    const Json& types = json["layer_types"];
    const bool all_full = types.is_array() &&
                          static_cast<int64_t>(types.size()) == c.num_hidden_layers &&
                          std::all_of(types.begin(), types.end(),
                                      [](const Json& t) { return t == "full_attention"; });
    if (!all_full) refuse(where, "layer_types", types, "\"full_attention\" for every layer");
  }
  c.eos_token_ids = read_token_ids(json, "eos_token_id", where);
  const auto bos = read_token_ids(json, "bos_token_id", where);
  c.bos_token_id = bos.empty() ? -1 : bos.front();
  check_shape(c, where);
  return c;
}

ModelConfig ModelConfig::from_folder(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!base::file_exists(path))
    base::fail(ErrorKind::kNotFound, kWhere, folder,
               ": no config.json; expected a Hugging Face model folder or a .gguf file");
  return from_json(base::parse_json(base::read_file(path, size_t{16} << 20), path), path);
}

ModelConfig ModelConfig::from_gguf(const data::GgufFile& file) {
  const std::string& where = file.file().path();
  const std::string& arch = file.require<std::string>("general.architecture");
  const auto* family = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                    [&](const FamilyName& f) { return arch == f.model_type; });
  if (family == std::end(kFamilies))
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"general.architecture\" is \"", arch,
               "\"; supported are llama, qwen2 and qwen3");
  const std::string prefix = arch + ".";
  std::set<std::string> known;
  const auto key = [&](const char* name) { return *known.insert(prefix + name).first; };
  const auto size = [&](const char* name) { return file.require<int64_t>(key(name)); };
  const auto size_or = [&](const char* name, int64_t fallback) {
    const auto* value = file.find<int64_t>(key(name));
    return value ? *value : fallback;
  };
  const auto number_or = [&](const char* name, double fallback) {
    const auto* value = file.find<double>(key(name));
    return value ? shortest_decimal(*value) : fallback;
  };
  // A key that changes the maths and is honoured with one value only.
  const auto only = [&](const char* name, int64_t value, int64_t honoured) {
    if (value != honoured)
      base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"", key(name), "\" is ", value,
                 ", which changes the model's maths and is not supported; expected ", honoured);
  };

  ModelConfig c;
  c.family = family->family;
  c.hidden_size = size("embedding_length");
  c.intermediate_size = size("feed_forward_length");
  c.num_hidden_layers = size("block_count");
  c.num_attention_heads = size("attention.head_count");
  c.max_position_embeddings = size("context_length");
  c.rms_norm_eps = shortest_decimal(file.require<double>(key("attention.layer_norm_rms_epsilon")));
  c.num_key_value_heads = size_or("attention.head_count_kv", c.num_attention_heads);
  c.head_dim = size_or("attention.key_length", 0);
  if (c.head_dim == 0) c.head_dim = derive_head_dim(c.hidden_size, c.num_attention_heads, where);
  only("attention.value_length", size_or("attention.value_length", c.head_dim), c.head_dim);
  only("rope.dimension_count", size_or("rope.dimension_count", c.head_dim), c.head_dim);
  only("attention.sliding_window", size_or("attention.sliding_window", 0), 0);
  only("expert_count", size_or("expert_count", 0), 0);
  size_or("expert_used_count", 0);
  c.rope_theta = number_or("rope.freq_base", 10000.0);
  for (const char* name : {"rope.scale_linear", "rope.scaling.factor"})
    if (number_or(name, 1) != 1) only(name, 0, 1);
  if (const auto* type = file.find<std::string>(key("rope.scaling.type")); type && *type != "none")
    base::fail(ErrorKind::kInvalidInput, kWhere, where, ": \"", prefix, "rope.scaling.type\" is \"",
               *type, "\", which changes the model's maths and is not supported; expected none");
  const int64_t vocab = size_or("vocab_size", 0);
  const auto* tokens = file.find<std::vector<std::string>>("tokenizer.ggml.tokens");
  c.vocab_size = tokens ? static_cast<int64_t>(tokens->size()) : vocab;
  for (const auto& [name, value] : file.metadata())
    if (name.starts_with(prefix) && !known.contains(name))
      base::fail(ErrorKind::kInvalidInput, kWhere, where, ": unknown key \"", name,
                 "\"; it may change the model's maths");

  c.qkv_bias = derivation_of(c.family).qkv_bias;
  c.qk_norm = derivation_of(c.family).qk_norm;
  c.tie_word_embeddings = true;
  for (const data::TensorInfo& tensor : file.tensors()) {
    if (tensor.name == "output.weight") c.tie_word_embeddings = false;
    if (tensor.name == "blk.0.attn_q.bias") c.qkv_bias = true;
    if (tensor.name == "blk.0.attn_output.bias") c.o_bias = true;
    // Token lists may be shorter than the table, which is padded to a round number.
    if (tensor.name == "token_embd.weight" && tensor.shape.size() == 2)
      c.vocab_size = tensor.shape[0];
  }
  const auto token_id = [&](const char* name) -> int32_t {
    const auto* id = file.find<int64_t>(name);
    return id && *id >= 0 && *id < c.vocab_size ? static_cast<int32_t>(*id) : -1;
  };
  c.bos_token_id = token_id("tokenizer.ggml.bos_token_id");
  if (const int32_t eos = token_id("tokenizer.ggml.eos_token_id"); eos >= 0)
    c.eos_token_ids = {eos};
  check_shape(c, where);
  return c;
}

base::OrderedJson ModelConfig::to_json(const std::string& torch_dtype) const {
  base::OrderedJson json;
  json["architectures"] = {name_of(family).architecture};
  json["model_type"] = name_of(family).model_type;
  json["hidden_size"] = hidden_size;
  json["intermediate_size"] = intermediate_size;
  json["num_hidden_layers"] = num_hidden_layers;
  json["num_attention_heads"] = num_attention_heads;
  json["num_key_value_heads"] = num_key_value_heads;
  json["head_dim"] = head_dim;
  json["vocab_size"] = vocab_size;
  json["max_position_embeddings"] = max_position_embeddings;
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = rms_norm_eps;
  json["rope_theta"] = rope_theta;
  json["rope_scaling"] = nullptr;
  if (derivation_of(family).has_attention_bias) json["attention_bias"] = qkv_bias;
  if (family == Family::kLlama) json["mlp_bias"] = false;
  if (family != Family::kLlama) json["use_sliding_window"] = false;
  json["tie_word_embeddings"] = tie_word_embeddings;
  if (bos_token_id >= 0) json["bos_token_id"] = bos_token_id;
  if (eos_token_ids.size() == 1) json["eos_token_id"] = eos_token_ids.front();
  if (eos_token_ids.size() > 1) json["eos_token_id"] = eos_token_ids;
  json["torch_dtype"] = torch_dtype;
  return json;
}

int64_t ModelConfig::num_parameters() const {
  const int64_t attention = hidden_size * (2 * q_size() + 2 * kv_size());
  const int64_t biases = (qkv_bias ? q_size() + 2 * kv_size() : 0) + (o_bias ? hidden_size : 0);
  const int64_t norms = 2 * hidden_size + (qk_norm ? 2 * head_dim : 0);
  const int64_t layer = attention + biases + norms + 3 * hidden_size * intermediate_size;
  const int64_t tables = (tie_word_embeddings ? 1 : 2) * vocab_size * hidden_size;
  return num_hidden_layers * layer + tables + hidden_size;
}

double ModelConfig::flops_per_token() const {
  const double layer = static_cast<double>(hidden_size) *
                       static_cast<double>(2 * q_size() + 2 * kv_size() + 3 * intermediate_size);
  return 2 * layer * static_cast<double>(num_hidden_layers);
}

ModelConfig load_config(const std::string& path) {
  if (path.ends_with(".gguf")) return ModelConfig::from_gguf(data::GgufFile::open(path));
  return ModelConfig::from_folder(path);
}

ModelConfig config_of_shape(const std::string& shape) {
  struct Shape {
    const char* name;
    const char* short_name;
    Family family;
    int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, context;
    double theta, eps;
    bool tied;
    std::vector<int32_t> eos;
    int32_t bos;
  };
  using enum Family;
  constexpr int64_t kVocab = 151936, kContext = 40960;
  static const std::array<Shape, 6> shapes = {{
      {"tiny", "tiny", kQwen3, 2, 64, 128, 4, 2, 32, 512, 2048, 1e6, 1e-6, false, {258, 256}, -1},
      {"smollm2-135m",
       "135m",
       kLlama,
       30,
       576,
       1536,
       9,
       3,
       64,
       49152,
       8192,
       1e5,
       1e-5,
       true,
       {2},
       1},
      {"qwen3-0.6b",
       "0.6b",
       kQwen3,
       28,
       1024,
       3072,
       16,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       true,
       {151645, 151643},
       151643},
      {"qwen3-4b",
       "4b",
       kQwen3,
       36,
       2560,
       9728,
       32,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       true,
       {151645, 151643},
       151643},
      {"qwen3-14b",
       "14b",
       kQwen3,
       40,
       5120,
       17408,
       40,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       false,
       {151645, 151643},
       151643},
      {"qwen3-32b",
       "32b",
       kQwen3,
       64,
       5120,
       25600,
       64,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       false,
       {151645, 151643},
       151643},
  }};
  for (const Shape& s : shapes) {
    if (shape != s.name && shape != s.short_name) continue;
    ModelConfig c;
    c.family = s.family;
    c.num_hidden_layers = s.layers;
    c.hidden_size = s.hidden;
    c.intermediate_size = s.ffn;
    c.num_attention_heads = s.heads;
    c.num_key_value_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.vocab_size = s.vocab;
    c.max_position_embeddings = s.context;
    c.rope_theta = s.theta;
    c.rms_norm_eps = s.eps;
    c.tie_word_embeddings = s.tied;
    c.qk_norm = derivation_of(s.family).qk_norm;
    c.eos_token_ids = s.eos;
    c.bos_token_id = s.bos;
    return c;
  }
  std::string known;
  for (const Shape& s : shapes) known += (known.empty() ? "" : ", ") + std::string(s.name);
  base::fail(ErrorKind::kInvalidInput, "config_of_shape", "unknown shape \"", shape,
             "\"; known are ", known);
}

}  // namespace erank::model
