// LoRA adapters in PEFT's files: adapter_config.json + adapter_model.safetensors.
#pragma once

#include <cstdint>
#include <string>

#include "erank/model/adapter.h"
#include "erank/model/config.h"

namespace erank::model {

// A fresh adapter: A uniform Kaiming (a = sqrt 5) as PEFT does, B zero; fp32, on `device`. Throws
// Error{kInvalidInput} for a target that names no layer of such a model.
Adapter make_adapter(const ModelConfig& model, const LoraConfig& config, uint64_t seed,
                     at::Device device = at::kCPU);

// Reads what can be trained on of a PEFT folder: LoRA on linear layers, as fp32. Throws as
// PeftFolder::open does, and Error{kInvalidInput} naming what is more than that (DoRA, replaced
// tensors, rows of tokens, an adapter of the embedding), which has to be merged first.
Adapter load_adapter(const ModelConfig& model, const std::string& folder,
                     at::Device device = at::kCPU);

// Writes PEFT files; tensors as `dtype` (bf16 for release, fp32 to resume). `base_name` becomes
// base_model_name_or_path. Each file is written atomically. Throws Error{kInvalidInput} naming a
// tensor that is not finite in that type.
void save_adapter(const Adapter& adapter, const std::string& folder, const std::string& base_name,
                  at::ScalarType dtype);

}  // namespace erank::model
