#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/model/checkpoint.h"
#include "erank/model/random_source.h"
#include "erank/model/tensor_file.h"
#include "erank/model/weight_kernels.h"
#include "erank/model/weights.h"

namespace erank::model {
namespace {

using base::ErrorKind;
namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

struct OutputTensor {
  std::string name;
  std::vector<int64_t> shape;
  data::DType dtype;
};

struct Output {
  base::OrderedJson config;
  std::vector<OutputTensor> tensors;
  // Writes the i-th tensor's bytes.
  std::function<void(size_t i, data::SafetensorsWriter& writer)> write;
};

int64_t num_values(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t num_bytes(const OutputTensor& tensor) {
  return num_values(tensor.shape) * static_cast<int64_t>(data::dtype_block_bytes(tensor.dtype));
}

data::DType file_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat ? data::DType::kF32 : data::DType::kBF16;
}
const char* dtype_word(at::ScalarType dtype) {
  return dtype == at::kFloat ? "float32" : "bfloat16";
}

// Consecutive tensors a shard; a tensor larger than a shard has one of its own.
std::vector<std::pair<size_t, size_t>> plan_shards(const Output& output, int64_t max_bytes) {
  std::vector<std::pair<size_t, size_t>> shards;
  int64_t bytes = 0;
  for (size_t i = 0; i < output.tensors.size(); ++i) {
    const int64_t size = num_bytes(output.tensors[i]);
    if (shards.empty() || bytes + size > max_bytes) {
      shards.push_back({i, i});
      bytes = 0;
    }
    bytes += size;
    shards.back().second = i + 1;
  }
  return shards;
}

std::string shard_name(size_t shard, size_t num_shards) {
  if (num_shards == 1) return kSingleName;
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, num_shards);
  return name;
}

// The files that make the model that `folder` holds: the index, the shards that it names, or the
// single file. Others are not ours to remove, whatever their names.
std::set<std::string> weight_files(const std::string& folder) {
  std::set<std::string> names = {kSingleName};
  if (!base::file_exists(folder + "/" + kIndexName)) return names;
  names.insert(kIndexName);
  try {
    const auto index = base::parse_json(base::read_file(folder + "/" + kIndexName), kIndexName);
    for (const auto& [tensor, file] : index.at("weight_map").items())
      if (const auto name = file.get<std::string>();
          name.ends_with(".safetensors") && name.find('/') == name.npos)
        names.insert(name);
  } catch (const std::exception&) {
    // a damaged index names nothing
  }
  return names;
}

void write_checkpoint(const Output& output, const std::string& folder, int64_t max_shard_bytes,
                      const char* what, base::ProgressSink* progress) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    base::fail(ErrorKind::kInvalidInput, "save_weights", folder,
               ": cannot make this folder: ", error.message());

  std::set<std::string> stale = weight_files(folder);
  const auto shards = plan_shards(output, max_shard_bytes);
  base::OrderedJson weight_map = base::OrderedJson::object();
  int64_t total = 0, done = 0;
  for (const OutputTensor& tensor : output.tensors) total += num_bytes(tensor);
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    const auto [begin, end] = shards[shard];
    const std::string name = shard_name(shard, shards.size());
    std::vector<data::TensorInfo> infos;
    for (size_t i = begin; i < end; ++i) {
      infos.push_back(
          {output.tensors[i].name, output.tensors[i].dtype, output.tensors[i].shape, 0, 0});
      weight_map[output.tensors[i].name] = name;
    }
    data::SafetensorsWriter writer(folder + "/" + name, infos, {{"format", "pt"}});
    for (size_t i = begin; i < end; ++i) {
      output.write(i, writer);
      done += num_bytes(output.tensors[i]);
      if (progress) progress->update({what, done >> 20, total >> 20, "MiB", name});
    }
    writer.commit();
  }
  // What was here before must not be read instead of this model, or together with it.
  for (size_t shard = 0; shard < shards.size(); ++shard)
    stale.erase(shard_name(shard, shards.size()));
  for (const std::string& name : stale)
    if (base::file_exists(folder + "/" + name) && !fs::remove(folder + "/" + name, error))
      base::fail(ErrorKind::kInvalidInput, "save_weights", folder, "/", name,
                 ": cannot be removed: ", error.message());
  if (shards.size() > 1) {
    base::OrderedJson index;
    index["metadata"]["total_size"] = total;
    index["weight_map"] = std::move(weight_map);
    base::write_file_atomic(folder + "/" + kIndexName, index.dump(2) + "\n");
  }
  base::write_file_atomic(folder + "/config.json", output.config.dump(2) + "\n");
  if (progress) progress->finish();
}

[[noreturn]] void refuse_not_finite(const std::string& name) {
  base::fail(ErrorKind::kInvalidInput, "save_weights", "tensor '", name,
             "' has values that are not finite; the model or its adapter is damaged");
}

template <typename T>
void write_random(const TensorShape& tensor, uint64_t seed, data::SafetensorsWriter& writer) {
  constexpr float kScale = 0.02f;
  constexpr int64_t kPiece = int64_t{1} << 22, kStream = int64_t{1} << 16;
  const int64_t n = num_values(tensor.shape);
  const bool norm = tensor.shape.size() == 1 && tensor.name.ends_with(".weight");
  const bool bias = tensor.name.ends_with(".bias");
  std::vector<T> piece;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    piece.resize(std::min(kPiece, n - begin));
    const auto size = static_cast<int64_t>(piece.size());
    if (norm || bias) {
      std::fill(piece.begin(), piece.end(), static_cast<T>(norm ? 1.0f : 0.0f));
    } else {
      // One generator for each 65,536 values: the same numbers on any number of threads.
      at::parallel_for(0, (size + kStream - 1) / kStream, 1, [&](int64_t from, int64_t to) {
        for (int64_t stream = from; stream < to; ++stream) {
          base::Random random(base::derived_seed(seed, begin / kStream + stream));
          const int64_t last = std::min((stream + 1) * kStream, size);
          for (int64_t i = stream * kStream; i < last; ++i)
            piece[i] = static_cast<T>(kScale * cheap_normal(random.next()));
        }
      });
    }
    writer.write({reinterpret_cast<const uint8_t*>(piece.data()), piece.size() * sizeof(T)});
  }
}

}  // namespace

