// Large zeroed memory mapped from the system: pages are allocated on first touch, huge pages where
// available.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

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

// Of arrays whose rows begin with cache lines: a tile of rows across two is loaded at half the
// speed.
template <typename T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U>&) noexcept {}  // NOLINT: allocators convert
  T* allocate(size_t n) {
    return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* p, size_t) noexcept { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const LineAllocator&) const = default;
};
template <typename T>
using LineVector = std::vector<T, LineAllocator<T>>;

}  // namespace erank::model::cpu
