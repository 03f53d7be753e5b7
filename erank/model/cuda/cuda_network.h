// The network by libtorch's operations and, on GPUs, kernels of our own: for GPUs, and on the CPU
// the reference that the tests compare model/cpu with.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "erank/model/cuda/matrix.h"
#include "erank/model/cuda/operations.h"
#include "erank/model/network.h"
#include "erank/model/rotary.h"

namespace erank::model::cuda {

// What a pass of so many tokens takes beside weights and cache on a GPU, roughly.
int64_t pass_bytes(const ModelConfig& config, int64_t tokens, Precision precision);
// What a cache may take of a GPU's free memory, so that passes of `pass_bytes` have room beside it.
int64_t cache_share(int64_t free_bytes, int64_t pass_bytes);

// That this libtorch can use.
int64_t count_gpus();
// Throws Error{kInvalidInput} unless `count` GPUs have one of this number.
void check_gpu(int64_t number, int64_t count);

class CudaNetwork : public Network {
 public:
  // With kInt8 and kGguf activations are bf16; with kInt8 embedding and head too. Loads the
  // weights. `kernels`: in place of the build's own, for tests. Several on different GPUs may
  // compute at the same time, each on its own thread. REQUIRES: check_gpu passes of a GPU.
  CudaNetwork(const WeightSource& source, Precision precision, at::Device device,
              base::ProgressSink* progress = nullptr, const Kernels* kernels = nullptr);

  void load(const WeightSource& source, base::ProgressSink* progress) override;
  int64_t page_bytes() const override;
  std::unique_ptr<KvCache> make_cache(int64_t num_pages) const override;
  void forward(const Batch& batch, KvCache& cache) override;
  void read_rows(int64_t first, std::span<const RowRequest> requests,
                 std::span<RowResult> results) override;
  bool draws() const override { return true; }
  int64_t weight_bytes() const override;
  int64_t usual_pass_tokens() const override { return device_.is_cuda() ? 8192 : 2048; }
  int64_t usual_cache_bytes() const override;

 private:
  struct Layer {
    at::Tensor input_norm, post_norm;  // [H]
    Matrix qkv;                        // [(N + 2 K) D, H]
    at::Tensor q_norm, k_norm;         // [D] or undefined
    Matrix o;                          // [H, N D]
    Matrix gate_up;                    // [2 F, H]
    Matrix down;                       // [H, F]
  };
  // What all layers of one pass use.
  struct Plan;

  void compute(const Batch& batch, KvCache& cache);
  void read(int64_t first, std::span<const RowRequest> requests, std::span<RowResult> results);
  void reach_position(int64_t position);
  // qkv [T, (N + 2 K) D] -> [T, N D].
  at::Tensor attend(const at::Tensor& qkv, int64_t layer_idx, const Batch& batch, const Plan& plan,
                    KvCache& cache) const;

  at::ScalarType dtype_;
  at::Device device_;
  Operations operations_;
  bool flash_ = false;       // attention by FlashAttention
  Matrix embedding_, head_;  // [V, H]; the same tensors when tied
  at::Tensor final_norm_;    // [H]
  std::vector<Layer> layers_;
  RotaryTable rotary_;
  at::Tensor angles_;  // [positions so far, D] fp32: D / 2 cosines, D / 2 sines
  at::Tensor hidden_;  // [R, H] of the last pass
};

}  // namespace erank::model::cuda
