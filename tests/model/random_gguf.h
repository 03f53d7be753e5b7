// GGUF files of random weights in any of the block formats.
#pragma once

#include <c10/util/Half.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/data/tensor_info.h"
#include "erank/model/checkpoint.h"
#include "erank/model/config.h"
#include "tests/gguf_bytes.h"

namespace erank::model {

// Whole blocks whose values are below 1 or little more.
inline std::string random_blocks(data::DType format, size_t count, uint64_t seed) {
  using data::DType;
  base::Random random(seed);
  const size_t block = data::dtype_block_bytes(format);
  std::string out(count * block, '\0');
  for (char& byte : out) byte = static_cast<char>(random.below(256));
  const auto put = [&](size_t at, float value) {
    const uint16_t bits = c10::Half(value).x;
    std::memcpy(out.data() + at, &bits, 2);
  };
  for (size_t i = 0; i < out.size(); i += block) {
    const float scale = 0.01f + 0.0001f * static_cast<float>(random.below(100));
    switch (format) {
      case DType::kF32: {
        const float value = scale * static_cast<float>(random.normal());
        std::memcpy(out.data() + i, &value, 4);
        break;
      }
      case DType::kF16:
        put(i, scale * static_cast<float>(random.normal()));
        break;
      case DType::kBF16: {
        const float value = scale * static_cast<float>(random.normal());
        std::memcpy(out.data() + i, reinterpret_cast<const char*>(&value) + 2, 2);
        break;
      }
      case DType::kQ4_0:
      case DType::kQ5_0:
        put(i, scale);
        break;
      case DType::kQ8_0:
        put(i, scale / 10);
        break;
      case DType::kQ4_1:
      case DType::kQ5_1:
        put(i, scale), put(i + 2, -8 * scale);
        break;
      case DType::kQ4_K:
      case DType::kQ5_K:
        put(i, scale / 30), put(i + 2, scale / 4);
        break;
      case DType::kQ6_K:
        put(i + 208, scale / 100);
        break;
      default:
        ERANK_CHECK(false, "no weights in ", data::dtype_name(format));
    }
  }
  return out;
}

inline uint32_t gguf_type(data::DType format) {
  using data::DType;
  constexpr std::pair<DType, uint32_t> kTypes[] = {
      {DType::kF32, 0},   {DType::kF16, 1},   {DType::kQ4_0, 2}, {DType::kQ4_1, 3},
      {DType::kQ5_0, 6},  {DType::kQ5_1, 7},  {DType::kQ8_0, 8}, {DType::kQ4_K, 12},
      {DType::kQ5_K, 13}, {DType::kQ6_K, 14}, {DType::kBF16, 30}};
  for (const auto& [known, type] : kTypes)
    if (known == format) return type;
  ERANK_CHECK(false);
  return 0;
}

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"
inline std::string gguf_name(std::string name) {
  const auto replace = [&](const std::string& from, const std::string& to) {
    if (const size_t at = name.find(from); at != name.npos) name.replace(at, from.size(), to);
  };
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  replace("model.layers.", "blk.");
  for (const char* part : {"q", "k", "v"}) {
    replace(std::string("self_attn.") + part + "_proj", std::string("attn_") + part);
    replace(std::string("self_attn.") + part + "_norm", std::string("attn_") + part + "_norm");
  }
  replace("self_attn.o_proj", "attn_output");
  replace("input_layernorm", "attn_norm");
  replace("post_attention_layernorm", "ffn_norm");
  for (const char* part : {"gate", "up", "down"})
    replace(std::string("mlp.") + part + "_proj", std::string("ffn_") + part);
  return name;
}

// Vectors are F32 around 1, matrices in the format that `format_of` gives for the checkpoint's
// name.
inline void write_random_gguf(const std::string& path, const ModelConfig& c,
                              const std::function<data::DType(const std::string&)>& format_of) {
  namespace bytes = erank::testing::gguf_bytes;
  const std::string arch = family_name(c.family);
  std::vector<std::string> keys = {
      bytes::key("general.architecture", bytes::kString, bytes::text(arch))};
  const auto number = [&](const char* name, int64_t value) {
    keys.push_back(
        bytes::key(arch + "." + name, bytes::kUint32, bytes::u32(static_cast<uint32_t>(value))));
  };
  number("block_count", c.num_hidden_layers);
  number("context_length", c.max_position_embeddings);
  number("embedding_length", c.hidden_size);
  number("feed_forward_length", c.intermediate_size);
  number("attention.head_count", c.num_attention_heads);
  number("attention.head_count_kv", c.num_key_value_heads);
  number("attention.key_length", c.head_dim);
  number("attention.value_length", c.head_dim);
  keys.push_back(
      bytes::key(arch + ".attention.layer_norm_rms_epsilon", bytes::kFloat32, bytes::raw(1e-5f)));
  std::vector<std::string> tensors;
  std::string data;
  for (const TensorShape& tensor : parameter_shapes(c)) {
    const bool matrix = tensor.shape.size() == 2;
    const auto format = matrix ? format_of(tensor.name) : data::DType::kF32;
    size_t values = 1;
    std::vector<uint64_t> dimensions;
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {
      dimensions.push_back(static_cast<uint64_t>(*size));
      values *= static_cast<size_t>(*size);
    }
    tensors.push_back(
        bytes::tensor(gguf_name(tensor.name), dimensions, gguf_type(format), data.size()));
    std::string own =
        random_blocks(format, values / data::dtype_block_values(format), tensors.size());
    if (!matrix)
      for (size_t i = 0; i < own.size(); i += 4) {
        float value;
        std::memcpy(&value, own.data() + i, 4);
        value += 1;
        std::memcpy(own.data() + i, &value, 4);
      }
    data += own;
    data.resize((data.size() + 31) / 32 * 32, '\0');
  }
  base::write_file_atomic(path, bytes::gguf(keys, tensors, data));
}

}  // namespace erank::model
