// The weights of the CPU network, packed.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/base/progress.h"
#include "erank/model/config.h"
#include "erank/model/cpu/packed_matrix.h"
#include "erank/model/network.h"

namespace erank::model {
class WeightSource;
}

namespace erank::model::cpu {

// A layer's matrices. Widths are padded to multiples of kPanel with zeros, each head on its own
// (D'), so that no kernel has a remainder.
struct CpuLayer {
  std::vector<float> input_norm, post_norm;  // [H']
  PackedMatrix qkv;                          // outputs: N heads of q, K of k, K of v, D' each
  std::vector<float> qkv_bias;               // [(N + 2 K) D'] or empty
  std::vector<float> q_norm, k_norm;         // [D] or empty
  PackedMatrix o;                            // inputs: N heads of D'
  std::vector<float> o_bias;                 // [H'] or empty
  PackedMatrix gate_up;                      // each panel: 16 outputs of gate, the same 16 of up
  PackedMatrix down;                         // inputs: F'
};

// Immutable after load; thread-safe.
class CpuWeights {
 public:
  CpuWeights(const ModelConfig& config, Precision precision);

  void load(const WeightSource& source, int num_threads, base::ProgressSink* progress);
  // Writes the embedding of `token` to x [H'].
  void embed(int32_t token, float* x) const;

  const std::vector<CpuLayer>& layers() const { return layers_; }
  const std::vector<float>& final_norm() const { return final_norm_; }  // [H']
  // Outputs: V. With int8 it is bf16: rankings lose more by it than by any other matrix of its
  // cost.
  const PackedMatrix& head() const { return head_; }
  int64_t bytes() const;

  int64_t hidden() const { return hidden_; }              // H'
  int64_t head_dim() const { return head_dim_; }          // D'
  int64_t feed_forward() const { return feed_forward_; }  // F'

 private:
  // The places of the residual stream that int8 products hold apart.
  std::vector<int32_t> outliers(const WeightSource& source, int num_threads) const;

  ModelConfig config_;
  Precision precision_;
  int64_t hidden_, head_dim_, feed_forward_;
  std::vector<CpuLayer> layers_;
  std::vector<float> final_norm_;
  PackedMatrix head_;
  Memory embedding_;  // [V, H] bf16 or float; empty when it is tied to the head
};

}  // namespace erank::model::cpu
