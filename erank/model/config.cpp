#include "erank/model/config.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/config_rules.h"
#include "erank/model/quantization.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::Json;

// Keys that from_json reads.
constexpr std::string_view kRead[] = {"architectures",
                                      "model_type",
                                      "hidden_size",
                                      "intermediate_size",
                                      "num_hidden_layers",
                                      "num_attention_heads",
                                      "num_key_value_heads",
                                      "head_dim",
                                      "vocab_size",
                                      "max_position_embeddings",
                                      "original_max_position_embeddings",
                                      "rms_norm_eps",
                                      "rope_theta",
                                      "rope_parameters",
                                      "rope_scaling",
                                      "attention_bias",
                                      "tie_word_embeddings",
                                      "layer_types",
                                      "max_window_layers",
                                      "eos_token_id",
                                      "bos_token_id",
                                      "use_sliding_window",
                                      "sliding_window"};

// Keys that change nothing in the forward pass: those of transformers' PreTrainedConfig and of
// generation, what trainers leave, bookkeeping.
constexpr std::string_view kHarmless[] = {"_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_attn_implementation_internal",
                                          "_commit_hash",
                                          "_experts_implementation_internal",
                                          "_flash_attn_2_enabled",
                                          "_from_model_config",
                                          "_name_or_path",
                                          "_output_attentions",
                                          "assistant_confidence_threshold",
                                          "assistant_early_exit",
                                          "assistant_lookbehind",
                                          "attention_dropout",
                                          "attn_implementation",
                                          "auto_map",
                                          "bad_words_ids",
                                          "base_model_ep_plan",
                                          "base_model_fsdp_plan",
                                          "base_model_pp_plan",
                                          "base_model_tp_plan",
                                          "begin_suppress_tokens",
                                          "cache_implementation",
                                          "chunk_size_feed_forward",
                                          "cls_token_id",
                                          "cross_attention_hidden_size",
                                          "custom_pipelines",
                                          "decoder_start_token_id",
                                          "diversity_penalty",
                                          "do_sample",
                                          "dtype",
                                          "early_stopping",
                                          "embd_pdrop",
                                          "encoder_no_repeat_ngram_size",
                                          "encoder_repetition_penalty",
                                          "epsilon_cutoff",
                                          "eta_cutoff",
                                          "exponential_decay_length_penalty",
                                          "finetuning_task",
                                          "forced_bos_token_id",
                                          "forced_eos_token_id",
                                          "gradient_checkpointing",
                                          "hidden_dropout",
                                          "id2label",
                                          "initializer_range",
                                          "is_assistant",
                                          "is_decoder",
                                          "is_llama_config",
                                          "keys_to_ignore_at_inference",
                                          "label2id",
                                          "length_penalty",
                                          "loss_type",
                                          "mask_token_id",
                                          "max_length",
                                          "max_new_tokens",
                                          "max_seq_len",
                                          "max_seq_length",
                                          "max_sequence_length",
                                          "max_time",
                                          "min_length",
                                          "min_new_tokens",
                                          "min_p",
                                          "model_max_length",
                                          "name_or_path",
                                          "neftune_noise_alpha",
                                          "no_repeat_ngram_size",
                                          "num_assistant_tokens",
                                          "num_assistant_tokens_schedule",
                                          "num_beam_groups",
                                          "num_beams",
                                          "num_labels",
                                          "num_return_sequences",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_logits",
                                          "output_scores",
                                          "pad_token_id",
                                          "padding_side",
                                          "penalty_alpha",
                                          "prefix",
                                          "pretraining_tp",
                                          "problem_type",
                                          "remove_invalid_values",
                                          "repetition_penalty",
                                          "resid_pdrop",
                                          "return_dict",
                                          "return_dict_in_generate",
                                          "sep_token_id",
                                          "suppress_tokens",
                                          "target_lookbehind",
                                          "task_specific_params",
                                          "temperature",
                                          "tf_legacy_loss",
                                          "tie_encoder_decoder",
                                          "tie_last_hidden_states",
                                          "tokenizer_class",
                                          "tokenizer_model_max_length",
                                          "tokenizer_padding_side",
                                          "top_h",
                                          "top_k",
                                          "top_p",
                                          "torch_dtype",
                                          "torchscript",
                                          "transformers.js_config",
                                          "transformers_version",
                                          "typical_p",
                                          "unk_token_id",
                                          "unsloth_fixed",
                                          "unsloth_version",
                                          "use_bfloat16",
                                          "use_cache",
                                          "use_flash_attention",
                                          "use_flash_attn",
                                          "use_return_dict"};

