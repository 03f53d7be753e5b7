#include "erank/model/checkpoint.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <set>
#include <span>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/model/dequantize.h"
#include "erank/model/quantization.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using data::DType;

constexpr int64_t kBlockValues = int64_t{1} << 19;
// Values that are converted at once: they stay in the second-level cache until they are taken.
constexpr int64_t kPieceValues = int64_t{1} << 14;

bool is_plain(DType dtype) { return data::dtype_block_values(dtype) == 1; }

bool holds_weights(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || !is_plain(dtype);
}

bool needs_scale(DType dtype) { return dtype == DType::kI8 || dtype == DType::kF8_E4M3; }

// The 256 values of torch's float8_e4m3fn: sign, 4 bits of exponent (bias 7), 3 of mantissa; all
// ones but the sign is NaN.
constexpr std::array<float, 256> kFloat8 = [] {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    float value = exponent == 0 ? static_cast<float>(mantissa) : static_cast<float>(8 + mantissa);
    for (int e = std::max(exponent, 1); e < 10; ++e) value /= 2;
    for (int e = 10; e < exponent; ++e) value *= 2;
    if (exponent == 15 && mantissa == 7) value = std::numeric_limits<float>::quiet_NaN();
    values[code] = code < 128 ? value : -value;
  }
  return values;
}();

// GGUF's names of a layer's tensors, and of those outside the layers.
struct NamePair {
  const char* gguf;
  const char* name;
};
constexpr NamePair kLayerNames[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};
constexpr NamePair kOuterNames[] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                    {"output_norm.weight", "model.norm.weight"},
                                    {"output.weight", "lm_head.weight"}};

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; other names stay as they are,
// so that the accounting names them.
std::string name_from_gguf(const std::string& gguf) {
  for (const NamePair& pair : kOuterNames)
    if (gguf == pair.gguf) return pair.name;
  const size_t number = 4, layer_end = gguf.find('.', number), tail = gguf.rfind('.');
  if (!gguf.starts_with("blk.") || layer_end == std::string::npos || tail <= layer_end) return gguf;
  const std::string part = gguf.substr(layer_end + 1, tail - layer_end - 1);
  for (const NamePair& pair : kLayerNames)
    if (part == pair.gguf)
      return base::str("model.layers.", gguf.substr(number, layer_end - number), ".", pair.name,
                       gguf.substr(tail));
  return gguf;
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::vector<TensorShape> parameter_shapes(const ModelConfig& c) {
  std::vector<TensorShape> list;
  const int64_t h = c.hidden_size, q = c.q_size(), kv = c.kv_size(), f = c.intermediate_size;
  list.push_back({"model.embed_tokens.weight", {c.vocab_size, h}});
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = base::str("model.layers.", i, ".");
    const auto linear = [&](const char* name, int64_t out, int64_t in, bool bias) {
      list.push_back({layer + name + ".weight", {out, in}});
      if (bias) list.push_back({layer + name + ".bias", {out}});
    };
    list.push_back({layer + "input_layernorm.weight", {h}});
    linear("self_attn.q_proj", q, h, c.qkv_bias);
    linear("self_attn.k_proj", kv, h, c.qkv_bias);
    linear("self_attn.v_proj", kv, h, c.qkv_bias);
    if (c.qk_norm) {
      list.push_back({layer + "self_attn.q_norm.weight", {c.head_dim}});
      list.push_back({layer + "self_attn.k_norm.weight", {c.head_dim}});
    }
    linear("self_attn.o_proj", h, q, c.o_bias);
    list.push_back({layer + "post_attention_layernorm.weight", {h}});
    linear("mlp.gate_proj", f, h, false);
    linear("mlp.up_proj", f, h, false);
    linear("mlp.down_proj", h, f, false);
  }
  list.push_back({"model.norm.weight", {h}});
  if (!c.tie_word_embeddings) list.push_back({"lm_head.weight", {c.vocab_size, h}});
  return list;
}

