// The kernels of kernels.h and what each is launched with; a launch itself is the includer's:
// `launch(kernel, grid, threads, args)`. kernels.cu compiles this for GPUs, a test as C++ under an
// emulation of the names of CUDA that are used here.
#pragma once

#include <initializer_list>

#include "erank/model/cuda/block_values.cuh"
#include "erank/model/cuda/kernels.h"

namespace erank::model::cuda {

constexpr int kWarp = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T>
__device__ T rounded(float x);
template <>
__device__ inline float rounded<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 rounded<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// What is read or written at once, 16 bytes by one instruction.
template <typename T, int size>
struct alignas(sizeof(T) * size < 16 ? sizeof(T) * size : 16) Pack {
  using Element = T;
  static constexpr int kSize = size;

  T at[size];

  __device__ float squares() const {
    float sum = 0;
    for (int j = 0; j < size; ++j) sum += to_float(at[j]) * to_float(at[j]);
    return sum;
  }
};

// Of every group of `lanes` threads, a power of two, in each of them. The whole warp calls it.
__device__ inline float sum_of_lanes(float x, int lanes) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

// Of the block's threads, whole warps; called once in a kernel.
__device__ inline float sum_of_block(float x) {
  __shared__ float sums[kWarp];
  const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  x = sum_of_lanes(x, kWarp);
  if (lane == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  return sum_of_lanes(lane < warps ? sums[lane] : 0.0f, kWarp);
}

// A block a row.
template <typename P>
__global__ void __launch_bounds__(1024) add_norm_kernel(const AddNorm args) {
  using T = typename P::Element;
  const int64_t packs = args.width / P::kSize, first = blockIdx.x * packs;
  P* const x = static_cast<P*>(args.x) + first;
  const auto* const weight = static_cast<const P*>(args.weight);
  float squares = 0;
  for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
    P sum = x[i];
    if (args.added) {
      const P added = static_cast<const P*>(args.added)[first + i];
      for (int j = 0; j < P::kSize; ++j)
        sum.at[j] = rounded<T>(to_float(sum.at[j]) + to_float(added.at[j]));
      x[i] = sum;
    }
    squares += sum.squares();
  }
  const float scale = rsqrtf(sum_of_block(squares) / args.width + args.eps);
  for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
    const P in = x[i], w = weight[i];
    P out;
    for (int j = 0; j < P::kSize; ++j)
      out.at[j] = rounded<T>(to_float(in.at[j]) * scale * to_float(w.at[j]));
    static_cast<P*>(args.out)[first + i] = out;
  }
}

// A thread a pack; blockIdx.x is the row.
template <typename P>
__global__ void silu_product_kernel(const SiluProduct args) {
  using T = typename P::Element;
  const int64_t packs = args.width / P::kSize, row = blockIdx.x;
  const int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const auto* const gate_up = static_cast<const P*>(args.gate_up) + row * 2 * packs;
  const P gate = gate_up[i], up = gate_up[packs + i];
  P out;
  for (int j = 0; j < P::kSize; ++j) {
    const float x = to_float(gate.at[j]);
    const T silu = rounded<T>(x / (1.0f + expf(-x)));
    out.at[j] = rounded<T>(to_float(silu) * to_float(up.at[j]));
  }
  static_cast<P*>(args.out)[row * packs + i] = out;
}

// Threads of a head, which has `pairs` packs in each half: a power of two within a warp.
__host__ __device__ inline int lanes_of_head(int pairs) {
  int lanes = 1;
  while (lanes < pairs && lanes < kWarp) lanes *= 2;
  return lanes;
}

// blockIdx.x is the token; a group of lanes a head.
template <typename P>
__global__ void rotate_and_store_kernel(const RotateAndStore args) {
  using T = typename P::Element;
  using Angles = Pack<float, P::kSize>;
  const int n = args.heads, k = args.kv_heads, pairs = args.head_dim / 2 / P::kSize;
  const int lanes = lanes_of_head(pairs), lane = threadIdx.x % lanes;
  const int head = blockIdx.y * (blockDim.x / lanes) + threadIdx.x / lanes;
  const bool idle = head >= n + 2 * k;
  const int64_t token = blockIdx.x;
  const auto* const from =
      static_cast<const P*>(args.qkv) + (token * (n + 2 * k) + head) * 2 * pairs;
  float scale = 1;
  if (args.q_norm) {
    float squares = 0;
    for (int i = lane; i < 2 * pairs && !idle; i += lanes) {
      const P x = from[i];
      squares += x.squares();
    }
    scale = rsqrtf(sum_of_lanes(squares, lanes) / args.head_dim + args.eps);
  }
  if (idle) return;
  if (head >= n + k) {
    P* const to = static_cast<P*>(args.values) + (args.slots[token] * k + head - n - k) * 2 * pairs;
    for (int i = lane; i < 2 * pairs; i += lanes) to[i] = from[i];
    return;
  }
  P* const to = head < n
                    ? static_cast<P*>(args.q) + (token * n + head) * 2 * pairs
                    : static_cast<P*>(args.keys) + (args.slots[token] * k + head - n) * 2 * pairs;
  const auto* const weight = static_cast<const P*>(head < n ? args.q_norm : args.k_norm);
  const auto* const angles =
      reinterpret_cast<const Angles*>(args.angles + args.positions[token] * args.head_dim);
  const auto normed = [&](P x, int i) {
    if (weight) {
      const P w = weight[i];
      for (int j = 0; j < P::kSize; ++j)
        x.at[j] = rounded<T>(to_float(x.at[j]) * scale * to_float(w.at[j]));
    }
    return x;
  };
  for (int i = lane; i < pairs; i += lanes) {
    const P a = normed(from[i], i), b = normed(from[pairs + i], pairs + i);
    const Angles cos = angles[i], sin = angles[pairs + i];
    P low, high;
    for (int j = 0; j < P::kSize; ++j) {
      const float x = to_float(a.at[j]), y = to_float(b.at[j]);
      low.at[j] = rounded<T>(x * cos.at[j] - y * sin.at[j]);
      high.at[j] = rounded<T>(y * cos.at[j] + x * sin.at[j]);
    }
    to[i] = low;
    to[pairs + i] = high;
  }
}

