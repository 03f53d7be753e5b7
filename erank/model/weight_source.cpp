#include "erank/model/weight_source.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>

#include "erank/base/error.h"
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

// Likewise the cosines or sines of all positions: [P, D], or as [1, 1, P, D], each half of a row
// the same.
bool is_rotary_table(const Checkpoint::Entry& entry) {
  return entry.name.ends_with("rotary_emb.cos_cached") ||
         entry.name.ends_with("rotary_emb.sin_cached");
}
bool table_agrees(const Checkpoint::Entry& entry, const ModelConfig& config) {
  // Beyond so many positions an angle's own rounding is as large as what half precision rounds.
  constexpr int64_t kLooked = 4096;
  data::TensorInfo info = *entry.info;
  std::vector<int64_t>& shape = info.shape;
  while (shape.size() > 2 && shape.front() == 1) shape.erase(shape.begin());
  if (shape.size() != 2 || shape[0] < 1 || shape[1] != config.head_dim) return false;
  Checkpoint::Entry table = entry;
  table.info = &info;
  ModelConfig plain = config;
  plain.rope_scaling = {};
  const RotaryFrequencies kinds[] = {rotary_frequencies(config, config.context()),
                                     rotary_frequencies(plain, config.context())};
  bool agrees[] = {true, true};
  const bool cosines = entry.name.ends_with("cos_cached");
  read_rows(table, at::kFloat, 0, std::min(shape[0], kLooked),
            [&](int64_t first, const void* values, int64_t count) {
              const auto* value = static_cast<const float*>(values);
              for (int64_t p = first; p < first + count; ++p)
                for (int64_t i = 0; i < config.head_dim; ++i, ++value)
                  for (const int kind : {0, 1}) {
                    const RotaryFrequencies& f = kinds[kind];
                    const float angle =
                        static_cast<float>(p) * f.inverse[i % std::ssize(f.inverse)];
                    const float expected =
                        f.attention_factor * (cosines ? std::cos(angle) : std::sin(angle));
                    if (!(std::abs(*value - expected) <= 0.01f)) agrees[kind] = false;
                  }
            });
  return agrees[0] || agrees[1];
}

// `take` with each of `rows` in place of what the table has.
TakeRows with_rows(const PeftFolder::Rows& rows, at::ScalarType dtype, int64_t columns,
                   const TakeRows& take) {
  return [&rows, dtype, columns, &take](int64_t first, const void* values, int64_t count) {
    const int64_t row_bytes = columns * static_cast<int64_t>(c10::elementSize(dtype));
    std::vector<char> changed;
    for (size_t i = 0; i < rows.ids.size(); ++i) {
      const int64_t row = rows.ids[i] - first;
      if (row < 0 || row >= count) continue;
      if (changed.empty()) {
        const auto* bytes = static_cast<const char*>(values);
        changed.assign(bytes, bytes + count * row_bytes);
      }
      const float* from = rows.values.const_data_ptr<float>() + static_cast<int64_t>(i) * columns;
      char* to = changed.data() + row * row_bytes;
      if (dtype == at::kFloat)
        std::memcpy(to, from, row_bytes);
      else
        weight_kernels().to_bf16(from, reinterpret_cast<uint16_t*>(to), columns);
    }
    take(first, changed.empty() ? values : changed.data(), count);
  };
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
  const auto scale_rows = [&](int64_t first, int64_t count) {
    const auto* magnitude = adapter->magnitude.const_data_ptr<float>();
    for (int64_t r = 0; r < count; ++r) {
      float* row = merged.data() + r * columns;
      double squares = 0;
      for (int64_t i = 0; i < columns; ++i) squares += double{row[i]} * double{row[i]};
      const auto factor = static_cast<float>(magnitude[first + r] / std::sqrt(squares));
      for (int64_t i = 0; i < columns; ++i) row[i] *= factor;
    }
  };
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
    if (adapter->magnitude.defined()) scale_rows(first, count);
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

std::optional<data::DType> WeightSource::stored_format(const std::string&) const { return {}; }

void WeightSource::read_stored(const std::string& name, int64_t, int64_t, const TakeRows&) const {
  ERANK_CHECK(false, "'", name, "' is not stored in blocks");
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
    else if (is_inverse_frequency(entry) || is_rotary_table(entry)) {
      if (!(is_rotary_table(entry) ? table_agrees(entry, config) : agrees(entry, config)))
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
               source.files_.is_gguf() ? "; is the file whole, and of a model that writes text?"
                                       : "; is config.json this checkpoint's?");
  }
  if (tied_head) {
    check_shape(*tied_head, parameters.at("model.embed_tokens.weight"), "load_weights");
    if (!equal_values(*tied_head, *source.files_.find("model.embed_tokens.weight")))
      base::fail(ErrorKind::kCorrupt, "load_weights", tied_head->file, ": '", tied_head->info->name,
                 "' differs from the embedding, but the configuration ties them "
                 "(\"tie_word_embeddings\": true)");
  }
  if (!adapter.empty()) source.put_on(adapter);
  return source;
}

