// GGUF's blocks by libtorch's operations: what the kernel `unpack` of kernels.h computes.
#pragma once

#include <ATen/core/Tensor.h>

#include "erank/data/tensor_info.h"

namespace erank::model::cuda {

// [n, bytes a block] uint8 -> [n, values a block] fp32, bit for bit those of dequantize.h.
// REQUIRES: a block format. Thread-safe.
at::Tensor unpack_blocks(data::DType format, const at::Tensor& blocks);

}  // namespace erank::model::cuda
