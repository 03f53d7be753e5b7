#include "erank/model/cpu/memory.h"

#include <sys/mman.h>

#include <utility>

#include "erank/base/error.h"

namespace erank::model::cpu {

Memory::Memory(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* data = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    base::fail(base::ErrorKind::kExhausted, "memory", "cannot allocate ", bytes, " bytes");
  ::madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  data_ = data;
}

Memory::~Memory() {
  if (data_) ::munmap(data_, static_cast<size_t>(bytes_));
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }
Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace erank::model::cpu
