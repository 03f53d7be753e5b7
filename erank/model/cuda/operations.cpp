#include "erank/model/cuda/operations.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#ifdef ERANK_CUDA_KERNELS
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

#include "erank/base/error.h"
#include "erank/model/cuda/blocks.h"

namespace erank::model::cuda {
namespace {

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return at::rms_norm(x, {x.size(-1)}, weight, eps);
}

// RoPE (half-split) of x [T, heads, D] by cos, sin [T, 1, D / 2], computed in fp32.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor a = x.narrow(2, 0, half).to(at::kFloat),
                   b = x.narrow(2, half, half).to(at::kFloat);
  return at::cat({a * cos - b * sin, b * cos + a * sin}, 2).to(x.scalar_type());
}

// Null for a tensor that is not there. Kernels take for granted that all are contiguous, and of the
// type that they are read as.
void* memory_of(const at::Tensor& x, at::ScalarType type) {
  if (!x.defined()) return nullptr;
  ERANK_CHECK(x.is_contiguous() && x.scalar_type() == type);
  return x.data_ptr();
}

ElementType element_type(at::ScalarType type) {
  ERANK_CHECK(type == at::kFloat || type == at::kBFloat16);
  return type == at::kFloat ? ElementType::kFp32 : ElementType::kBf16;
}

template <typename Args>
void launch(void (*kernel)(const Args&, CUstream_st*), const Args& args, at::Device device) {
#ifdef ERANK_CUDA_KERNELS
  if (device.is_cuda()) {
    kernel(args, c10::cuda::getCurrentCUDAStream(device.index()).stream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
#endif
  kernel(args, nullptr);
}

}  // namespace

at::Tensor Operations::add_norm(at::Tensor& x, const at::Tensor& added,
                                const at::Tensor& weight) const {
  if (!kernels_) {
    if (added.defined()) x.add_(added);
    return norm(x, weight, eps_);
  }
  const at::ScalarType type = x.scalar_type();
  ERANK_CHECK(weight.numel() == x.size(1) && (!added.defined() || added.sizes() == x.sizes()));
  at::Tensor out = at::empty_like(x);
  launch(kernels_->add_norm,
         {.type = element_type(type),
          .x = memory_of(x, type),
          .added = memory_of(added, type),
          .weight = memory_of(weight, type),
          .out = memory_of(out, type),
          .rows = x.size(0),
          .width = x.size(1),
          .eps = static_cast<float>(eps_)},
         x.device());
  return out;
}

at::Tensor Operations::silu_product(const at::Tensor& gate_up) const {
  const int64_t width = gate_up.size(1) / 2;
  if (!kernels_) return at::silu(gate_up.narrow(1, 0, width)) * gate_up.narrow(1, width, width);
  const at::ScalarType type = gate_up.scalar_type();
  at::Tensor out = at::empty({gate_up.size(0), width}, gate_up.options());
  launch(kernels_->silu_product,
         {.type = element_type(type),
          .gate_up = memory_of(gate_up, type),
          .out = memory_of(out, type),
          .rows = gate_up.size(0),
          .width = width},
         gate_up.device());
  return out;
}

at::Tensor Operations::rotate_and_store(const at::Tensor& qkv, Heads heads) const {
  const int64_t t = qkv.size(0), kv = heads.keys.size(1), d = heads.keys.size(2);
  const int64_t n = qkv.size(1) / d - 2 * kv;
  if (!kernels_) {
    at::Tensor q = qkv.narrow(1, 0, n * d).reshape({t, n, d});
    at::Tensor k = qkv.narrow(1, n * d, kv * d).reshape({t, kv, d});
    const at::Tensor v = qkv.narrow(1, (n + kv) * d, kv * d).reshape({t, kv, d});
    if (heads.q_norm.defined()) q = norm(q, heads.q_norm, eps_), k = norm(k, heads.k_norm, eps_);
    const at::Tensor angles = heads.angles.index_select(0, heads.positions).unsqueeze(1);
    const at::Tensor cos = angles.narrow(2, 0, d / 2), sin = angles.narrow(2, d / 2, d / 2);
    heads.keys.index_copy_(0, heads.slots, rotate(k, cos, sin));
    heads.values.index_copy_(0, heads.slots, v);
    return rotate(q, cos, sin);
  }
  const at::ScalarType type = qkv.scalar_type();
  at::Tensor q = at::empty({t, n, d}, qkv.options());
  launch(kernels_->rotate_and_store,
         {.type = element_type(type),
          .qkv = memory_of(qkv, type),
          .q_norm = memory_of(heads.q_norm, type),
          .k_norm = memory_of(heads.k_norm, type),
          .angles = static_cast<const float*>(memory_of(heads.angles, at::kFloat)),
          .positions = static_cast<const int64_t*>(memory_of(heads.positions, at::kLong)),
          .slots = static_cast<const int64_t*>(memory_of(heads.slots, at::kLong)),
          .q = memory_of(q, type),
          .keys = memory_of(heads.keys, type),
          .values = memory_of(heads.values, type),
          .rows = t,
          .heads = static_cast<int32_t>(n),
          .kv_heads = static_cast<int32_t>(kv),
          .head_dim = static_cast<int32_t>(d),
          .eps = static_cast<float>(eps_)},
         qkv.device());
  return q;
}

void Operations::unpack(data::DType format, const at::Tensor& rows, at::Tensor& out) const {
  const auto block_bytes = static_cast<int64_t>(data::dtype_block_bytes(format)),
             block_values = static_cast<int64_t>(data::dtype_block_values(format));
  const int64_t count = rows.numel() / block_bytes;
  ERANK_CHECK(block_values > 1 && rows.numel() == count * block_bytes &&
              out.numel() == count * block_values);
  if (!kernels_) {
    out.copy_(unpack_blocks(format, rows.view({count, block_bytes})).view(out.sizes()));
    return;
  }
  launch(kernels_->unpack,
         {.format = format,
          .blocks = memory_of(rows, at::kByte),
          .out = memory_of(out, at::kBFloat16),
          .count = count},
         rows.device());
}

// They are compiled for compute capability 8.0 and later.
const Kernels* kernels_of(at::Device device) {
#ifdef ERANK_CUDA_KERNELS
  int major = 0;
  if (device.is_cuda() &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                             device.has_index() ? device.index() : 0) == cudaSuccess &&
      major >= 8)
    return &kGpuKernels;
#endif
  return nullptr;
}

}  // namespace erank::model::cuda
