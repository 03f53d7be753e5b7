// How the CPU network lays out a model's weights, known before any of them is read.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "erank/data/tensor_info.h"
#include "erank/model/config.h"
#include "erank/model/cpu/packed_matrix.h"
#include "erank/model/network.h"

namespace erank::model {
class WeightSource;
}

namespace erank::model::cpu {

struct PlannedMatrix {
  struct Part {
    std::string name;                        // the tensor's
    std::function<int64_t(int64_t)> column;  // of the matrix that a row of the tensor fills
  };
  MatrixPlan plan;
  std::vector<Part> parts;
};

// Widths are padded to multiples of kPanel with zeros, each head on its own (D'), so that no kernel
// has a remainder. With kGguf a matrix is kept in blocks when one of its tensors is; what is not in
// blocks there, and what an adapter changes, is kept as `products` has it.
struct CpuPlan {
  // `outliers`: num_outliers() places of the residual stream that int8 products hold apart.
  CpuPlan(const WeightSource& source, Precision precision, std::vector<int32_t> outliers);

  Precision products;                      // of the matrix products: kFp32, kBf16 or kInt8
  int64_t hidden, head_dim, feed_forward;  // H', D', F'
  struct Layer {
    PlannedMatrix qkv;      // outputs: N heads of q, K of k, K of v, D' each
    PlannedMatrix o;        // inputs: N heads of D'
    PlannedMatrix gate_up;  // each panel: 16 outputs of gate, the same 16 of up
    PlannedMatrix down;     // inputs: F'
  };
  std::vector<Layer> layers;
  // Outputs: V. With int8 it is bf16: rankings lose more by it than by any other matrix of its
  // cost.
  PlannedMatrix head;
  std::vector<data::DType> embedding;  // formats of its StoredRows; empty when it is the head
  int64_t embedding_width;             // H
  int64_t vector_bytes;                // of norms and biases

  bool has_blocks() const;  // whether anything is kept in GGUF's blocks
  int64_t bytes() const;    // what CpuWeights::bytes() will be
};

int64_t num_outliers(const ModelConfig& config, Precision precision);

}  // namespace erank::model::cpu
