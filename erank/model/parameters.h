// A checkpoint's tensors in memory by their names there, and adapters by name: what training
// changes, files hold, and a network is loaded from.
//
// Letters, everywhere in the code: B sequences, T packed tokens, H hidden, N heads, K key/value
// heads, D head size, F feed-forward size, V vocabulary, R rows whose logits are asked.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "erank/model/adapter.h"
#include "erank/model/config.h"
#include "erank/model/network.h"

namespace erank::model {

struct Linear {
  at::Tensor weight;           // [out, in]
  at::Tensor bias;             // [out], undefined when there is none
  const Lora* lora = nullptr;  // the active adapter's, null when it has none for this layer
};

struct LayerParameters {
  at::Tensor input_layernorm;           // [H]
  Linear q_proj, k_proj, v_proj;        // [N D, H], [K D, H], [K D, H]: views of qkv
  at::Tensor q_norm, k_norm;            // [D], undefined without qk_norm
  Linear o_proj;                        // [H, N D]
  at::Tensor post_attention_layernorm;  // [H]
  Linear gate_proj, up_proj;            // [F, H] each: views of gate_up
  Linear down_proj;                     // [H, F]
  at::Tensor qkv, qkv_bias;             // [(N + 2 K) D, H], [(N + 2 K) D]
  at::Tensor gate_up;                   // [2 F, H]
};

// Not copyable; not thread-safe: one thread owns it and every tensor in it.
class Parameters {
 public:
  // Allocates every tensor, uninitialised (load_weights or init_random fill them). `dtype`: kFloat
  // or kBFloat16. Throws Error{kInvalidInput} for a GPU that is not there.
  Parameters(const ModelConfig& config, at::ScalarType dtype, at::Device device = at::kCPU);
  Parameters(const Parameters&) = delete;
  Parameters& operator=(const Parameters&) = delete;

  const ModelConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  const at::Tensor& embed_tokens() const { return embed_tokens_; }  // [V, H]
  const std::vector<LayerParameters>& layers() const { return layers_; }
  const at::Tensor& norm() const { return norm_; }    // [H]
  const Linear& lm_head() const { return lm_head_; }  // [V, H]; embed_tokens() when tied

  // Every tensor of the checkpoint under its name there; a tied head is not listed, adapters are
  // not. They share storage with this object: writing into them changes it.
  std::vector<NamedTensor> named() const;
  // The linear layers by their checkpoint name without ".weight", "lm_head" last when it is not
  // tied: what an adapter can be put on.
  struct NamedLinear {
    std::string name;
    Linear* linear;
  };
  std::vector<NamedLinear> linears();

  // Normal values of deviation `scale`; norms 1.
  void init_random(uint64_t seed, double scale = 0.02);

  // Adapters by name, at most one of them active. A new one is active at once. REQUIRES: the name
  // is not taken, the shapes fit.
  void add_adapter(const std::string& name, Adapter adapter);
  void activate(const std::string& name);                 // "": none. REQUIRES: such an adapter
  const std::string& active() const { return active_; }   // "": none
  const Adapter* adapter(const std::string& name) const;  // null: there is none
  // weight += scaling B A of the active adapter (computed in fp32, rounded once), which is then
  // removed. REQUIRES: an active adapter.
  void merge_active();

 private:
  ModelConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  at::Tensor embed_tokens_, norm_;
  std::vector<LayerParameters> layers_;
  Linear lm_head_;
  std::map<std::string, Adapter> adapters_;
  std::string active_;
};

// Throws Error{kInvalidInput} for a GPU that is not there.
void check_device(at::Device device);

// bf16 on a GPU and on CPUs that multiply bf16 (AVX-512 BF16), else fp32.
at::ScalarType usual_dtype(at::Device device);
// In which a network computes as tensors of `dtype` (kFloat or kBFloat16) do.
Precision precision_of(at::ScalarType dtype);

}  // namespace erank::model
