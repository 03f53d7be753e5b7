// LoRA adapters in PEFT's files: adapter_config.json + adapter_model.safetensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/model/decoder.h"

namespace erank::model {

struct LoraConfig {
  int64_t rank = 16;
  double alpha = 32;  // scaling = alpha / rank (alpha / sqrt(rank) with use_rslora)
  double dropout = 0;
  bool use_rslora = false;
  // Last parts of the layer names; empty: every linear layer but the head.
  std::vector<std::string> target_modules;

  double scaling() const;
};

// Puts fresh adapters on the targeted layers: A uniform Kaiming (a = sqrt 5) as PEFT does, B zero;
// fp32. Throws Error{kInvalidInput} for a target that names no layer. REQUIRES: no adapters yet.
void add_lora(Decoder& decoder, const LoraConfig& config, uint64_t seed);

// Reads a PEFT folder onto `decoder`, as fp32. Throws Error naming a key that changes the maths and
// is not honoured (dora, rank_pattern, modules_to_save, bias, ...), a tensor for a layer that is
// not there, a targeted layer without its tensors, or a wrong shape; then the decoder is as it was.
// A key that we do not know must be null, false or empty: PEFT writes one for each of its features.
// REQUIRES: no adapters yet.
LoraConfig load_lora(Decoder& decoder, const std::string& folder);
// What load_lora would return, without the tensors.
LoraConfig read_lora_config(const std::string& folder);

// Writes the adapters that are on `decoder` as PEFT files; tensors as `dtype` (bf16 for release,
// fp32 to resume). `base_name` becomes base_model_name_or_path. Each file is written atomically.
void save_lora(Decoder& decoder, const LoraConfig& config, const std::string& folder,
               const std::string& base_name, at::ScalarType dtype);

// weight += scaling B A (computed in fp32, rounded once), then the adapters are gone.
void merge_lora(Decoder& decoder);

// The adapters' tensors under PEFT's names ("base_model.model.<layer>.lora_A.weight"), A before B,
// in the order of Decoder::linears(): what an optimiser trains.
std::vector<NamedParameter> lora_parameters(Decoder& decoder);

}  // namespace erank::model