void CheckpointSource::put_on(const std::string& adapter) {
  adapter_.emplace(PeftFolder::open(config_, adapter));
  for (const auto& [name, copy] : adapter_->copies)
    if (!equal_values(entry_of(name), *copy, true))
      base::fail(ErrorKind::kInvalidInput, "load_lora", copy->file, ": '", copy->name,
                 "' is a copy of the base model's own tensor, and differs from that of ",
                 files_.path(), "; expected the base that the adapter was trained on");
  if (adapter_->unties) config_.tie_word_embeddings = false;
}

// The head of a tied model is read when an adapter unties it.
const Checkpoint::Entry& CheckpointSource::entry_of(const std::string& name) const {
  const Checkpoint::Entry* entry = files_.find(name);
  if (!entry && name == "lm_head.weight") entry = files_.find("model.embed_tokens.weight");
  ERANK_CHECK(entry && !entry->info->shape.empty(), "no tensor '", name, "'");
  return *entry;
}

WeightSource::Size CheckpointSource::size_of(const std::string& name) const {
  const std::vector<int64_t>& shape = entry_of(name).info->shape;
  return {shape[0], shape.size() == 2 ? shape[1] : 1};
}

std::optional<data::DType> CheckpointSource::stored_format(const std::string& name) const {
  constexpr std::string_view kWeight = ".weight";
  if (adapter_ && (adapter_->replaced.contains(name) || adapter_->rows.contains(name))) return {};
  if (name.ends_with(kWeight) && lora(name.substr(0, name.size() - kWeight.size()))) return {};
  const data::DType dtype = entry_of(name).info->dtype;
  if (data::dtype_block_values(dtype) == 1) return {};
  return dtype;
}

void CheckpointSource::read_stored(const std::string& name, int64_t begin, int64_t end,
                                   const TakeRows& take) const {
  read_stored_rows(entry_of(name), begin, end, take);
}

void CheckpointSource::read_base(const std::string& name, at::ScalarType dtype, int64_t begin,
                                 int64_t end, const TakeRows& take) const {
  const Checkpoint::Entry* entry = &entry_of(name);
  if (!adapter_) return model::read_rows(*entry, dtype, begin, end, take);
  if (const auto own = adapter_->replaced.find(name); own != adapter_->replaced.end())
    entry = own->second;
  const auto rows = adapter_->rows.find(name);
  if (rows == adapter_->rows.end()) return model::read_rows(*entry, dtype, begin, end, take);
  model::read_rows(*entry, dtype, begin, end,
                   with_rows(rows->second, dtype, size_of(name).columns, take));
}

const Lora* CheckpointSource::lora(const std::string& layer) const {
  if (!adapter_) return nullptr;
  for (const Adapter::Layer& one : adapter_->layers)
    if (one.name == layer) return &one.lora;
  return nullptr;
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
