#include "erank/model/cpu/team.h"

#include <sched.h>

#include <thread>
#include <vector>

#include "erank/base/error.h"
#include "erank/model/cpu/kernels.h"

namespace erank::model::cpu {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `value` is no longer `old`: some microseconds without giving the processor away, some
// more letting others run, then asleep.
void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  constexpr int kSpins = 200, kYields = 100;
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  for (int i = 0; i < kYields; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    ::sched_yield();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

struct Team::State {
  alignas(64) std::atomic<uint32_t> round{0};  // of run()
  alignas(64) std::atomic<uint32_t> phase{0};  // of barrier()
  alignas(64) std::atomic<int> arrived{0};
  const std::function<void(int)>* body = nullptr;
  bool stopping = false;
  std::vector<std::thread> threads;
};

Team::Team(int num_threads) : size_(num_threads), state_(std::make_unique<State>()) {
  ERANK_CHECK(num_threads >= 1);
  for (int member = 1; member < size_; ++member)
    state_->threads.emplace_back([this, member] {
      State& s = *state_;
      for (uint32_t seen = 0;;) {
        wait_for_change(s.round, seen);
        seen = s.round.load(std::memory_order_acquire);
        if (s.stopping) return;
        (*s.body)(member);
        kernels().release();
        barrier();
      }
    });
}

Team::~Team() {
  state_->stopping = true;
  state_->round.fetch_add(1, std::memory_order_release);
  state_->round.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void Team::run(const std::function<void(int)>& body) {
  State& s = *state_;
  s.body = &body;
  s.round.fetch_add(1, std::memory_order_release);
  s.round.notify_all();
  body(0);
  kernels().release();
  barrier();
}

void Team::barrier() {
  if (size_ == 1) return;
  State& s = *state_;
  const uint32_t phase = s.phase.load(std::memory_order_acquire);
  if (s.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    s.arrived.store(0, std::memory_order_relaxed);
    s.phase.store(phase + 1, std::memory_order_release);
    s.phase.notify_all();
  } else {
    wait_for_change(s.phase, phase);
  }
}

}  // namespace erank::model::cpu