bool is_false(const Json& v) { return v == false; }
bool is_one(const Json& v) { return v.is_number() && v.get<double>() == 1; }
bool is_empty(const Json& v) { return v.empty(); }
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
    {"per_layer_config", is_empty, "the same configuration for every layer"},
    {"pruned_heads", is_empty, "no pruned heads"},
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

Family family_of(const Json& json, const std::string& where) {
  std::optional<Family> family;
  const auto check = [&](const char* key, const std::string& value,
                         const char* FamilyName::*field) {
    for (const FamilyName& f : kFamilies) {
      if (value != f.*field) continue;
      if (family && *family != f.family)
        base::fail(ErrorKind::kInvalidInput, kConfigWhere, where,
                   ": \"architectures\" and \"model_type\" name different families");
      family = f.family;
      return;
    }
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key, "\" is \"", value,
               "\"; supported are LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM "
               "(llama, qwen2, qwen3)");
  };
  if (json.contains("architectures") && !json["architectures"].is_null()) {
    const Json& list = json["architectures"];
    if (!list.is_array() || list.size() != 1 || !list[0].is_string())
      refuse_value(where, "architectures", list, "a list of one name");
    check("architectures", list[0].get<std::string>(), &FamilyName::architecture);
  }
  const auto model_type = base::json_value<std::string>(json, "model_type", "", where);
  if (!model_type.empty()) check("model_type", model_type, &FamilyName::model_type);
  if (!family)
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where,
               ": neither \"architectures\" nor \"model_type\" says what model this is");
  return *family;
}

void check_keys(const Json& json, const std::string& where) {
  for (const auto& [key, value] : json.items()) {
    if (contains(kRead, key) || contains(kHarmless, key)) continue;
    const auto* only = std::find_if(std::begin(kOnly), std::end(kOnly),
                                    [&name = key](const OnlyValue& o) { return o.key == name; });
    if (only == std::end(kOnly))
      base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": unknown key \"", key, "\", ",
                 shown(value),
                 "; it may change the model's maths. If it does not, remove it from the file");
    constexpr const char* kTransforms = "transform_config";
    if (key == "quantization_config" && value.is_object() && value.contains(kTransforms) &&
        !value[kTransforms].empty())
      refuse_value(
          where, base::str(key, ".", kTransforms), value[kTransforms],
          "null: weights that were rotated before they were quantised are not turned back");
    if (!value.is_null() && !(only->accepts && only->accepts(value)))
      refuse_value(where, key, value, only->expected);
  }
}

// Which layers slide. Qwen's classes: with use_sliding_window those that layer_types names, without
// it those from max_window_layers on; Llama's knows no windows.
void read_windows(const Json& json, ModelConfig& c, const std::string& where) {
  const auto given = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
  const auto size = [&](const char* key, int64_t fallback) {
    if (json.contains(key) && json[key].is_null()) return int64_t{0};
    return base::json_value<int64_t>(json, key, fallback, where);
  };
  const bool slides = derivation_of(c.family).slides;
  const bool in_use = base::json_value<bool>(json, "use_sliding_window", false, where) && slides;
  if (!slides && given("sliding_window") && size("sliding_window", 0) < c.context())
    refuse_value(where, "sliding_window", json["sliding_window"], "null");
  const int64_t window = in_use ? size("sliding_window", 4096) : 0;
  const int64_t first = size("max_window_layers", 28);
  if (in_use && given("sliding_window") && window < 1)
    refuse_value(where, "sliding_window", json["sliding_window"], "at least 1, or null");
  if (first < 0) refuse_value(where, "max_window_layers", json["max_window_layers"], "at least 0");
  std::vector<bool> sliding(c.num_hidden_layers);
  if (given("layer_types")) {
    const Json& types = json["layer_types"];
    if (!types.is_array() || static_cast<int64_t>(types.size()) != c.num_hidden_layers)
      refuse_value(where, "layer_types", types,
                   base::str("a list of ", c.num_hidden_layers, " kinds, one for each layer"));
    for (size_t i = 0; i < types.size(); ++i) {
      sliding[i] = types[i] == "sliding_attention";
      if (types[i] != "full_attention" && !(slides && sliding[i]))
        refuse_value(where, "layer_types", types,
                     slides ? "\"full_attention\" or \"sliding_attention\" for every layer"
                            : "\"full_attention\" for every layer");
      if (sliding[i] && window == 0)
        refuse_value(where, "layer_types", types,
                     "\"use_sliding_window\": true and a \"sliding_window\" with these kinds");
    }
  } else if (window > 0) {
    for (int64_t i = first; i < c.num_hidden_layers; ++i) sliding[i] = true;
  }
  // A window that nothing ever reaches out of is none.
  if (window >= c.context() || std::find(sliding.begin(), sliding.end(), true) == sliding.end())
    return;
  c.sliding_window = window;
  c.sliding_layers = std::move(sliding);
}

