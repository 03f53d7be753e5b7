// A fixed number of threads that run phases of work in step, with barriers between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace erank::model::cpu {

// One thread calls run(); the others are the team's own and live as long as it. Threads that wait
// spin for some microseconds, then let other processes run, then sleep.
class Team {
 public:
  explicit Team(int num_threads);  // REQUIRES: 1 or more
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }
  // Calls body(member) on every member, 0 being the caller, and returns when all have returned and
  // released what kernels keep (Kernels::release). `body` must not throw.
  void run(const std::function<void(int member)>& body);
  // Inside body, by every member: no member continues before all have arrived. Writes made before
  // it are visible to all members after it.
  void barrier();

 private:
  struct State;
  int size_;
  std::unique_ptr<State> state_;
};

// Hands out the indices of a phase's work items in order. Thread-safe.
class Claims {
 public:
  // By one thread, before a barrier that every user passes.
  void reset() { next_.store(0, std::memory_order_relaxed); }
  int64_t take(int64_t count) { return next_.fetch_add(count, std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace erank::model::cpu
