// A network of a few thousand weights and random examples for it.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/train/packing.h"
#include "tests/model/golden.h"

namespace erank::train {

constexpr int32_t kVocabulary = 61;

inline model::ModelConfig tiny_config(model::Family family = model::Family::kQwen3) {
  model::ModelConfig c;
  c.family = family;
  c.hidden_size = 32, c.intermediate_size = 48, c.num_hidden_layers = 2;
  c.num_attention_heads = 2, c.num_key_value_heads = 1, c.head_dim = 16;
  c.vocab_size = kVocabulary, c.max_position_embeddings = 256;
  c.rope_theta = 10000, c.rms_norm_eps = 1e-6;
  c.tie_word_embeddings = family == model::Family::kLlama;
  c.qk_norm = family == model::Family::kQwen3;
  return c;
}

inline text::Ids random_ids(base::Random& random, size_t n) {
  text::Ids ids(n);
  for (auto& id : ids) id = static_cast<int32_t>(random.below(kVocabulary));
  return ids;
}

// Up to nine ids and terms at some of their rows, the last row always.
inline Branch random_branch(base::Random& random) {
  Branch branch{random_ids(random, random.below(10)), {}};
  const auto last = static_cast<int32_t>(branch.ids.size());
  for (int32_t row = 0; row <= last; ++row)
    for (uint64_t n = row == last ? 1 + random.below(3) : random.below(2); n > 0; --n)
      branch.terms.push_back({row, static_cast<int32_t>(random.below(kVocabulary)),
                              static_cast<float>(0.1 + random.uniform()), random.below(4) == 0});
  branch.num_learned = 1 + static_cast<int64_t>(random.below(6));
  return branch;
}

// `num_queries` queries of 1 to 5 examples, whose prompts begin with the query's own ids.
inline std::vector<Example> random_examples(uint64_t seed, int num_queries) {
  base::Random random(seed);
  std::vector<Example> examples;
  for (int q = 0; q < num_queries; ++q) {
    const text::Ids query = random_ids(random, random.below(12));
    for (uint64_t n = 1 + random.below(5); n > 0; --n) {
      Example example{base::str("q", q), query, {}};
      const text::Ids passage = random_ids(random, 1 + random.below(20));
      example.prompt.insert(example.prompt.end(), passage.begin(), passage.end());
      for (uint64_t b = 1 + random.below(2); b > 0; --b)
        example.branches.push_back(random_branch(random));
      examples.push_back(std::move(example));
    }
  }
  return examples;
}

inline at::Tensor flat_gradients(const std::vector<model::NamedTensor>& parameters) {
  std::vector<at::Tensor> all;
  for (const auto& p : parameters) {
    all.push_back(p.tensor.grad().defined() ? p.tensor.grad().reshape({-1}).clone()
                                            : at::zeros({p.tensor.numel()}));
    p.tensor.mutable_grad().reset();
  }
  return at::cat(all);
}

}  // namespace erank::train
