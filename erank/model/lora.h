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

// Reads a PEFT folder, as fp32. Throws Error naming a key that changes the maths and is not
// honoured (dora, rank_pattern, modules_to_save, bias, ...), a tensor for a layer that is not
// there, a targeted layer without its tensors, or a wrong shape. A key that we do not know must be
// null, false or empty: PEFT writes one for each of its features.
Adapter load_adapter(const ModelConfig& model, const std::string& folder,
                     at::Device device = at::kCPU);
// What load_adapter would return as config, without the tensors.
LoraConfig read_lora_config(const std::string& folder);

// Writes PEFT files; tensors as `dtype` (bf16 for release, fp32 to resume). `base_name` becomes
// base_model_name_or_path. Each file is written atomically. Throws Error{kInvalidInput} naming a
// tensor that is not finite in that type.
void save_adapter(const Adapter& adapter, const std::string& folder, const std::string& base_name,
                  at::ScalarType dtype);

}  // namespace erank::model
