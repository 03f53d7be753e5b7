// The network of Llama, Qwen2 and Qwen3: one class, the config decides. One forward for training
// (no cache) and for serving (paged cache).
//
// Letters, everywhere in the code: B sequences, T packed tokens, H hidden, N heads, K key/value
// heads, D head size, F feed-forward size, V vocabulary, R rows whose logits are asked.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "erank/model/config.h"
#include "erank/model/kv_cache.h"

namespace erank::model {

// What one forward pass computes: T new tokens of B sequences, packed one behind the other. Plain
// integers.
struct Batch {
  std::vector<int32_t> tokens;     // [T]
  std::vector<int32_t> positions;  // [T] 0 = the sequence's first token
  std::vector<int32_t> starts;     // [B + 1] sequence b's new tokens are [starts[b], starts[b + 1])
  std::vector<int32_t> rows;       // [R] which of the T tokens' logits are asked, ascending

  // Only without a cache: parents[b] < b is the sequence whose tokens (behind its own parents')
  // stand before sequence b's, or -1: what prompts share is computed once. Empty: no sequence has
  // one.
  std::vector<int32_t> parents;
  int32_t parent(int32_t b) const { return parents.empty() ? -1 : parents[b]; }

  // Only with a cache. pages[b] lists sequence b's pages in order; they hold every position up to
  // its last new token. Before a layer attends, it writes the new keys and values into their slots,
  // then makes the copies.
  std::vector<std::vector<int32_t>> pages;
  struct Copy {
    int32_t from_slot, to_slot;
  };
  std::vector<Copy>
      copies;  // in order: cached tokens that a sequence takes over from a page it may not share
};

// A low-rank addition to one linear layer: y += scaling * (x A^T) B^T (LoRA, arXiv 2106.09685).
struct Lora {
  at::Tensor a;  // [rank, in]
  at::Tensor b;  // [out, rank]
  double scaling = 0;
  double dropout = 0;  // probability on x, in training only
};

struct Linear {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out], undefined when there is none
  std::unique_ptr<Lora> lora;
};

struct DecoderLayer {
  at::Tensor input_layernorm;     // [H]
  Linear q_proj, k_proj, v_proj;  // [N D, H], [K D, H], [K D, H]: views of one tensor, so that
                                  // serving multiplies by all three at once
  at::Tensor q_norm, k_norm;      // [D], undefined without qk_norm
  Linear o_proj;                  // [H, N D]
  at::Tensor post_attention_layernorm;  // [H]
  Linear gate_proj, up_proj;            // [F, H] each, views of one tensor
  Linear down_proj;                     // [H, F]
  at::Tensor qkv, qkv_bias;  // [(N + 2 K) D, H], [(N + 2 K) D]: what q, k, v are views of
  at::Tensor gate_up;        // [2 F, H]
};

struct NamedParameter {
  std::string name;  // the checkpoint's: "model.layers.0.self_attn.q_proj.weight"
  at::Tensor tensor;
};

struct DecoderOptions {
  at::ScalarType dtype = at::kFloat;  // kFloat or kBFloat16: weights, activations and cache
  at::Device device = at::kCPU;
  // Every row is computed by kernels whose order of additions does not depend on what else is in
  // the batch, so that results are equal bit for bit alone or batched, cache cold or warm. Slower;
  // CPU only.
  bool deterministic = false;
};

// bf16 on a GPU and on CPUs that multiply bf16 (AVX-512 BF16), else fp32.
at::ScalarType usual_dtype(at::Device device);

// Not thread-safe: one thread owns it and every tensor in it.
class Decoder {
 public:
  // Allocates every parameter, uninitialised (load_weights or init_random fill them).
  Decoder(const ModelConfig& config, const DecoderOptions& options);

  const ModelConfig& config() const { return config_; }
  const DecoderOptions& options() const { return options_; }

  // Hidden states behind the final norm of the asked rows. `cache` null: attention inside each
  // sequence of the batch alone, differentiable when gradients are on. With a cache: no gradients.
  at::Tensor hidden(const Batch& batch, KvCache* cache);  // -> [R, H]
  // hidden [R, H] -> [R, V] fp32.
  at::Tensor logits(const at::Tensor& hidden);
  // logits(hidden(batch, cache)).
  at::Tensor forward(const Batch& batch, KvCache* cache) { return logits(hidden(batch, cache)); }

  // Every parameter of the checkpoint under its name there; a tied head is not listed. LoRA
  // parameters are not. The tensors share storage with the decoder: writing into them changes it.
  std::vector<NamedParameter> parameters();
  // The linear layers by their checkpoint name without ".weight" ("model.layers.0.mlp.up_proj"),
  // "lm_head" last when it is not tied: what LoRA can be put on.
  struct NamedLinear {
    std::string name;
    Linear* linear;
  };
  std::vector<NamedLinear> linears();

  void init_random(uint64_t seed, double scale = 0.02);
  // LoRA dropout on or off; it draws from libtorch's default generator.
  void set_training(bool training) { training_ = training; }

 private:
  at::Tensor project(const at::Tensor& x, const Linear& linear) const;
  at::Tensor project_fused(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           std::initializer_list<const Linear*> parts) const;
  at::Tensor attend_plain(const at::Tensor& qkv, int64_t layer_idx, const Batch& batch,
                          KvCache& cache) const;
  at::Tensor norm_heads(const at::Tensor& qkv, const DecoderLayer& layer) const;
  void reach_position(int64_t position);
  bool use_kernels() const;
  bool use_grad_kernels() const;

  ModelConfig config_;
  DecoderOptions options_;
  at::Tensor embed_tokens_;  // [V, H]
  std::vector<DecoderLayer> layers_;
  at::Tensor norm_;       // [H]
  Linear lm_head_;        // [V, H]; shares embed_tokens_ when tied
  at::Tensor cos_, sin_;  // [positions so far, D / 2] fp32
  bool training_ = false;
};

}  // namespace erank::model