Checkpoint Checkpoint::open(const std::string& path) {
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  const auto add = [&](const base::MappedFile& map, const data::TensorInfo& info,
                       const std::string& name, int64_t permuted_heads) {
    if (!holds_weights(info.dtype) && !needs_scale(info.dtype))
      base::fail(ErrorKind::kCorrupt, "load_weights", map.path(), ": tensor '", info.name,
                 "' has element type ", data::dtype_name(info.dtype),
                 ", expected F32, F16, BF16, F8_E4M3 or I8 with scales, or one of GGUF's block "
                 "formats");
    if (!checkpoint.index_.emplace(name, checkpoint.entries_.size()).second)
      base::fail(ErrorKind::kCorrupt, "load_weights", map.path(), ": tensor '", info.name,
                 "' is in another file of the checkpoint too");
    checkpoint.entries_.push_back(
        {name, map.path(), &info, &map, permuted_heads, nullptr, nullptr, {1, 1}});
  };
  if (path.ends_with(".gguf")) {
    checkpoint.ggufs_.push_back(data::GgufFile::open(path));
    const data::GgufFile& file = checkpoint.ggufs_.front();
    const bool permuted = file.require<std::string>("general.architecture") == "llama";
    const ModelConfig config = ModelConfig::from_gguf(file);
    for (const data::TensorInfo& info : file.tensors()) {
      if (is_rope_tensor(info.name)) continue;  // a part of the configuration
      const bool q = info.name.find(".attn_q.") != std::string::npos;
      const bool k = info.name.find(".attn_k.") != std::string::npos;
      const int64_t heads = q ? config.num_attention_heads : k ? config.num_key_value_heads : 0;
      add(file.file_of(info), info, name_from_gguf(info.name), permuted ? heads : 0);
    }
    return checkpoint;
  }
  std::vector<std::string> files;
  if (path.ends_with(".safetensors"))
    files = {path};
  else
    files = data::safetensors_files(path);
  checkpoint.safetensors_.reserve(files.size());
  for (const std::string& file : files)
    checkpoint.safetensors_.push_back(data::SafetensorsFile::open(file));
  for (const data::SafetensorsFile& file : checkpoint.safetensors_)
    for (const data::TensorInfo& info : file.tensors()) add(file.file(), info, info.name, 0);
  checkpoint.join_scales();
  return checkpoint;
}

// Scales become a part of their matrix.
void Checkpoint::join_scales() {
  const std::string path = path_ + "/config.json";
  base::Json quantization;
  if (base::file_exists(path)) {
    const base::Json config = base::parse_json(base::read_file(path, size_t{16} << 20), path);
    if (config.is_object() && config.contains("quantization_config"))
      quantization = config["quantization_config"];
  }
  const auto block = scale_block(quantization);
  std::set<std::string> used;
  for (Entry& entry : entries_) {
    if (!needs_scale(entry.info->dtype)) continue;
    const bool int8 = entry.info->dtype == DType::kI8;
    const Entry* scale = nullptr;
    for (const char* suffix : {"_scale_inv", "_scale"})
      if (const Entry* found = find(entry.name + suffix)) scale = found;
    const std::vector<int64_t>& shape = entry.info->shape;
    if (shape.size() != 2 || !scale || !holds_weights(scale->info->dtype))
      base::fail(ErrorKind::kCorrupt, "load_weights", entry.file, ": ",
                 data::dtype_name(entry.info->dtype), " tensor '", entry.name, "' of shape ",
                 shape_text(shape), " needs a tensor '", entry.name, "_scale' or '", entry.name,
                 "_scale_inv'");
    const std::vector<int64_t>& scales = scale->info->shape;
    const auto parts = [](int64_t size, int64_t part) { return (size + part - 1) / part; };
    using Shape = std::vector<int64_t>;
    if (scales == Shape{shape[0]} || scales == Shape{shape[0], 1})
      entry.scale_block = {1, shape[1]};
    else if (!int8 && (scales.empty() || scales == Shape{1} || scales == Shape{1, 1}))
      entry.scale_block = {shape[0], shape[1]};
    else if (!int8 && scales == Shape{parts(shape[0], block[0]), parts(shape[1], block[1])})
      entry.scale_block = block;
    else
      base::fail(
          ErrorKind::kCorrupt, "load_weights", scale->file, ": tensor '", scale->name,
          "' has shape ", shape_text(scales), ", expected one value for each row of '", entry.name,
          "' ", shape_text(shape),
          int8 ? "" : base::str(", one, or one for each block of ", block[0], " x ", block[1]));
    entry.scale = scale->info;
    entry.scale_map = scale->map;
    used.insert(scale->name);
    // How activations would be quantised.
    const std::string layer = entry.name.substr(0, entry.name.rfind('.'));
    used.insert({layer + ".input_scale", layer + ".activation_scale"});
  }
  std::erase_if(entries_, [&](const Entry& entry) { return used.contains(entry.name); });
  index_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

bool Checkpoint::has_int8() const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [](const Entry& entry) { return entry.info->dtype == DType::kI8; });
}

