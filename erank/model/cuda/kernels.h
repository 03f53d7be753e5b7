// GPU kernels of our own for what a layer computes besides matrix products and attention. Each is
// one launch; sums and products are in fp32, and rounded to the tensors' type where libtorch's
// operations round (operations.cpp has them). Plain pointers: no libtorch here.
#pragma once

#include <cstdint>

#include "erank/data/tensor_info.h"

struct CUstream_st;  // a pointer to it is a cudaStream_t

namespace erank::model::cuda {

enum class ElementType { kFp32, kBf16 };

// All pointers are to memory of the GPU, every tensor is contiguous and of `type` where nothing
// else is said. Rows whose size and place allow it are read 16 bytes at a time.

// x becomes x + added, rounded. out = rms_norm(x) * weight of the rounded x, rounded once.
struct AddNorm {
  ElementType type;
  void* x;             // [T, H]
  const void* added;   // [T, H], or null: x stays as it is
  const void* weight;  // [H]
  void* out;           // [T, H], apart from x
  int64_t rows, width;
  float eps;
};

// out = silu(gate) * up; silu is rounded before the product, the product again.
struct SiluProduct {
  ElementType type;
  const void* gate_up;  // [T, 2 F]: F of gate, F of up
  void* out;            // [T, F]
  int64_t rows, width;  // T, F
};

// Of each token: q and k are normed by head, where the model does so, and rounded; rotated (RoPE,
// dimension i with i + D / 2) in fp32 without fused multiply-adds, and rounded. v is copied.
struct RotateAndStore {
  ElementType type;
  const void* qkv;              // [T, (N + 2 K) D]
  const void *q_norm, *k_norm;  // [D], or both null
  const float* angles;          // [positions, D]: D / 2 cosines, D / 2 sines
  const int64_t* positions;     // [T]
  const int64_t* slots;         // [T] where a token's key and value go, all different
  void* q;                      // [T, N, D]
  void *keys, *values;          // [slots, K, D]
  int64_t rows;
  int32_t heads, kv_heads, head_dim;  // N, K, D; D is even
  float eps;
};

// Blocks of a GGUF file to bf16: the values of dequantize.h, rounded once.
struct Unpack {
  data::DType format;  // Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K
  const void* blocks;  // at any place
  void* out;           // bf16, at a multiple of 16 bytes
  int64_t count;       // of blocks
};

// Enqueues on the stream of the current device; what went wrong is cudaGetLastError's.
struct Kernels {
  void (*add_norm)(const AddNorm& args, CUstream_st* stream);
  void (*silu_product)(const SiluProduct& args, CUstream_st* stream);
  void (*rotate_and_store)(const RotateAndStore& args, CUstream_st* stream);
  void (*unpack)(const Unpack& args, CUstream_st* stream);
};
extern const Kernels kGpuKernels;  // kernels.cu: in builds with ERANK_CUDA where nvcc is

}  // namespace erank::model::cuda
