#include <array>

#include "erank/base/error.h"
#include "erank/model/config.h"
#include "erank/model/config_rules.h"

namespace erank::model {

ModelConfig config_of_shape(const std::string& shape) {
  struct Shape {
    const char* name;
    const char* short_name;
    Family family;
    int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, context;
    double theta, eps;
    bool tied;
    std::vector<int32_t> eos;
    int32_t bos;
  };
  using enum Family;
  constexpr int64_t kVocab = 151936, kContext = 40960;
  static const std::array<Shape, 6> shapes = {{
      {"tiny", "tiny", kQwen3, 2, 64, 128, 4, 2, 32, 512, 2048, 1e6, 1e-6, false, {258, 256}, -1},
      {"smollm2-135m",
       "135m",
       kLlama,
       30,
       576,
       1536,
       9,
       3,
       64,
       49152,
       8192,
       1e5,
       1e-5,
       true,
       {2},
       1},
      {"qwen3-0.6b",
       "0.6b",
       kQwen3,
       28,
       1024,
       3072,
       16,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       true,
       {151645, 151643},
       151643},
      {"qwen3-4b",
       "4b",
       kQwen3,
       36,
       2560,
       9728,
       32,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       true,
       {151645, 151643},
       151643},
      {"qwen3-14b",
       "14b",
       kQwen3,
       40,
       5120,
       17408,
       40,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       false,
       {151645, 151643},
       151643},
      {"qwen3-32b",
       "32b",
       kQwen3,
       64,
       5120,
       25600,
       64,
       8,
       128,
       kVocab,
       kContext,
       1e6,
       1e-6,
       false,
       {151645, 151643},
       151643},
  }};
  for (const Shape& s : shapes) {
    if (shape != s.name && shape != s.short_name) continue;
    ModelConfig c;
    c.family = s.family;
    c.num_hidden_layers = s.layers;
    c.hidden_size = s.hidden;
    c.intermediate_size = s.ffn;
    c.num_attention_heads = s.heads;
    c.num_key_value_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.vocab_size = s.vocab;
    c.max_position_embeddings = s.context;
    c.rope_theta = s.theta;
    c.rms_norm_eps = s.eps;
    c.tie_word_embeddings = s.tied;
    c.qk_norm = derivation_of(s.family).qk_norm;
    c.eos_token_ids = s.eos;
    c.bos_token_id = s.bos;
    return c;
  }
  std::string known;
  for (const Shape& s : shapes) known += (known.empty() ? "" : ", ") + std::string(s.name);
  base::fail(base::ErrorKind::kInvalidInput, "config_of_shape", "unknown shape \"", shape,
             "\"; known are ", known);
}

}  // namespace erank::model
