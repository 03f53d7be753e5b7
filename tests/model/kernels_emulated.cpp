#include "tests/model/kernels_emulated.h"

#include <c10/util/Half.h>
#include <setjmp.h>
#include <ucontext.h>

#include <bit>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

// What kernels.cuh uses of CUDA.
#define __device__
#define __host__
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)

struct dim3 {
  explicit dim3(int64_t x, int64_t y = 1)
      : x(static_cast<unsigned>(x)), y(static_cast<unsigned>(y)) {}
  unsigned x, y;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
using __half = c10::Half;

namespace {

void require(bool condition) {
  if (!condition) __builtin_trap();
}

struct Index {
  unsigned x = 0, y = 0;
};
Index blockIdx, blockDim, threadIdx;

float __bfloat162float(__nv_bfloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
__nv_bfloat16 __float2bfloat16_rn(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
__half __ushort_as_half(unsigned short bits) { return {bits, __half::from_bits()}; }
float __half2float(__half x) { return x; }
float rsqrtf(float x) { return 1 / std::sqrt(x); }

// A block's threads, each with a stack of its own, of which one runs until it waits.
class Block {
 public:
  static Block& instance() {
    static Block block;
    return block;
  }

  void run(int count, bool backwards, const std::function<void()>& kernel) {
    require(count > 0 && count <= 1024 && count % 32 == 0);
    kernel_ = &kernel;
    while (std::ssize(threads_) < count) threads_.push_back(std::make_unique<Thread>());
    for (int i = 0; i < count; ++i) threads_[i]->state = State::kNew;
    for (;;) {
      for (int i = 0; i < count; ++i) resume(backwards ? count - 1 - i : i);
      if (all(0, count, State::kDone)) return;
      if (all(0, count, State::kAtBarrier)) {
        for (int i = 0; i < count; ++i) threads_[i]->state = State::kReady;
        continue;
      }
      bool went_on = false;
      for (int warp = 0; warp < count; warp += 32)
        if (all(warp, warp + 32, State::kAtShuffle)) exchange(warp), went_on = true;
      require(went_on);
    }
  }

  void barrier() { wait(State::kAtBarrier); }
  float shuffle_xor(float value, int apart) {
    require(apart > 0 && apart < 32);
    Thread& self = *threads_[running_];
    self.given = value, self.apart = apart;
    wait(State::kAtShuffle);
    return self.taken;
  }

 private:
  enum class State { kNew, kReady, kAtBarrier, kAtShuffle, kDone };
  struct Thread {
    State state = State::kNew;
    float given = 0, taken = 0;
    int apart = 0;
    ucontext_t start;
    jmp_buf place;
    char stack[32768];
  };

  bool all(int begin, int end, State state) const {
    for (int i = begin; i < end; ++i)
      if (threads_[i]->state != state) return false;
    return true;
  }
  void exchange(int warp) {
    for (int i = warp; i < warp + 32; ++i) {
      require(threads_[i]->apart == threads_[warp]->apart);
      threads_[i]->taken = threads_[warp + ((i - warp) ^ threads_[i]->apart)]->given;
      threads_[i]->state = State::kReady;
    }
  }
  void resume(int i) {
    Thread& thread = *threads_[i];
    if (thread.state != State::kNew && thread.state != State::kReady) return;
    running_ = i;
    threadIdx.x = static_cast<unsigned>(i);
    if (_setjmp(scheduler_) != 0) return;  // the thread waits or is done
    if (thread.state == State::kReady) _longjmp(thread.place, 1);
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = thread.stack;
    thread.start.uc_stack.ss_size = sizeof(thread.stack);
    makecontext(&thread.start, &Block::start, 0);
    setcontext(&thread.start);
  }
  static void start() {
    Block& block = instance();
    (*block.kernel_)();
    block.threads_[block.running_]->state = State::kDone;
    _longjmp(block.scheduler_, 1);
  }
  void wait(State state) {
    Thread& self = *threads_[running_];
    self.state = state;
    if (_setjmp(self.place) == 0) _longjmp(scheduler_, 1);
  }

  const std::function<void()>* kernel_ = nullptr;
  std::vector<std::unique_ptr<Thread>> threads_;
  int running_ = 0;
  jmp_buf scheduler_;
};

void __syncthreads() { Block::instance().barrier(); }
float __shfl_xor_sync(unsigned mask, float value, int apart) {
  require(mask == 0xffffffff);
  return Block::instance().shuffle_xor(value, apart);
}

}  // namespace

#include "erank/model/cuda/kernels.cuh"

namespace erank::model::cuda::emulated {
namespace {

template <bool backwards>
struct Launch {
  template <typename Args>
  void operator()(void (*kernel)(const Args), dim3 grid, int threads, const Args& args) const {
    require(grid.x > 0 && grid.y > 0 && grid.y < 65536);
    blockDim = {static_cast<unsigned>(threads), 1};
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        Block::instance().run(threads, backwards, [&] { kernel(args); });
  }
};

template <bool backwards>
constexpr Kernels kKernels = {
    [](const AddNorm& args, CUstream_st*) { launch_add_norm(args, Launch<backwards>()); },
    [](const SiluProduct& args, CUstream_st*) { launch_silu_product(args, Launch<backwards>()); },
    [](const RotateAndStore& args, CUstream_st*) {
      launch_rotate_and_store(args, Launch<backwards>());
    },
    [](const Unpack& args, CUstream_st*) { launch_unpack(args, Launch<backwards>()); },
};

}  // namespace

const Kernels kForwards = kKernels<false>, kBackwards = kKernels<true>;

}  // namespace erank::model::cuda::emulated