void save_weights(const Parameters& parameters, const std::string& folder, int64_t max_shard_bytes,
                  base::ProgressSink* progress) {
  ERANK_CHECK(parameters.active().empty(), "merge or leave the adapter first");
  const std::vector<NamedTensor> named = parameters.named();
  for (const NamedTensor& parameter : named)
    if (!is_finite(parameter.tensor)) refuse_not_finite(parameter.name);
  Output output{parameters.config().to_json(dtype_word(parameters.dtype())), {}, {}};
  for (const NamedTensor& parameter : named)
    output.tensors.push_back(
        {parameter.name, parameter.tensor.sizes().vec(), file_dtype(parameters.dtype())});
  output.write = [&](size_t i, data::SafetensorsWriter& writer) {
    const at::Tensor tensor =
        named[i].tensor.detach().to(at::kCPU, parameters.dtype()).contiguous();
    writer.write({static_cast<const uint8_t*>(tensor.const_data_ptr()), tensor.nbytes()});
  };
  write_checkpoint(output, folder, max_shard_bytes, "save weights", progress);
}

void save_int8_weights(const WeightSource& source, const std::string& folder,
                       int64_t max_shard_bytes, base::ProgressSink* progress) {
  constexpr const char* kScale = "_scale";
  Output output{source.config().to_json(dtype_word(at::kBFloat16)), {}, {}};
  const base::OrderedJson weights = {{"num_bits", 8},
                                     {"type", "int"},
                                     {"symmetric", true},
                                     {"strategy", "channel"},
                                     {"dynamic", false}};
  const base::OrderedJson activations = {{"num_bits", 8},
                                         {"type", "int"},
                                         {"symmetric", true},
                                         {"strategy", "token"},
                                         {"dynamic", true}};
  output.config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "int-quantized"},
      {"quantization_status", "compressed"},
      {"config_groups",
       {{"group_0",
         {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", activations}}}}},
      {"ignore", {"lm_head"}}};
  for (const TensorShape& tensor : parameter_shapes(source.config())) {
    const bool matrix = tensor.shape.size() == 2 && tensor.name != "lm_head.weight" &&
                        tensor.name != "model.embed_tokens.weight";
    output.tensors.push_back(
        {tensor.name, tensor.shape, matrix ? data::DType::kI8 : data::DType::kBF16});
    if (matrix)
      output.tensors.push_back({tensor.name + kScale, {tensor.shape[0], 1}, data::DType::kF32});
  }
  std::vector<float> scales;  // of the matrix before
  output.write = [&](size_t i, data::SafetensorsWriter& writer) {
    const OutputTensor& tensor = output.tensors[i];
    std::atomic<bool> finite = true;
    if (tensor.dtype == data::DType::kF32)
      return writer.write({reinterpret_cast<const uint8_t*>(scales.data()), scales.size() * 4});
    const int64_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
    std::vector<uint8_t> bytes(num_bytes(tensor));
    if (tensor.dtype == data::DType::kBF16) {
      source.read(tensor.name, at::kBFloat16, [&](int64_t first, const void* rows, int64_t count) {
        const auto* values = static_cast<const c10::BFloat16*>(rows);
        if (!std::all_of(values, values + count * columns,
                         [](c10::BFloat16 value) { return std::isfinite(float{value}); }))
          finite = false;
        std::memcpy(bytes.data() + first * columns * 2, rows, count * columns * 2);
      });
    } else {
      scales.assign(tensor.shape[0], 0);
      source.read(tensor.name, at::kFloat, [&](int64_t first, const void* rows, int64_t count) {
        const auto* values = static_cast<const float*>(rows);
        if (!std::all_of(values, values + count * columns,
                         [](float value) { return std::isfinite(value); }))
          finite = false;
        for (int64_t r = 0; r < count; ++r)
          scales[first + r] = weight_kernels().quantize(
              values + r * columns, columns,
              reinterpret_cast<int8_t*>(bytes.data()) + (first + r) * columns);
      });
    }
    if (!finite) refuse_not_finite(tensor.name);
    writer.write(bytes);
  };
  write_checkpoint(output, folder, max_shard_bytes, "quantize", progress);
}

void write_random_weights(const ModelConfig& config, uint64_t seed, at::ScalarType dtype,
                          const std::string& folder, int64_t max_shard_bytes,
                          base::ProgressSink* progress) {
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  Output output{config.to_json(dtype_word(dtype)), {}, {}};
  const std::vector<TensorShape> shapes = parameter_shapes(config);
  for (const TensorShape& tensor : shapes)
    output.tensors.push_back({tensor.name, tensor.shape, file_dtype(dtype)});
  output.write = [&](size_t i, data::SafetensorsWriter& writer) {
    const uint64_t own_seed = base::derived_seed(seed, name_hash(output.tensors[i].name));
    if (dtype == at::kFloat)
      write_random<float>(shapes[i], own_seed, writer);
    else
      write_random<c10::BFloat16>(shapes[i], own_seed, writer);
  };
  write_checkpoint(output, folder, max_shard_bytes, "write random weights", progress);
}

}  // namespace erank::model
