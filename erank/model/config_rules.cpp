#include "erank/model/config_rules.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "erank/base/error.h"

namespace erank::model {

using base::ErrorKind;

const FamilyName& name_of(Family family) {
  return *std::find_if(std::begin(kFamilies), std::end(kFamilies),
                       [&](const FamilyName& f) { return f.family == family; });
}

Derivation derivation_of(Family family) {
  switch (family) {
    case Family::kLlama:
      return {0, 0, 10000.0, false, true, false, false};
    case Family::kQwen2:
      return {std::nullopt, 0, std::nullopt, true, false, false, true};
    case Family::kQwen3:
      return {std::nullopt, 128, std::nullopt, false, true, true, true};
  }
  ERANK_CHECK(false);
}

std::string shown(const base::Json& value) {
  std::string text = base::dump_json(value);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

void refuse_value(const std::string& where, std::string_view key, const base::Json& value,
                  std::string_view expected) {
  base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key, "\" is ", shown(value),
             ", which changes the model's maths and is not supported; expected ", expected);
}

namespace {

std::string key_name(std::string_view key, const KeyNames& names) {
  const auto found = names.find(key);
  return found == names.end() ? std::string(key) : found->second;
}

}  // namespace

void check_shape(const ModelConfig& c, const std::string& where, const KeyNames& names) {
  const auto range = [&](const char* key, int64_t value, int64_t most) {
    if (value < 1 || value > most)
      base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key_name(key, names),
                 "\" is ", value, ", expected 1 to ", most);
  };
  range("hidden_size", c.hidden_size, 1 << 20);
  range("intermediate_size", c.intermediate_size, 1 << 22);
  range("num_hidden_layers", c.num_hidden_layers, 1 << 12);
  range("num_attention_heads", c.num_attention_heads, 1 << 12);
  range("num_key_value_heads", c.num_key_value_heads, 1 << 12);
  range("head_dim", c.head_dim, 1 << 12);
  range("vocab_size", c.vocab_size, 1 << 24);
  range("max_position_embeddings", c.max_position_embeddings, kMostPositions);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"",
               key_name("num_attention_heads", names), "\" is ", c.num_attention_heads,
               ", expected a multiple of \"", key_name("num_key_value_heads", names),
               "\", which is ", c.num_key_value_heads);
  if (c.head_dim % 2 != 0)
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key_name("head_dim", names),
               "\" is ", c.head_dim, "; rotary embeddings need an even one");
  if (!(c.rms_norm_eps > 0 && c.rms_norm_eps < 1))
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"",
               key_name("rms_norm_eps", names), "\" is ", c.rms_norm_eps,
               ", expected above 0 and below 1");
}

void check_rope(const ModelConfig& c, const std::string& where, const KeyNames& names) {
  // yarn divides by the logarithm of theta.
  const double least = c.rope_scaling.kind == RopeKind::kYarn ? 1 : 0;
  if (!(c.rope_theta > least && std::isfinite(c.rope_theta)))
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key_name("rope_theta", names),
               "\" is ", c.rope_theta, ", expected above ", least);
}

int64_t derive_head_dim(int64_t hidden_size, int64_t num_heads, const std::string& where,
                        const KeyNames& names) {
  if (num_heads < 1 || hidden_size % num_heads != 0)
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": no \"",
               key_name("head_dim", names), "\", and \"", key_name("hidden_size", names), "\", ",
               hidden_size, ", cannot be divided by \"", key_name("num_attention_heads", names),
               "\", ", num_heads);
  return hidden_size / num_heads;
}

double shortest_decimal(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(value)).ptr;
  double result = value;
  std::from_chars(text, end, result);
  return result;
}

}  // namespace erank::model
