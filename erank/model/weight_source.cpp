#include "erank/model/weight_source.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>

#include "erank/base/error.h"
#include "erank/model/lora.h"
#include "erank/model/rotary.h"
#include "erank/model/weight_kernels.h"

namespace erank::model {
namespace {

using base::ErrorKind;

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i)
    text += (i ? ", '" : "'") + names[i] + "'";
  if (names.size() > kShown) text += base::str(" and ", names.size() - kShown, " more");
  return text;
}

// A buffer of old exports that holds what RoPE computes anyway: the frequencies, or those that some
// kinds of scaling begin with.
bool is_inverse_frequency(const Checkpoint::Entry& entry) {
  return entry.name.ends_with("rotary_emb.inv_freq");
}
bool agrees(const Checkpoint::Entry& entry, const ModelConfig& config) {
  ModelConfig plain = config;
  plain.rope_scaling = {};
  const auto scaled = rotary_frequencies(config, config.context()).inverse;
  const auto unscaled = rotary_frequencies(plain, config.context()).inverse;
  if (entry.info->shape != std::vector<int64_t>{std::ssize(scaled)}) return false;
  std::atomic<bool> is_scaled{true}, is_unscaled{true};
  for_each_rows(entry, at::kFloat, [&](int64_t first, const void* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<const float*>(values)[i];
      // Some exports keep it in half precision, with steps of 6e-8 at the least.
      const auto near = [&](float expected) {
        return std::abs(value - expected) <= 0.005f * expected + 6e-8f;
      };
      if (!near(scaled[first + i])) is_scaled = false;
      if (!near(unscaled[first + i])) is_unscaled = false;
    }
  });
  return is_scaled || is_unscaled;
}

// Whether two tensors of equal shape hold the same values in fp32.
bool equal_values(const Checkpoint::Entry& a, const Checkpoint::Entry& b) {
  const int64_t width = a.info->shape.size() == 2 ? a.info->shape[1] : 1;
  std::vector<float> all(a.info->shape[0] * width);
  for_each_rows(a, at::kFloat, [&](int64_t first, const void* values, int64_t count) {
    std::memcpy(all.data() + first * width, values, count * width * sizeof(float));
  });
  std::atomic<bool> equal{true};
  for_each_rows(b, at::kFloat, [&](int64_t first, const void* values, int64_t count) {
    if (std::memcmp(all.data() + first * width, values, count * width * sizeof(float)) != 0)
      equal = false;
  });
  return equal;
}

}  // namespace

void WeightSource::read_rows(const std::string& name, at::ScalarType dtype, int64_t begin,
                             int64_t end, const TakeRows& take) const {
  constexpr std::string_view kWeight = ".weight";
  const Lora* adapter =
      name.ends_with(kWeight) ? lora(name.substr(0, name.size() - kWeight.size())) : nullptr;
  if (!adapter) return read_base(name, dtype, begin, end, take);
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  const at::NoGradGuard no_grad;
  const at::Tensor a = adapter->a.to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor b =
      adapter->b.narrow(0, begin, end - begin).to(at::kCPU, at::kFloat).contiguous();
  const int64_t rank = a.size(0), columns = a.size(1);
  std::vector<float> scaled(rank * columns), merged;
  const auto scaling = static_cast<float>(adapter->scaling);
  const auto* unscaled = a.const_data_ptr<float>();
  for (int64_t i = 0; i < rank * columns; ++i) scaled[i] = scaling * unscaled[i];
  std::vector<uint16_t> halves;
  read_base(name, at::kFloat, begin, end, [&](int64_t first, const void* values, int64_t count) {
    const int64_t n = count * columns;
    if (std::ssize(merged) < n) merged.resize(n);
    weight_kernels().merge({.w = static_cast<const float*>(values),
                            .b = b.const_data_ptr<float>() + (first - begin) * rank,
                            .a = scaled.data(),
                            .rows = count,
                            .rank = rank,
                            .columns = columns,
                            .out = merged.data()});
    if (dtype == at::kFloat) return take(first, merged.data(), count);
    if (std::ssize(halves) < n) halves.resize(n);
    weight_kernels().to_bf16(merged.data(), halves.data(), n);
    take(first, halves.data(), count);
  });
}

void WeightSource::read(const std::string& name, at::ScalarType dtype, const TakeRows& take) const {
  const auto [rows, columns] = size_of(name);
  const int64_t block = block_rows(columns);
  at::parallel_for(0, (rows + block - 1) / block, 1, [&, rows = rows](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      read_rows(name, dtype, i * block, std::min((i + 1) * block, rows), take);
  });
}

