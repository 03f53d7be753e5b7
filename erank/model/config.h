// config.json of a checkpoint: every key that changes the maths is read, or refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/base/json.h"
#include "erank/data/gguf.h"
#include "erank/model/rope_scaling.h"

namespace erank::model {

enum class Family { kLlama, kQwen2, kQwen3 };

const char* family_name(Family family);  // "llama", "qwen2", "qwen3": config.json's model_type

// One network for three families; these fields decide everything that differs. Names are
// config.json's own.
struct ModelConfig {
  Family family = Family::kQwen3;
  int64_t hidden_size = 0;        // H
  int64_t intermediate_size = 0;  // F
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;  // N
  int64_t num_key_value_heads = 0;  // K
  int64_t head_dim = 0;             // D
  int64_t vocab_size = 0;           // V
  int64_t max_position_embeddings = 0;
  double rope_theta = 0;
  RopeScaling rope_scaling;
  double rms_norm_eps = 0;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;  // Qwen2: q, k and v have biases
  bool o_bias = false;    // Llama with attention_bias: o has one too
  bool qk_norm = false;   // Qwen3: RMSNorm per head on q and k before RoPE
  // Of layers that slide each position sees this many, itself the last; 0: no layer slides.
  int64_t sliding_window = 0;
  std::vector<bool> sliding_layers;  // [num_hidden_layers]; empty: none
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none

  // Throws Error{kInvalidInput} naming the architecture or key that we do not honour
  // (quantization_config, another activation, any key that is not listed) or that is missing
  // without a documented derivation, with the value that is there. A missing key means what
  // transformers' class for the family takes: num_key_value_heads (Llama) = num_attention_heads;
  // head_dim = hidden_size / num_attention_heads (Llama, Qwen2), 128 (Qwen3); rope_theta (Llama)
  // 10000; hidden_act silu; tie_word_embeddings false; attention_bias false (Qwen2 always has q, k
  // and v biases and ignores that key); with use_sliding_window sliding_window 4096,
  // max_window_layers 28. Every other one of the sizes is required.
  static ModelConfig from_json(const base::Json& json, const std::string& where);
  static ModelConfig from_folder(const std::string& folder);  // folder/config.json
  // general.architecture llama, qwen2 or qwen3; every key under that name is read or refused.
  // Missing: head_count_kv = head_count, key_length = embedding_length / head_count, freq_base
  // 10000. The head is tied when there is no output.weight.
  static ModelConfig from_gguf(const data::GgufFile& file);
  // A config.json that transformers reads.
  base::OrderedJson to_json(const std::string& torch_dtype = "bfloat16") const;

  // Positions that a sequence may have: max_position_embeddings; with yarn, where that may be left
  // as it was, at least factor times the original length. With longrope of two lists of factors the
  // original length, for which transformers' frequencies do not depend on how long the longest
  // sequence of a batch is: a pair has the same score alone and in any company.
  int64_t context() const;
  // How many positions a layer's queries see at most; 0: all before them.
  int64_t window_of(int64_t layer) const {
    return sliding_layers.empty() || !sliding_layers[layer] ? 0 : sliding_window;
  }
  int64_t q_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
  int64_t num_parameters() const;  // a tied head counts once
  // FLOPs of one token's forward pass without attention over other tokens and without the
  // vocabulary's rows.
  double flops_per_token() const;
};

// Of a checkpoint: a Hugging Face folder or a .gguf file. Throws as ModelConfig does.
ModelConfig load_config(const std::string& path);

// The shapes that `erank model random` and `erank bench` know: "tiny", "smollm2-135m",
// "qwen3-0.6b", "qwen3-4b", "qwen3-14b", "qwen3-32b" ("0.6b", "4b", ... for short). Throws
// Error{kInvalidInput} with the list.
ModelConfig config_of_shape(const std::string& shape);

}  // namespace erank::model
