// A LoRA adapter (arXiv 2106.09685) as tensors: y += scaling * (x A^T) B^T on some linear layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
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
  // Names of layers, or their last parts; empty: every linear layer but the head.
  std::vector<std::string> target_modules;
  // The layers whose rank or alpha is another one.
  std::map<std::string, int64_t> ranks = {};
  std::map<std::string, double> alphas = {};

  // PEFT's rule: a target is a layer's whole name, or its last parts.
  bool targets(const std::string& layer) const;
  int64_t rank_of(const std::string& layer) const;
  double scaling_of(const std::string& layer) const;
};

struct Lora {
  at::Tensor a;  // [rank, in] fp32
  at::Tensor b;  // [out, rank] fp32
  double scaling = 0;
  double dropout = 0;  // probability on x, in training only
  // DoRA (arXiv 2402.09353): each row of W + scaling B A is scaled to this norm; [out] fp32, not
  // defined without it.
  at::Tensor magnitude;
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
