// What a PEFT folder (adapter_config.json + adapter_model.safetensors) makes of a model's
// tensors. https://github.com/huggingface/peft, whose names and rules these are.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "erank/model/adapter.h"
#include "erank/model/checkpoint.h"
#include "erank/model/config.h"

namespace erank::model {

// Movable; the entries point into `file`.
struct PeftFolder {
  // Rows of a table, each with its new values.
  struct Rows {
    std::vector<int64_t> ids;
    at::Tensor values;  // [ids, H] fp32
  };

  LoraConfig config;
  // In the order of the checkpoint, the head last: linear layers, "model.embed_tokens" (a: [r, H],
  // b: [V, r]) and "lm_head", also of a tied model.
  std::vector<Adapter::Layer> layers;
  // By the parameter's name: tensors that take its place (modules_to_save, bias).
  std::map<std::string, const Checkpoint::Entry*> replaced;
  std::map<std::string, Rows> rows;  // trainable_token_indices
  // Copies of the base's own tensors, to be compared with them: PEFT stores the table itself beside
  // its adapter.
  std::map<std::string, const Checkpoint::Entry*> copies;
  // Of a tied model: embedding and head are no longer the same.
  bool unties = false;
  Checkpoint file;

  // Throws Error naming a key that changes the maths and is not honoured, a tensor that has no
  // place in such a model, a targeted layer without its tensors, or a wrong shape. A key that we do
  // not know must be null, false or empty: PEFT writes one for each of its features.
  static PeftFolder open(const ModelConfig& model, const std::string& folder);

  // What is more than LoRA on linear layers, for a message; "": nothing.
  std::string beyond_lora() const;
};

// The form of the folder's adapter. Targets are names of layers, those of the file, where the
// configuration has no list of them. Throws as PeftFolder::open does of the configuration.
LoraConfig read_lora_config(const std::string& folder);

}  // namespace erank::model
