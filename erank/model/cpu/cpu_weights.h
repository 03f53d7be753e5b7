// The weights of the CPU network, packed.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/base/progress.h"
#include "erank/model/config.h"
#include "erank/model/cpu/packed_matrix.h"
#include "erank/model/cpu/stored_rows.h"
#include "erank/model/network.h"

namespace erank::model {
class WeightSource;
}

namespace erank::model::cpu {

// A layer's matrices, laid out as CpuPlan says.
struct CpuLayer {
  std::vector<float> input_norm, post_norm;  // [H']
  PackedMatrix qkv;
  std::vector<float> qkv_bias;        // [(N + 2 K) D'] or empty
  std::vector<float> q_norm, k_norm;  // [D] or empty
  PackedMatrix o;
  std::vector<float> o_bias;  // [H'] or empty
  PackedMatrix gate_up, down;
};

// Immutable after load; thread-safe.
class CpuWeights {
 public:
  CpuWeights(const ModelConfig& config, Precision precision);

  // Gives what it held back before it takes memory, and holds no tensor twice.
  void load(const WeightSource& source, int num_threads, base::ProgressSink* progress);
  // Writes the embedding of `token` to x [H'].
  void embed(int32_t token, float* x) const;

  const std::vector<CpuLayer>& layers() const { return layers_; }
  const std::vector<float>& final_norm() const { return final_norm_; }  // [H']
  const PackedMatrix& head() const { return head_; }
  int64_t bytes() const;

  int64_t hidden() const { return hidden_; }              // H'
  int64_t head_dim() const { return head_dim_; }          // D'
  int64_t feed_forward() const { return feed_forward_; }  // F'

 private:
  std::vector<int32_t> outliers(const WeightSource& source, int num_threads) const;

  ModelConfig config_;
  Precision precision_;
  int64_t hidden_, head_dim_, feed_forward_;
  std::vector<CpuLayer> layers_;
  std::vector<float> final_norm_;
  PackedMatrix head_;
  StoredRows embedding_;  // [V, H], empty when it is tied to the head
};

}  // namespace erank::model::cpu
