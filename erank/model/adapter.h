// A LoRA adapter (arXiv 2106.09685) as tensors: y += scaling * (x A^T) B^T on some linear layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace erank::model {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

struct LoraConfig {
  int64_t rank = 16;
  double alpha = 32;  // scaling = alpha / rank (alpha / sqrt(rank) with use_rslora)
  double dropout = 0;
  bool use_rslora = false;
  // Last parts of the layer names; empty: every linear layer but the head.
  std::vector<std::string> target_modules;

  double scaling() const;
};

struct Lora {
  at::Tensor a;  // [rank, in] fp32
  at::Tensor b;  // [out, rank] fp32
  double scaling = 0;
  double dropout = 0;  // probability on x, in training only
};

// Copies share the tensors' storage.
struct Adapter {
  struct Layer {
    std::string name;  // the checkpoint's, without ".weight": "model.layers.0.mlp.up_proj"
    Lora lora;
  };
  LoraConfig config;
  std::vector<Layer> layers;  // in the order of linear_layers()

  const Lora* find(const std::string& layer) const;  // null: this layer has none
  // The tensors under PEFT's names ("base_model.model.<layer>.lora_A.weight"), A before B: what an
  // optimiser trains.
  std::vector<NamedTensor> named() const;
};

}  // namespace erank::model
