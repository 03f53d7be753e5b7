#include "erank/model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "erank/base/error.h"
#include "erank/model/config_rules.h"
#include "erank/model/dequantize.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::Json;

struct KindName {
  RopeKind kind;
  const char* name;
};
constexpr KindName kKinds[] = {{RopeKind::kDefault, "default"}, {RopeKind::kLinear, "linear"},
                               {RopeKind::kDynamic, "dynamic"}, {RopeKind::kYarn, "yarn"},
                               {RopeKind::kLlama3, "llama3"},   {RopeKind::kLongrope, "longrope"}};
constexpr const char* kExpectedKinds =
    "\"default\", \"linear\", \"dynamic\", \"yarn\", \"llama3\" or \"longrope\"";

// Keys of transformers' RopeParameters; of these a kind ignores what it has no use for, as
// transformers does. `finetuned` says where the checkpoint comes from.
constexpr std::string_view kKnown[] = {"rope_theta",
                                       "rope_type",
                                       "type",
                                       "partial_rotary_factor",
                                       "factor",
                                       "original_max_position_embeddings",
                                       "attention_factor",
                                       "beta_fast",
                                       "beta_slow",
                                       "short_factor",
                                       "long_factor",
                                       "low_freq_factor",
                                       "high_freq_factor",
                                       "mscale",
                                       "mscale_all_dim",
                                       "truncate",
                                       "finetuned"};

bool uses_original(RopeKind kind) {
  return kind == RopeKind::kYarn || kind == RopeKind::kLlama3 || kind == RopeKind::kLongrope;
}

// An object of the file's, for messages: "rope_scaling.factor".
class RopeObject {
 public:
  RopeObject(const Json& object, std::string name, const std::string& where)
      : object_(object), name_(std::move(name)), where_(where) {}

  std::string place(std::string_view key) const { return name_ + "." + std::string(key); }
  const Json* find(std::string_view key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  std::optional<double> number(std::string_view key, double above) const {
    const Json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number() || !std::isfinite(value->get<double>()) ||
        !(value->get<double>() > above))
      refuse_value(where_, place(key), *value, base::str("a number above ", above));
    return value->get<double>();
  }
  double require(std::string_view key) const {
    if (const auto value = number(key, 0)) return *value;
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where_, ": \"", name_, "\" is ",
               shown(object_), " and lacks \"", key, "\", which its rope_type needs");
  }
  std::vector<double> list(std::string_view key, int64_t size) const {
    const Json* value = find(key);
    const auto is_factor = [](const Json& v) {
      return v.is_number() && std::isfinite(v.get<double>()) && v.get<double>() > 0;
    };
    if (!value || !value->is_array() || static_cast<int64_t>(value->size()) != size ||
        !std::all_of(value->begin(), value->end(), is_factor))
      refuse_value(where_, place(key), value ? *value : Json(),
                   base::str("a list of ", size, " numbers above 0, one for each pair of a head"));
    return value->get<std::vector<double>>();
  }

 private:
  const Json& object_;
  std::string name_;
  const std::string& where_;
};

[[noreturn]] void refuse_contradiction(const std::string& where, const std::string& taken,
                                       const Json& taken_value, const std::string& other,
                                       const Json& other_value) {
  base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", taken, "\" is ",
             shown(taken_value), " and \"", other, "\" is ", shown(other_value),
             "; transformers takes \"", taken, "\". Keep the one that is meant");
}

int64_t read_original(const Json& json, const RopeObject& rope, int64_t max_positions,
                      const std::string& where) {
  constexpr const char* kKey = "original_max_position_embeddings";
  const auto positions = [&](const Json& value, const std::string& place) {
    if (!value.is_number_integer() || value.get<int64_t>() < 1 ||
        value.get<int64_t>() > kMostPositions)
      refuse_value(where, place, value, base::str("a whole number, 1 to ", kMostPositions));
    return value.get<int64_t>();
  };
  const Json* inner = rope.find(kKey);
  const Json* outer = json.contains(kKey) && !json[kKey].is_null() ? &json[kKey] : nullptr;
  if (inner && outer && *inner != *outer)
    refuse_contradiction(where, kKey, *outer, rope.place(kKey), *inner);
  if (outer) return positions(*outer, kKey);
  return inner ? positions(*inner, rope.place(kKey)) : max_positions;
}

