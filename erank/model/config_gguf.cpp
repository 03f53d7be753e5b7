#include <algorithm>
#include <set>

#include "erank/base/error.h"
#include "erank/model/config.h"
#include "erank/model/config_rules.h"

namespace erank::model {

using base::ErrorKind;

ModelConfig ModelConfig::from_gguf(const data::GgufFile& file) {
  const std::string& where = file.file().path();
  const std::string& arch = file.require<std::string>("general.architecture");
  const auto* family = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                    [&](const FamilyName& f) { return arch == f.model_type; });
  if (family == std::end(kFamilies))
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"general.architecture\" is \"",
               arch, "\"; supported are llama, qwen2 and qwen3");
  const std::string prefix = arch + ".";
  const KeyNames names = {{"hidden_size", prefix + "embedding_length"},
                          {"intermediate_size", prefix + "feed_forward_length"},
                          {"num_hidden_layers", prefix + "block_count"},
                          {"num_attention_heads", prefix + "attention.head_count"},
                          {"num_key_value_heads", prefix + "attention.head_count_kv"},
                          {"head_dim", prefix + "attention.key_length"},
                          {"vocab_size", "tokenizer.ggml.tokens"},
                          {"max_position_embeddings", prefix + "context_length"},
                          {"rms_norm_eps", prefix + "attention.layer_norm_rms_epsilon"},
                          {"rope_theta", prefix + "rope.freq_base"}};
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
      base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key(name), "\" is ", value,
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
  if (c.head_dim == 0)
    c.head_dim = derive_head_dim(c.hidden_size, c.num_attention_heads, where, names);
  only("attention.value_length", size_or("attention.value_length", c.head_dim), c.head_dim);
  only("rope.dimension_count", size_or("rope.dimension_count", c.head_dim), c.head_dim);
  only("attention.sliding_window", size_or("attention.sliding_window", 0), 0);
  only("expert_count", size_or("expert_count", 0), 0);
  size_or("expert_used_count", 0);
  c.rope_theta = number_or("rope.freq_base", 10000.0);
  c.rope_scaling = rope_from_gguf(file, arch, c.max_position_embeddings, c.head_dim, known);
  if (const auto* pooling = file.find<int64_t>(key("pooling_type")); pooling && *pooling != 0)
    base::fail(
        ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", prefix, "pooling_type\" is ",
        *pooling,
        *pooling == 4 ? " (a reranker with a classifier's head)" : " (a model of embeddings)",
        "; erank needs a model that writes text, without pooling");
  const int64_t vocab = size_or("vocab_size", 0);
  const auto* tokens = file.find<std::vector<std::string>>("tokenizer.ggml.tokens");
  c.vocab_size = tokens ? static_cast<int64_t>(tokens->size()) : vocab;
  for (const auto& [name, value] : file.metadata())
    if (name.starts_with(prefix) && !known.contains(name))
      base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": unknown key \"", name,
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
  check_shape(c, where, names);
  check_rope(c, where, names);
  return c;
}

}  // namespace erank::model
