#include "tests/rank/tiny_checkpoint.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "erank/base/random.h"
#include "erank/model/tensor_file.h"
#include "erank/model/weights.h"
#include "erank/text/tokenizer_export.h"

namespace erank::rank {
namespace {

constexpr double kScale = 0.25;

std::string save(const model::Parameters& parameters, const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/erank_rank_" + name;
  std::filesystem::remove_all(folder);
  model::save_weights(parameters, folder);
  text::write_byte_tokenizer(parameters.config().vocab_size, folder);
  return folder;
}

}  // namespace

std::string random_checkpoint(const std::string& name, uint64_t seed) {
  model::Parameters parameters(model::config_of_shape("tiny"), at::kFloat);
  parameters.init_random(seed, kScale);
  return save(parameters, name);
}

std::string chain_checkpoint(const std::string& name, const std::map<int, int>& successors) {
  const auto config = model::config_of_shape("tiny");
  model::Parameters parameters(config, at::kFloat);
  parameters.init_random(1, kScale);
  at::Tensor embedding, head;
  for (auto& [parameter, tensor] : parameters.named()) {
    if (parameter == "model.embed_tokens.weight") embedding = tensor;
    if (parameter == "lm_head.weight") head = tensor;
    // Without these two a layer adds nothing to the token's own embedding.
    if (parameter.ends_with("o_proj.weight") || parameter.ends_with("down_proj.weight"))
      tensor.zero_();
  }
  // Rows of signs: a row times itself is the hidden size, times another one far less.
  base::Random random(7);
  float* rows = embedding.data_ptr<float>();
  for (int64_t i = 0; i < embedding.numel(); ++i) rows[i] = random.below(2) ? 1.0f : -1.0f;
  head.zero_();
  float* outputs = head.data_ptr<float>();
  for (const auto& [token, successor] : successors)
    for (int64_t i = 0; i < config.hidden_size; ++i)
      outputs[successor * config.hidden_size + i] += rows[token * config.hidden_size + i];
  return save(parameters, name);
}

std::string damaged_checkpoint(const std::string& name, int token) {
  model::Parameters parameters(model::config_of_shape("tiny"), at::kFloat);
  parameters.init_random(1, kScale);
  const std::string folder = save(parameters, name);
  for (auto& [parameter, tensor] : parameters.named())
    if (parameter == "model.embed_tokens.weight")
      tensor.select(0, token).fill_(std::numeric_limits<float>::quiet_NaN());
  model::save_tensors(folder + "/model.safetensors", parameters.named(), at::kFloat);
  return folder;
}

std::map<int, int> spelled(const std::string& text, int last) {
  std::map<int, int> successors;
  int before = '\n';
  for (const char c : text) {
    successors[before] = static_cast<unsigned char>(c);
    before = static_cast<unsigned char>(c);
  }
  successors[before] = last;
  return successors;
}

RerankerOptions tiny_options(const std::string& model) {
  RerankerOptions options;
  options.model = model;
  options.precision = Precision::kFp32;
  options.threads = 1;
  options.kv_cache_bytes = int64_t{64} << 20;
  return options;
}

RankRequest request_of(std::vector<Passage> passages, Mode mode) {
  RankRequest request;
  request.qid = "q1";
  request.query = "why is the sky blue";
  request.passages = std::move(passages);
  request.options.mode = mode;
  request.options.score = ScoreKind::kExpected;
  request.options.max_think_tokens = 6;
  return request;
}

std::map<std::string, PassageResult> by_id(const Ranking& ranking) {
  std::map<std::string, PassageResult> results;
  for (const auto& r : ranking.results) results[r.docid] = r;
  return results;
}

}  // namespace erank::rank