const Checkpoint::Entry* Checkpoint::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

void check_shape(const Checkpoint::Entry& entry, const std::vector<int64_t>& expected,
                 const char* where) {
  if (entry.info->shape != expected)
    base::fail(ErrorKind::kCorrupt, where, entry.file, ": tensor '", entry.info->name,
               "' has shape ", shape_text(entry.info->shape), ", expected ", shape_text(expected));
}

namespace {

// How a file holds a tensor's rows [begin, end).
struct StoredTensor {
  StoredTensor(const Checkpoint::Entry& entry, int64_t begin, int64_t end) {
    const data::TensorInfo& info = *entry.info;
    ERANK_CHECK(!info.shape.empty() && info.shape.size() <= 2);
    const int64_t rows = info.shape[0];
    ERANK_CHECK(0 <= begin && begin <= end && end <= rows);
    row_values = info.shape.size() == 2 ? info.shape[1] : 1;
    const auto block_values = static_cast<int64_t>(data::dtype_block_values(info.dtype));
    if (row_values % block_values != 0)
      base::fail(ErrorKind::kCorrupt, "load_weights", entry.file, ": tensor '", info.name,
                 "' has rows of ", row_values, " values, ", data::dtype_name(info.dtype),
                 " needs a multiple of ", block_values);
    row_bytes =
        row_values / block_values * static_cast<int64_t>(data::dtype_block_bytes(info.dtype));
    bytes = entry.map->bytes().data() + info.begin;
    head_rows = entry.permuted_heads > 0 ? rows / entry.permuted_heads : 0;
  }

  // Where a row of a permuted tensor is.
  int64_t source_row(int64_t row) const {
    const int64_t i = row % head_rows, half = head_rows / 2;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
  }

  int64_t row_values, row_bytes;
  const uint8_t* bytes;
  int64_t head_rows;  // 0: not permuted
};

void release_rows(const Checkpoint::Entry& entry, int64_t row_bytes, int64_t begin, int64_t end) {
  const size_t offset = entry.info->begin + begin * row_bytes;
  entry.map->release(offset, offset + (end - begin) * row_bytes);
}

}  // namespace

void read_stored_rows(const Checkpoint::Entry& entry, int64_t begin, int64_t end,
                      const TakeRows& take) {
  const StoredTensor from(entry, begin, end);
  if (from.head_rows == 0)
    take(begin, from.bytes + begin * from.row_bytes, end - begin);
  else
    for (int64_t row = begin; row < end; ++row)
      take(row, from.bytes + from.source_row(row) * from.row_bytes, 1);
  release_rows(entry, from.row_bytes, begin, end);
}

