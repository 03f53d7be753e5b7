#include "erank/model/quantization.h"

#include <algorithm>

namespace erank::model {
namespace {

using base::Json;

constexpr std::array<int64_t, 2> kUsualBlock = {128, 128};

std::string text_of(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

bool is_block(const Json& value) {
  return value.is_array() && value.size() == 2 &&
         std::all_of(value.begin(), value.end(), [](const Json& size) {
           return size.is_number_integer() && size >= 1 && size <= 1 << 20;
         });
}

// The groups of compressed-tensors, each with its "weights".
template <typename Accepts>
bool all_groups(const Json& config, Accepts accepts) {
  if (!config.contains("config_groups") || !config["config_groups"].is_object()) return false;
  const Json& groups = config["config_groups"];
  return std::all_of(groups.begin(), groups.end(), [&](const Json& group) {
    return group.is_object() && group.contains("weights") && group["weights"].is_object() &&
           accepts(group["weights"]);
  });
}

bool has(const Json& weights, const char* type, std::initializer_list<const char*> strategies) {
  const std::string strategy = text_of(weights, "strategy");
  return weights.contains("num_bits") && weights["num_bits"] == 8 &&
         text_of(weights, "type") == type && weights.contains("symmetric") &&
         weights["symmetric"] == true &&
         std::any_of(strategies.begin(), strategies.end(),
                     [&](const char* one) { return strategy == one; });
}

bool is_null(const Json& object, const char* key) {
  return !object.contains(key) || object[key].is_null();
}

}  // namespace

bool is_known_quantization(const Json& config) {
  if (!config.is_object()) return false;
  const std::string method = text_of(config, "quant_method"), format = text_of(config, "format");
  if (method == "fp8")
    return (is_null(config, "fmt") || config["fmt"] == "e4m3") &&
           (is_null(config, "weight_block_size") || is_block(config["weight_block_size"]));
  if (method != "compressed-tensors") return false;
  if (format == "int-quantized")
    return all_groups(config, [](const Json& w) { return has(w, "int", {"channel"}); });
  return format == "float-quantized" && is_null(config, "kv_cache_scheme") &&
         all_groups(config, [](const Json& w) {
           return has(w, "float", {"tensor", "channel", "block"}) &&
                  (is_null(w, "block_structure") || is_block(w["block_structure"]));
         });
}

std::array<int64_t, 2> scale_block(const Json& config) {
  if (!config.is_object()) return kUsualBlock;
  const auto block_of = [](const Json& object, const char* key) {
    return object.contains(key) && is_block(object[key]) ? object[key].get<std::array<int64_t, 2>>()
                                                         : kUsualBlock;
  };
  if (!is_null(config, "weight_block_size")) return block_of(config, "weight_block_size");
  std::array<int64_t, 2> block = kUsualBlock;
  all_groups(config, [&](const Json& weights) {
    block = block_of(weights, "block_structure");
    return true;
  });
  return block;
}

}  // namespace erank::model