CheckpointSource CheckpointSource::open(const std::string& path, const std::string& adapter) {
  const ModelConfig config = load_config(path);  // first: a folder without one is no model
  CheckpointSource source(config, Checkpoint::open(path));
  std::map<std::string, std::vector<int64_t>> parameters;
  for (TensorShape& parameter : parameter_shapes(config))
    parameters.emplace(parameter.name, std::move(parameter.shape));
  std::vector<std::string> missing, surplus;
  const Checkpoint::Entry* tied_head = nullptr;
  for (const auto& [name, shape] : parameters)
    if (!source.files_.find(name)) missing.push_back(name);
  for (const Checkpoint::Entry& entry : source.files_.entries()) {
    const auto parameter = parameters.find(entry.name);
    if (parameter != parameters.end())
      check_shape(entry, parameter->second, "load_weights");
    else if (is_inverse_frequency(entry)) {
      if (!agrees(entry, config))
        base::fail(ErrorKind::kCorrupt, "load_weights", entry.file, ": '", entry.info->name,
                   "' differs from the rotary frequencies of the configuration; expected those of "
                   "\"rope_theta\" ",
                   config.rope_theta, ", or no such tensor");
    } else if (config.tie_word_embeddings && entry.name == "lm_head.weight")
      tied_head = &entry;
    else
      surplus.push_back(entry.info->name);
  }
  if (!missing.empty() || !surplus.empty()) {
    std::string text;
    if (!missing.empty())
      text += base::str(missing.size(), " tensor(s) missing: ", listed(missing));
    if (!surplus.empty())
      text += base::str(text.empty() ? "" : "; ", surplus.size(),
                        " tensor(s) that the model has no place for: ", listed(surplus));
    base::fail(ErrorKind::kCorrupt, "load_weights", path, ": ", text,
               "; is config.json this checkpoint's?");
  }
  if (tied_head) {
    check_shape(*tied_head, parameters.at("model.embed_tokens.weight"), "load_weights");
    if (!equal_values(*tied_head, *source.files_.find("model.embed_tokens.weight")))
      base::fail(ErrorKind::kCorrupt, "load_weights", tied_head->file, ": '", tied_head->info->name,
                 "' differs from the embedding, but the configuration ties them "
                 "(\"tie_word_embeddings\": true)");
  }
  if (!adapter.empty()) source.adapter_ = load_adapter(config, adapter);
  return source;
}

WeightSource::Size CheckpointSource::size_of(const std::string& name) const {
  const Checkpoint::Entry* entry = files_.find(name);
  ERANK_CHECK(entry && !entry->info->shape.empty(), "no tensor '", name, "'");
  const std::vector<int64_t>& shape = entry->info->shape;
  return {shape[0], shape.size() == 2 ? shape[1] : 1};
}

void CheckpointSource::read_base(const std::string& name, at::ScalarType dtype, int64_t begin,
                                 int64_t end, const TakeRows& take) const {
  const Checkpoint::Entry* entry = files_.find(name);
  ERANK_CHECK(entry, "no tensor '", name, "'");
  model::read_rows(*entry, dtype, begin, end, take);
}

const Lora* CheckpointSource::lora(const std::string& layer) const {
  return adapter_ ? adapter_->find(layer) : nullptr;
}

ParametersSource::ParametersSource(const Parameters& parameters)
    : WeightSource(parameters.config()), parameters_(parameters) {
  for (const NamedTensor& parameter : parameters.named())
    tensors_.emplace(parameter.name, parameter.tensor);
}

const at::Tensor& ParametersSource::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  ERANK_CHECK(found != tensors_.end(), "no tensor '", name, "'");
  return found->second;
}

WeightSource::Size ParametersSource::size_of(const std::string& name) const {
  const at::Tensor& tensor = find(name);
  return {tensor.size(0), tensor.numel() / tensor.size(0)};
}

void ParametersSource::read_base(const std::string& name, at::ScalarType dtype, int64_t begin,
                                 int64_t end, const TakeRows& take) const {
  constexpr int64_t kPieceValues = 1 << 14;  // libtorch converts so few on this thread alone
  const at::NoGradGuard no_grad;
  const at::Tensor rows = find(name).detach().narrow(0, begin, end - begin).to(at::kCPU);
  const int64_t piece = std::max<int64_t>(1, kPieceValues * (end - begin) / rows.numel());
  for (int64_t first = begin; first < end; first += piece) {
    const int64_t count = std::min(piece, end - first);
    const at::Tensor part = rows.narrow(0, first - begin, count).to(dtype).contiguous();
    take(first, part.const_data_ptr(), count);
  }
}

const Lora* ParametersSource::lora(const std::string& layer) const {
  const Adapter* adapter = parameters_.adapter(parameters_.active());
  return adapter ? adapter->find(layer) : nullptr;
}

}  // namespace erank::model
