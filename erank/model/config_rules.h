// What reading a configuration from JSON and from GGUF have in common.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "erank/base/json.h"
#include "erank/model/config.h"

namespace erank::model {

inline constexpr const char* kConfigWhere = "ModelConfig";
inline constexpr int64_t kMostPositions = 1 << 24;

struct FamilyName {
  Family family;
  const char* architecture;  // config.json `architectures`
  const char* model_type;    // config.json `model_type`, GGUF `general.architecture`
};
inline constexpr FamilyName kFamilies[] = {{Family::kLlama, "LlamaForCausalLM", "llama"},
                                           {Family::kQwen2, "Qwen2ForCausalLM", "qwen2"},
                                           {Family::kQwen3, "Qwen3ForCausalLM", "qwen3"}};
const FamilyName& name_of(Family family);

// The table of derivations: what a key that config.json does not hold means, family by family;
// nullopt: the key is required. These are transformers' own class defaults, where they are stable.
struct Derivation {
  std::optional<int64_t> kv_heads;  // 0: as many as query heads
  int64_t head_dim;                 // 0: hidden_size / num_attention_heads
  std::optional<double> rope_theta;
  bool qkv_bias;            // what `attention_bias` is when it is missing
  bool has_attention_bias;  // whether the family knows that key; it covers q, k, v and o
  bool qk_norm;
  bool slides;  // whether it knows use_sliding_window, with windows of 4096 from layer 28 on
};
Derivation derivation_of(Family family);

// A value for a message, cut to 80 characters.
std::string shown(const base::Json& value);

// Throws Error{kInvalidInput}: the key has a value that changes the maths and is not supported.
[[noreturn]] void refuse_value(const std::string& where, std::string_view key,
                               const base::Json& value, std::string_view expected);

// How a file calls what config.json calls so; what is not in it has the same name.
using KeyNames = std::map<std::string_view, std::string>;

// Throws Error{kInvalidInput} for sizes that cannot be a model's, before anybody allocates by them.
void check_shape(const ModelConfig& config, const std::string& where, const KeyNames& names = {});
void check_rope(const ModelConfig& config, const std::string& where, const KeyNames& names = {});

int64_t derive_head_dim(int64_t hidden_size, int64_t num_heads, const std::string& where,
                        const KeyNames& names = {});

// GGUF keeps floats in 32 bits: the decimal number that was meant is the shortest one with that
// value (1e-05, not 9.999999747378752e-06).
double shortest_decimal(double value);

}  // namespace erank::model