// A thread eight values.
template <typename Eight>
__global__ void unpack_kernel(const Unpack args) {
  constexpr int kThreads = Eight::kValues / 8;  // of a block
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t block = i / kThreads;
  if (block >= args.count) return;
  const Eight values(static_cast<const uint8_t*>(args.blocks) + block * Eight::kBytes,
                     static_cast<int>(i % kThreads) * 8);
  Pack<__nv_bfloat16, 8> out;
  for (int j = 0; j < 8; ++j) out.at[j] = rounded<__nv_bfloat16>(values(j));
  static_cast<Pack<__nv_bfloat16, 8>*>(args.out)[i] = out;
}

// `work` threads, as even blocks of whole warps and of `most` threads at most.
struct Blocks {
  Blocks(int64_t work, int most)
      : count(static_cast<unsigned>((work + most - 1) / most)),
        threads(static_cast<int>(((work + count - 1) / count + kWarp - 1) / kWarp * kWarp)) {}
  unsigned count;
  int threads;
};

// Calls use(Pack<T, size>{}): 16 bytes where rows of `width` elements allow it and every pointer is
// to a multiple of that, else one element.
template <typename Use>
void with_packs(ElementType type, int64_t width, std::initializer_list<const void*> pointers,
                Use use) {
  bool wide = true;
  for (const void* pointer : pointers) wide &= reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  if (type == ElementType::kFp32 && wide && width % 4 == 0)
    use(Pack<float, 4>{});
  else if (type == ElementType::kFp32)
    use(Pack<float, 1>{});
  else if (wide && width % 8 == 0)
    use(Pack<__nv_bfloat16, 8>{});
  else
    use(Pack<__nv_bfloat16, 1>{});
}

template <typename Launch>
void launch_add_norm(const AddNorm& args, Launch launch) {
  if (args.rows == 0) return;
  with_packs(args.type, args.width, {args.x, args.added, args.weight, args.out}, [&](auto pack) {
    using P = decltype(pack);
    const int threads = Blocks(args.width / P::kSize, 1024).threads;
    launch(add_norm_kernel<P>, dim3(args.rows), threads, args);
  });
}

template <typename Launch>
void launch_silu_product(const SiluProduct& args, Launch launch) {
  if (args.rows == 0) return;
  with_packs(args.type, args.width, {args.gate_up, args.out}, [&](auto pack) {
    using P = decltype(pack);
    const Blocks row(args.width / P::kSize, 256);
    launch(silu_product_kernel<P>, dim3(args.rows, row.count), row.threads, args);
  });
}

template <typename Launch>
void launch_rotate_and_store(const RotateAndStore& args, Launch launch) {
  if (args.rows == 0) return;
  with_packs(args.type, args.head_dim / 2,
             {args.qkv, args.q_norm, args.k_norm, args.angles, args.q, args.keys, args.values},
             [&](auto pack) {
               using P = decltype(pack);
               const int lanes = lanes_of_head(args.head_dim / 2 / P::kSize);
               const Blocks token((args.heads + 2 * args.kv_heads) * lanes, 256);
               launch(rotate_and_store_kernel<P>, dim3(args.rows, token.count), token.threads,
                      args);
             });
}

template <typename Launch>
void launch_unpack(const Unpack& args, Launch launch) {
  if (args.count == 0) return;
  const auto run = [&](void (*kernel)(const Unpack), int values) {
    const Blocks threads(args.count * (values / 8), 256);
    launch(kernel, dim3(threads.count), threads.threads, args);
  };
  switch (args.format) {
    case data::DType::kQ4_0:
      return run(unpack_kernel<EightOfNibbles<false, false>>, 32);
    case data::DType::kQ4_1:
      return run(unpack_kernel<EightOfNibbles<false, true>>, 32);
    case data::DType::kQ5_0:
      return run(unpack_kernel<EightOfNibbles<true, false>>, 32);
    case data::DType::kQ5_1:
      return run(unpack_kernel<EightOfNibbles<true, true>>, 32);
    case data::DType::kQ4_K:
      return run(unpack_kernel<EightOfK<false>>, 256);
    case data::DType::kQ5_K:
      return run(unpack_kernel<EightOfK<true>>, 256);
    case data::DType::kQ6_K:
      return run(unpack_kernel<EightOfQ6K>, 256);
    default:
      return run(unpack_kernel<EightOfQ8>, 32);
  }
}

}  // namespace erank::model::cuda
