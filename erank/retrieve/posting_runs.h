// Postings of many documents sorted by term, in memory or in a file, and their merge (inside the
// room only).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "erank/retrieve/posting_blocks.h"

namespace erank::retrieve {

// Bytes in memory, or in a file without a name, which is gone with its last descriptor, however the
// process ends.
class Run {
 public:
  Run() = default;
  explicit Run(const std::string& folder);  // throws Error{kExhausted} when it takes no file
  ~Run();
  Run(Run&& other) noexcept;
  Run& operator=(Run&&) = delete;

  void append(std::string_view bytes);                          // throws Error{kExhausted}
  size_t read(uint64_t offset, char* out, size_t bytes) const;  // fewer bytes at the end

 private:
  std::string folder_, bytes_;
  int fd_ = -1;
};

// The postings of one thread's documents, which come in ascending order.
class PostingTable {
 public:
  // Counts one occurrence of `term` in `document`.
  void add(std::string_view term, uint32_t document);
  size_t bytes() const { return bytes_; }  // an estimate of the memory in use

  // Appends the terms, in byte order, with their postings to `run`, and forgets them.
  void move_to(Run& run);

 private:
  struct List {
    std::string packed;                // variable bytes: document - the one before, count
    uint32_t written = 0;              // the last document in `packed`
    uint32_t document = 0, count = 0;  // not yet in it
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  static void flush(List& list);
  std::unordered_map<std::string, List, Hash, std::equal_to<>> lists_;
  size_t bytes_ = 0;
};

// Calls `take` with each term of all runs, in byte order, and its postings in all of them, those of
// a run in ascending order. Stops when `take` returns false.
void merge_runs(
    const std::vector<Run>& runs,
    const std::function<bool(std::string_view term, std::vector<Posting>& postings)>& take);

}  // namespace erank::retrieve