RopeKind read_kind(const RopeObject& rope, const Json& object, const std::string& where) {
  const Json *kind = rope.find("rope_type"), *type = rope.find("type");
  if (kind && type && *kind != *type)
    refuse_contradiction(where, rope.place("rope_type"), *kind, rope.place("type"), *type);
  if (!kind && !type) {
    for (const auto& [key, value] : object.items())
      if (key != "rope_theta" && key != "partial_rotary_factor" && !value.is_null())
        base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", rope.place(key), "\" is ",
                   shown(value), ", but there is no \"rope_type\"; expected ", kExpectedKinds);
    return RopeKind::kDefault;
  }
  const Json& value = kind ? *kind : *type;
  for (const KindName& k : kKinds)
    if (value == k.name) return k.kind;
  refuse_value(where, rope.place(kind ? "rope_type" : "type"), value, kExpectedKinds);
}

RopeScaling read_scaling(const Json& json, const Json& object, const RopeObject& rope,
                         int64_t max_positions, int64_t head_dim, const std::string& where) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(std::begin(kKnown), std::end(kKnown), key) == std::end(kKnown))
      refuse_value(where, rope.place(key), value,
                   "only keys of transformers' rope parameters, the same for every layer");
    if (key == "partial_rotary_factor" && !value.is_null() && value != 1)
      refuse_value(where, rope.place(key), value, "1");
  }
  RopeScaling s;
  s.kind = read_kind(rope, object, where);
  if (s.kind == RopeKind::kDefault) return s;
  if (uses_original(s.kind))
    s.original_max_position_embeddings = read_original(json, rope, max_positions, where);
  const double ratio =
      static_cast<double>(max_positions) /
      static_cast<double>(std::max<int64_t>(1, s.original_max_position_embeddings));
  const bool null_factor = object.contains("factor") && object["factor"].is_null();
  if (s.kind == RopeKind::kLongrope || (s.kind == RopeKind::kYarn && null_factor))
    s.factor = rope.number("factor", 0).value_or(ratio);
  else
    s.factor = rope.require("factor");
  if (s.kind == RopeKind::kYarn || s.kind == RopeKind::kLongrope)
    s.attention_factor = rope.number("attention_factor", 0);
  if (s.kind == RopeKind::kYarn) {
    // transformers takes a zero for a missing key.
    const auto nonzero = [&](const char* key, double fallback) {
      const double value = rope.number(key, -INFINITY).value_or(0);
      return value == 0 ? fallback : value;
    };
    s.beta_fast = nonzero("beta_fast", s.beta_fast);
    s.beta_slow = nonzero("beta_slow", s.beta_slow);
    if (!(s.beta_slow > 0) || !(s.beta_fast > s.beta_slow))
      refuse_value(where, rope.place("beta_fast"), s.beta_fast,
                   base::str("above \"beta_slow\", which is ", s.beta_slow, " and above 0"));
    s.mscale = nonzero("mscale", 0);
    s.mscale_all_dim = nonzero("mscale_all_dim", 0);
    if (object.contains("truncate")) {
      if (!object["truncate"].is_boolean())
        refuse_value(where, rope.place("truncate"), object["truncate"], "true or false");
      s.truncate = object["truncate"].get<bool>();
    }
  }
  if (s.kind == RopeKind::kLlama3) {
    s.low_freq_factor = rope.require("low_freq_factor");
    s.high_freq_factor = rope.require("high_freq_factor");
    if (!(s.high_freq_factor > s.low_freq_factor))
      refuse_value(where, rope.place("high_freq_factor"), s.high_freq_factor,
                   base::str("above \"low_freq_factor\", which is ", s.low_freq_factor));
  }
  if (s.kind == RopeKind::kLongrope) {
    s.short_factor = rope.list("short_factor", head_dim / 2);
    s.long_factor = rope.list("long_factor", head_dim / 2);
  }
  return s;
}

// --- GGUF -------------------------------------------------------------------------------------
constexpr const char* kFreqs = "rope_freqs.weight";
constexpr const char* kShort = "rope_factors_short.weight";
constexpr const char* kLong = "rope_factors_long.weight";

// The factors in tensor `name`; empty: there is none.
std::vector<double> read_factors(const data::GgufFile& file, const char* name, int64_t head_dim) {
  const auto& tensors = file.tensors();
  const auto info = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const data::TensorInfo& t) { return t.name == name; });
  if (info == tensors.end()) return {};
  const std::string& where = file.file().path();
  if (info->shape != std::vector<int64_t>{head_dim / 2} ||
      (info->dtype != data::DType::kF32 && info->dtype != data::DType::kF16))
    base::fail(ErrorKind::kCorrupt, kConfigWhere, where, ": tensor '", name, "' is ",
               data::dtype_name(info->dtype), ", expected F32 of ", head_dim / 2,
               " values, one for each pair of a head");
  std::vector<float> values(head_dim / 2);
  dequantize(info->dtype, file.bytes(*info), values.data(), values.size());
  std::vector<double> factors;
  for (const float value : values) {
    if (!std::isfinite(value) || !(value > 0))
      base::fail(ErrorKind::kCorrupt, kConfigWhere, where, ": tensor '", name, "' has the value ",
                 value, ", expected numbers above 0");
    factors.push_back(shortest_decimal(value));
  }
  return factors;
}

}  // namespace

