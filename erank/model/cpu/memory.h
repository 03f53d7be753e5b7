// Large zeroed memory mapped from the system: pages are allocated on first touch, huge pages where
// available.
#pragma once

#include <cstdint>

namespace erank::model::cpu {

// Movable, not copyable.
class Memory {
 public:
  Memory() = default;
  explicit Memory(int64_t bytes);  // throws Error{kExhausted}
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace erank::model::cpu
