#include "erank/model/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/checkpoint.h"

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

void fill(const Checkpoint::Entry& entry, at::Tensor& tensor) {
  at::Tensor target = tensor.is_cpu() ? tensor : at::empty_like(tensor, at::Device(at::kCPU));
  ERANK_CHECK(target.is_contiguous());
  auto* out = static_cast<char*>(target.data_ptr());
  const int64_t row_bytes = target.numel() / target.size(0) * target.element_size();
  for_each_rows(entry, target.scalar_type(), [&](int64_t first, const void* values, int64_t count) {
    std::memcpy(out + first * row_bytes, values, count * row_bytes);
  });
  if (!tensor.is_cpu()) tensor.copy_(target);
}

bool equals(const Checkpoint::Entry& entry, const at::Tensor& tensor) {
  const at::Tensor target = tensor.to(at::kCPU);
  const auto* other = static_cast<const char*>(target.const_data_ptr());
  const int64_t row_bytes = target.numel() / target.size(0) * target.element_size();
  std::atomic<bool> equal{true};
  for_each_rows(entry, target.scalar_type(), [&](int64_t first, const void* values, int64_t count) {
    if (std::memcmp(other + first * row_bytes, values, count * row_bytes) != 0) equal = false;
  });
  return equal;
}

// theta ^ (-2 i / D): what the rotation computes anyway.
bool is_inverse_frequency(const Checkpoint::Entry& entry, const ModelConfig& config) {
  if (!entry.name.ends_with(".rotary_emb.inv_freq")) return false;
  if (entry.info->shape != std::vector<int64_t>{config.head_dim / 2}) return false;
  std::atomic<bool> equal{true};
  for_each_rows(entry, at::kFloat, [&](int64_t first, const void* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const double expected =
          std::pow(config.rope_theta, -2.0 * static_cast<double>(first + i) / config.head_dim);
      const float value = static_cast<const float*>(values)[i];
      // Some exports keep it in half precision.
      if (!(std::abs(value - expected) <= 0.005 * expected)) equal = false;
    }
  });
  return equal;
}

}  // namespace

void load_weights(Decoder& decoder, const std::string& path, base::ProgressSink* progress) {
  const at::NoGradGuard no_grad;
  const Checkpoint checkpoint = Checkpoint::open(path);
  std::map<std::string, at::Tensor> parameters;
  for (NamedParameter& parameter : decoder.parameters())
    parameters.emplace(parameter.name, parameter.tensor);

  const bool tied = decoder.config().tie_word_embeddings;
  std::vector<std::string> missing, surplus;
  std::vector<const Checkpoint::Entry*> extra;
  for (const auto& [name, tensor] : parameters)
    if (!checkpoint.find(name)) missing.push_back(name);
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    const auto parameter = parameters.find(entry.name);
    if (parameter != parameters.end())
      check_shape(entry, parameter->second.sizes().vec(), "load_weights");
    else if (is_inverse_frequency(entry, decoder.config()))
      continue;
    else if (tied && entry.name == "lm_head.weight")
      extra.push_back(&entry);
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

  const auto total = static_cast<int64_t>(checkpoint.entries().size());
  int64_t done = 0;
  // In the order of the files, so that the disk reads ahead.
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    const auto parameter = parameters.find(entry.name);
    if (parameter != parameters.end()) fill(entry, parameter->second);
    if (progress) progress->update({"load weights", ++done, total, "tensors", ""});
  }
  for (const Checkpoint::Entry* entry : extra) {
    const at::Tensor& embedding = parameters.at("model.embed_tokens.weight");
    check_shape(*entry, embedding.sizes().vec(), "load_weights");
    if (!equals(*entry, embedding))
      base::fail(ErrorKind::kCorrupt, "load_weights", entry->file, ": '", entry->info->name,
                 "' differs from the embedding, but the configuration ties them "
                 "(\"tie_word_embeddings\": true)");
  }
  if (progress) progress->finish();
}

ModelConfig load_config(const std::string& path) {
  if (path.ends_with(".gguf")) return ModelConfig::from_gguf(data::GgufFile::open(path));
  return ModelConfig::from_folder(path);
}

std::unique_ptr<Decoder> load_decoder(const std::string& path, const DecoderOptions& options,
                                      base::ProgressSink* progress) {
  auto decoder = std::make_unique<Decoder>(load_config(path), options);
  load_weights(*decoder, path, progress);
  return decoder;
}

}  // namespace erank::model