const char* rope_kind_name(RopeKind kind) {
  return std::find_if(std::begin(kKinds), std::end(kKinds),
                      [&](const KindName& k) { return k.kind == kind; })
      ->name;
}

RopeConfig rope_from_json(const Json& json, int64_t max_positions, int64_t head_dim,
                          const std::string& where) {
  RopeConfig out;
  const auto theta = [&](const Json& value, const std::string& place) {
    if (!value.is_number()) refuse_value(where, place, value, "a number");
    return value.get<double>();
  };
  if (json.contains("rope_theta") && !json["rope_theta"].is_null())
    out.theta = theta(json["rope_theta"], "rope_theta");
  const auto object = [&](const char* name) -> const Json* {
    if (!json.contains(name) || json[name].is_null()) return nullptr;
    if (!json[name].is_object()) refuse_value(where, name, json[name], "an object or null");
    return json[name].empty() ? nullptr : &json[name];
  };
  const Json *scaling = object("rope_scaling"), *parameters = object("rope_parameters");
  if (scaling && parameters && *scaling != *parameters)
    refuse_contradiction(where, "rope_scaling", *scaling, "rope_parameters", *parameters);
  const Json* chosen = scaling ? scaling : parameters;
  if (!chosen) return out;
  const RopeObject rope(*chosen, scaling ? "rope_scaling" : "rope_parameters", where);
  if (const Json* inner = rope.find("rope_theta")) {
    const double value = theta(*inner, rope.place("rope_theta"));
    if (out.theta && *out.theta != value)
      refuse_contradiction(where, rope.place("rope_theta"), value, "rope_theta", *out.theta);
    out.theta = value;
  }
  out.scaling = read_scaling(json, *chosen, rope, max_positions, head_dim, where);
  return out;
}

bool is_rope_tensor(const std::string& gguf_name) {
  return gguf_name == kFreqs || gguf_name == kShort || gguf_name == kLong;
}

