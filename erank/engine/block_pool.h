// The pages that hold nothing. Who else may hold a page: the prefix tree, or one sequence alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "erank/base/error.h"

namespace erank::engine {

// Hands out page numbers 0 .. num_pages - 1: the last returned one first, and one that was never
// taken, the lowest, only when all others are out. So a lightly used cache touches little memory.
// Not thread-safe.
class BlockPool {
 public:
  explicit BlockPool(int64_t num_pages) : is_free_(num_pages, true) {
    free_.reserve(num_pages);
    for (int64_t page = num_pages; page-- > 0;) free_.push_back(static_cast<int32_t>(page));
  }

  // A free page, now the caller's. -1: there is none.
  int32_t take() {
    if (free_.empty()) return -1;
    const int32_t page = free_.back();
    free_.pop_back();
    is_free_[page] = false;
    num_touched_ = std::max<int64_t>(num_touched_, page + 1);
    return page;
  }
  // REQUIRES: the page is not free.
  void give_back(int32_t page) {
    ERANK_CHECK(!is_free_[page], "page ", page);
    is_free_[page] = true;
    free_.push_back(page);
  }

  int64_t num_pages() const { return static_cast<int64_t>(is_free_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  bool is_free(int32_t page) const { return is_free_[page]; }
  int64_t num_touched() const { return num_touched_; }  // pages that were taken at some time
  // Whether take() gives a page that was taken before.
  bool has_touched() const { return !free_.empty() && free_.back() < num_touched_; }

 private:
  std::vector<int32_t> free_;  // a stack
  std::vector<bool> is_free_;  // by page
  int64_t num_touched_ = 0;
};

}  // namespace erank::engine