void read_rows(const Checkpoint::Entry& entry, at::ScalarType dtype, int64_t begin, int64_t end,
               const TakeRows& take) {
  const data::TensorInfo& info = *entry.info;
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  const StoredTensor stored(entry, begin, end);
  const int64_t row_values = stored.row_values, row_bytes = stored.row_bytes;
  std::vector<float> scales;
  if (entry.scale) {
    scales.resize((entry.scale->end - entry.scale->begin) /
                  data::dtype_block_bytes(entry.scale->dtype));
    dequantize(
        entry.scale->dtype,
        entry.scale_map->bytes().subspan(entry.scale->begin, entry.scale->end - entry.scale->begin),
        scales.data(), scales.size());
  }
  const bool as_it_is =
      entry.permuted_heads == 0 && ((dtype == at::kFloat && info.dtype == DType::kF32) ||
                                    (dtype == at::kBFloat16 && info.dtype == DType::kBF16));
  const int64_t piece = std::max<int64_t>(1, kPieceValues / std::max<int64_t>(1, row_values));
  std::vector<float> floats;
  std::vector<uint16_t> halves;
  if (!as_it_is && dtype == at::kFloat) floats.resize(piece * row_values);
  if (!as_it_is && dtype == at::kBFloat16) halves.resize(piece * row_values);
  const auto convert = [&](int64_t from_row, int64_t num_rows, int64_t to_row) {
    const std::span<const uint8_t> from(stored.bytes + from_row * row_bytes, num_rows * row_bytes);
    const int64_t n = num_rows * row_values, to = to_row * row_values;
    if (entry.scale) {
      const auto [block_height, block_width] = entry.scale_block;
      const int64_t across = (row_values + block_width - 1) / block_width;
      for (int64_t i = 0; i < n; i += std::min(block_width, row_values - i % row_values)) {
        const int64_t row = from_row + i / row_values, column = i % row_values;
        const float scale = scales[row / block_height * across + column / block_width];
        const int64_t end = i + std::min(block_width, row_values - column);
        for (int64_t j = i; j < end; ++j) {
          const float stored = info.dtype == DType::kI8
                                   ? static_cast<float>(static_cast<int8_t>(from[j]))
                                   : kFloat8[from[j]];
          if (dtype == at::kFloat)
            floats[to + j] = scale * stored;
          else
            halves[to + j] = c10::BFloat16(scale * stored).x;
        }
      }
    } else if (dtype == at::kFloat)
      dequantize(info.dtype, from, floats.data() + to, n);
    else
      dequantize_bf16(info.dtype, from, halves.data() + to, n);
  };
  for (int64_t first = begin; first < end; first += piece) {
    const int64_t count = std::min(piece, end - first);
    if (as_it_is) {
      take(first, stored.bytes + first * row_bytes, count);
      continue;
    }
    if (stored.head_rows == 0)
      convert(first, count, 0);
    else
      for (int64_t r = 0; r < count; ++r) convert(stored.source_row(first + r), 1, r);
    take(first, dtype == at::kFloat ? static_cast<const void*>(floats.data()) : halves.data(),
         count);
  }
  release_rows(entry, row_bytes, begin, end);
}

void for_each_rows(const Checkpoint::Entry& entry, at::ScalarType dtype, const TakeRows& take) {
  const std::vector<int64_t>& shape = entry.info->shape;
  ERANK_CHECK(!shape.empty());
  const int64_t block = block_rows(shape.size() == 2 ? shape[1] : 1);
  at::parallel_for(0, (shape[0] + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      read_rows(entry, dtype, i * block, std::min((i + 1) * block, shape[0]), take);
  });
  entry.map->release(entry.info->begin, entry.info->end);
}

bool equal_values(const Checkpoint::Entry& a, const Checkpoint::Entry& b, bool rounded) {
  ERANK_CHECK(a.info->shape == b.info->shape && !a.info->shape.empty());
  const int64_t rows = a.info->shape[0], width = a.info->shape.size() == 2 ? a.info->shape[1] : 1;
  const auto as_b = [&](float value) -> float {
    if (b.info->dtype == DType::kBF16) return c10::BFloat16(value);
    if (b.info->dtype == DType::kF16) return c10::Half(value);
    return value;
  };
  const int64_t block = block_rows(width);
  std::atomic<bool> equal{true};
  at::parallel_for(0, (rows + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> all;
    for (int64_t i = begin; i < end && equal; ++i) {
      const int64_t from = i * block, to = std::min(from + block, rows);
      all.resize((to - from) * width);
      read_rows(a, at::kFloat, from, to, [&](int64_t first, const void* values, int64_t count) {
        std::memcpy(all.data() + (first - from) * width, values, count * width * sizeof(float));
      });
      read_rows(b, at::kFloat, from, to, [&](int64_t first, const void* values, int64_t count) {
        const auto* other = static_cast<const float*>(values);
        const float* own = all.data() + (first - from) * width;
        for (int64_t j = 0; j < count * width; ++j)
          if (own[j] != other[j] && !(rounded && as_b(own[j]) == other[j])) equal = false;
      });
    }
  });
  return equal;
}

int64_t block_rows(int64_t row_values) {
  return std::max<int64_t>(1, kBlockValues / std::max<int64_t>(1, row_values));
}

}  // namespace erank::model
