// The kernels of serving as operations on tensors, on the threads of at::parallel_for. CPU tensors
// only, contiguous, fp32 or bf16, no gradients. Each equals its plain composition of ATen
// operations (tests/model/kernels_test.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include "erank/model/decoder.h"

namespace erank::model::kernels {

// x [T, in], weight [out, in], bias [out] or undefined -> [T, out] in x's dtype, or fp32. The order
// of additions of an output does not depend on T. Reads every weight once for each 4 rows: for few
// rows, or exact repeatability.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  bool fp32_out = false);

// x [T, H] += delta [T, H] (when defined), in place; returns rms_norm(x) * weight, [T, H].
at::Tensor add_rms_norm(at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                        double eps);

// gate_up [T, 2 F] -> silu(gate) * up, [T, F].
at::Tensor silu_mul(const at::Tensor& gate_up);

// Where a batch's tokens lie in the cache: computed once a batch, used by every layer.
struct CachePlan {
  std::vector<int32_t> slots;  // [T]
};
CachePlan plan_cache(const Batch& batch);

// Norms, rotates and caches one layer's queries, keys and values (qkv [T', (N + 2 K) D], T' >= T; q
// is changed in place), makes the batch's copies, and attends -> [T', N D] (rows behind T are
// zero). REQUIRES: head_dim % 16 == 0, head_dim <= 256.
at::Tensor cached_attention(at::Tensor& qkv, const DecoderLayer& layer, int64_t layer_idx,
                            const Batch& batch, const CachePlan& plan, KvCache& cache,
                            const ModelConfig& config, const at::Tensor& cos,
                            const at::Tensor& sin);

}  // namespace erank::model::kernels