RopeScaling rope_from_gguf(const data::GgufFile& file, const std::string& arch,
                           int64_t max_positions, int64_t head_dim, std::set<std::string>& known) {
  const std::string& where = file.file().path();
  const auto key = [&](const char* name) { return *known.insert(arch + ".rope." + name).first; };
  const auto number = [&](const char* name, double fallback) {
    const std::string full = key(name);
    const auto found = file.metadata().find(full);
    if (found == file.metadata().end()) return fallback;
    if (const auto* whole = std::get_if<int64_t>(&found->second))
      return static_cast<double>(*whole);
    return shortest_decimal(file.require<double>(full));
  };
  const auto refuse = [&](const std::string& full, const auto& value, const std::string& expected) {
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", full, "\" is ", value,
               ", which changes the model's maths and is not supported; expected ", expected);
  };
  const auto only = [&](const char* name, double value) {
    if (const double found = number(name, value); found != value)
      refuse(key(name), found, base::str(value));
  };
  key("scaling.finetuned");
  // Since the file's first days a missing type means linear.
  const auto* type = file.find<std::string>(key("scaling.type"));
  const double old_factor = number("scale_linear", 0);
  double factor = number("scaling.factor", 0);
  if (factor != 0 && old_factor != 0 && factor != old_factor)
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key("scaling.factor"),
               "\" is ", factor, " and \"", key("scale_linear"), "\" is ", old_factor,
               "; llama.cpp takes the first. Keep the one that is meant");
  if (factor == 0) factor = old_factor == 0 ? 1 : old_factor;
  const std::string factor_key = key(old_factor == factor ? "scale_linear" : "scaling.factor");
  if (!(factor > 0) || !std::isfinite(factor)) refuse(factor_key, factor, "a number above 0");

  RopeScaling s;
  s.factor = factor;
  const auto* original = file.find<int64_t>(key("scaling.original_context_length"));
  s.original_max_position_embeddings = original ? *original : max_positions;
  if (original && (*original < 1 || *original > kMostPositions))
    refuse(key("scaling.original_context_length"), s.original_max_position_embeddings,
           base::str("1 to ", kMostPositions));
  const std::vector<double> factors = read_factors(file, kFreqs, head_dim);
  s.short_factor = read_factors(file, kShort, head_dim);
  s.long_factor = read_factors(file, kLong, head_dim);
  if (s.short_factor.empty() != s.long_factor.empty())
    base::fail(ErrorKind::kCorrupt, kConfigWhere, where, ": tensor '",
               s.short_factor.empty() ? kLong : kShort, "' is there without '",
               s.short_factor.empty() ? kShort : kLong, "'");
  const bool longrope = type && *type == "longrope";
  if (longrope == s.short_factor.empty())
    base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": \"", key("scaling.type"), "\" is ",
               type ? *type : "missing", ", but tensor '", kShort, "' is ",
               longrope ? "missing" : "there; expected longrope");
  const double attention = number("scaling.attn_factor", 1) * number("scaling.yarn_attn_factor", 1);
  if (!(attention > 0) || !std::isfinite(attention))
    refuse(key("scaling.attn_factor"), attention, "a number above 0");
  only("scaling.yarn_log_multiplier", 0);

  if (type && *type == "yarn") {
    if (!factors.empty())
      base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": tensor '", kFreqs,
                 "' is there, but \"", key("scaling.type"), "\" is yarn");
    s.kind = RopeKind::kYarn;
    if (const double extrapolation = number("scaling.yarn_ext_factor", 1);
        extrapolation != 1 && extrapolation != -1)
      refuse(key("scaling.yarn_ext_factor"), extrapolation, "1");
    s.beta_fast = number("scaling.yarn_beta_fast", s.beta_fast);
    s.beta_slow = number("scaling.yarn_beta_slow", s.beta_slow);
    if (!(s.beta_slow > 0) || !(s.beta_fast > s.beta_slow))
      refuse(key("scaling.yarn_beta_fast"), s.beta_fast,
             base::str("above yarn_beta_slow, which is ", s.beta_slow, " and above 0"));
    if (attention != 1)  // llama.cpp multiplies by what transformers derives when it is missing
      s.attention_factor = attention * (factor > 1 ? 1 + 0.1 * std::log(factor) : 1);
    return s;
  }
  if (type && *type != "none" && *type != "linear" && *type != "longrope")
    refuse(key("scaling.type"), *type, "none, linear, yarn or longrope");
  for (const char* name :
       {"scaling.yarn_ext_factor", "scaling.yarn_beta_fast", "scaling.yarn_beta_slow"})
    key(name);  // of yarn alone
  if ((type && *type != "linear") || !factors.empty()) {
    if (factor != 1) refuse(factor_key, factor, base::str("1 with ", type ? *type : kFreqs));
  }
  if (longrope) {
    s.kind = RopeKind::kLongrope;
    s.attention_factor = attention;
    if (!factors.empty())
      base::fail(ErrorKind::kInvalidInput, kConfigWhere, where, ": tensor '", kFreqs,
                 "' is there, but \"", key("scaling.type"), "\" is longrope");
    return s;
  }
  if (attention != 1) refuse(key("scaling.attn_factor"), attention, "1 without yarn or longrope");
  if (!factors.empty() &&
      std::any_of(factors.begin(), factors.end(), [](double f) { return f != 1; })) {
    s.kind = RopeKind::kLongrope;
    s.attention_factor = 1;
    s.short_factor = s.long_factor = factors;
    return s;
  }
  if (factor == 1) return {};
  s.kind = RopeKind::kLinear;
  s.original_max_position_embeddings = 0;
  return s;
}

base::OrderedJson rope_to_json(const RopeScaling& s) {
  if (s.kind == RopeKind::kDefault) return nullptr;
  base::OrderedJson json;
  json["rope_type"] = rope_kind_name(s.kind);
  json["factor"] = s.factor;
  if (uses_original(s.kind))
    json["original_max_position_embeddings"] = s.original_max_position_embeddings;
  if (s.attention_factor) json["attention_factor"] = *s.attention_factor;
  if (s.kind == RopeKind::kYarn) {
    json["beta_fast"] = s.beta_fast;
    json["beta_slow"] = s.beta_slow;
    if (s.mscale != 0) json["mscale"] = s.mscale;
    if (s.mscale_all_dim != 0) json["mscale_all_dim"] = s.mscale_all_dim;
    json["truncate"] = s.truncate;
  }
  if (s.kind == RopeKind::kLlama3) {
    json["low_freq_factor"] = s.low_freq_factor;
    json["high_freq_factor"] = s.high_freq_factor;
  }
  if (s.kind == RopeKind::kLongrope) {
    json["short_factor"] = s.short_factor;
    json["long_factor"] = s.long_factor;
  }
  return json;
}

}  // namespace erank::model