std::vector<int32_t> read_token_ids(const Json& json, const char* key, const std::string& where) {
  if (!json.contains(key) || json[key].is_null()) return {};
  std::vector<int32_t> ids;
  const Json list = json[key].is_array() ? json[key] : Json::array({json[key]});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      refuse_value(where, key, json[key], "a token id or a list of them");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

const char* family_name(Family family) { return name_of(family).model_type; }

ModelConfig ModelConfig::from_json(const Json& json, const std::string& where) {
  if (!json.is_object())
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": expected a JSON object");
  ModelConfig c;
  c.family = family_of(json, where);
  check_keys(json, where);
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
  check_shape(c, where);
  const RopeConfig rope = rope_from_json(json, c.max_position_embeddings, c.head_dim, where);
  if (!rope.theta && !derive.rope_theta) base::json_require<double>(json, "rope_theta", where);
  c.rope_theta = rope.theta ? *rope.theta : *derive.rope_theta;
  c.rope_scaling = rope.scaling;
  check_rope(c, where);
  c.tie_word_embeddings = base::json_value<bool>(json, "tie_word_embeddings", false, where);
  c.qk_norm = derive.qk_norm;
  const bool bias = base::json_value<bool>(json, "attention_bias", derive.qkv_bias, where);
  c.qkv_bias = derive.has_attention_bias ? bias : derive.qkv_bias;
  c.o_bias = bias && derive.has_attention_bias;
  read_windows(json, c, where);
  c.eos_token_ids = read_token_ids(json, "eos_token_id", where);
  const auto bos = read_token_ids(json, "bos_token_id", where);
  c.bos_token_id = bos.empty() ? -1 : bos.front();
  return c;
}

ModelConfig ModelConfig::from_folder(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!base::file_exists(path))
    base::fail(ErrorKind::kNotFound, kConfigWhere, folder,
               ": no config.json; expected a Hugging Face model folder or a .gguf file");
  return from_json(base::parse_json(base::read_file(path, size_t{16} << 20), path), path);
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
  json["rope_scaling"] = rope_to_json(rope_scaling);
  if (derivation_of(family).has_attention_bias) json["attention_bias"] = qkv_bias;
  if (family == Family::kLlama) json["mlp_bias"] = false;
  if (derivation_of(family).slides) json["use_sliding_window"] = sliding_window > 0;
  if (sliding_window > 0) {
    json["sliding_window"] = sliding_window;
    for (const bool slides : sliding_layers)
      json["layer_types"].push_back(slides ? "sliding_attention" : "full_attention");
  }
  json["tie_word_embeddings"] = tie_word_embeddings;
  if (bos_token_id >= 0) json["bos_token_id"] = bos_token_id;
  if (eos_token_ids.size() == 1) json["eos_token_id"] = eos_token_ids.front();
  if (eos_token_ids.size() > 1) json["eos_token_id"] = eos_token_ids;
  json["torch_dtype"] = torch_dtype;
  return json;
}

int64_t ModelConfig::context() const {
  const RopeScaling& rope = rope_scaling;
  if (rope.kind == RopeKind::kYarn) {
    const double scaled = rope.factor * static_cast<double>(rope.original_max_position_embeddings);
    return std::max(max_position_embeddings,
                    static_cast<int64_t>(std::min<double>(scaled, kMostPositions)));
  }
  if (rope.kind != RopeKind::kLongrope || rope.short_factor == rope.long_factor)
    return max_position_embeddings;
  return std::min(max_position_embeddings, rope.original_max_position_embeddings);
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

}  // namespace erank::model
