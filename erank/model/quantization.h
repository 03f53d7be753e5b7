// "quantization_config" of config.json: which quantised weights are unpacked when they are loaded.
#pragma once

#include <array>
#include <cstdint>

#include "erank/base/json.h"

namespace erank::model {

// compressed-tensors' int8 with a scale for each output (what `erank model quantize` writes); 8-bit
// floats of type e4m3 as "fp8" (https://huggingface.co/docs/transformers, finegrained_fp8) or as
// compressed-tensors' "float-quantized", with a scale for each tensor, output or block. How
// activations are quantised is not looked at: they are computed unrounded.
bool is_known_quantization(const base::Json& config);

// Outputs and inputs of a weight that share a scale where scales are of blocks: 128 x 128 unless
// the configuration, which may be null, says otherwise.
std::array<int64_t, 2> scale_block(const base::Json& config);

}  // namespace erank::model
