#include "erank/retrieve/posting_runs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <queue>
#include <utility>

#include "erank/base/error.h"

namespace erank::retrieve {
namespace {

using base::ErrorKind;
using base::fail;

constexpr const char* kWhere = "build_index";
constexpr size_t kBufferBytes = size_t{1} << 18;

struct ListHead {
  uint64_t list_bytes;
  uint32_t term_bytes;
};

void put_variable(std::string& out, uint32_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

uint32_t get_variable(const char*& at) {
  uint32_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(*at++);
    value |= uint32_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

// The terms of a run from first to last.
class RunReader {
 public:
  explicit RunReader(const Run& run) : run_(&run) { next(); }

  bool is_done() const { return done_; }
  const std::string& term() const { return term_; }
  const std::string& list() const { return list_; }

  void next() {
    ListHead head{};
    done_ = take(&head, sizeof head) == 0;
    if (done_) return;
    term_.resize(head.term_bytes);
    list_.resize(head.list_bytes);
    take(term_.data(), term_.size());
    take(list_.data(), list_.size());
  }

 private:
  size_t take(void* out, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
      if (at_ == buffer_.size()) {
        buffer_.resize(kBufferBytes);
        buffer_.resize(run_->read(offset_, buffer_.data(), kBufferBytes));
        offset_ += buffer_.size();
        at_ = 0;
        if (buffer_.empty()) break;
      }
      const size_t n = std::min(bytes - done, buffer_.size() - at_);
      std::memcpy(static_cast<char*>(out) + done, buffer_.data() + at_, n);
      done += n;
      at_ += n;
    }
    return done;
  }

  const Run* run_;
  std::string term_, list_, buffer_;
  uint64_t offset_ = 0;
  size_t at_ = 0;
  bool done_ = false;
};

}  // namespace

Run::Run(const std::string& folder) : folder_(folder) {
  fd_ = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd_ >= 0) return;
  std::string name = folder + "/.erank-index-XXXXXX";
  fd_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd_ < 0)
    fail(ErrorKind::kExhausted, kWhere, folder,
         ": cannot hold postings here: ", std::strerror(errno));
  ::unlink(name.c_str());
}

Run::~Run() {
  if (fd_ >= 0) ::close(fd_);
}

Run::Run(Run&& other) noexcept
    : folder_(std::move(other.folder_)),
      bytes_(std::move(other.bytes_)),
      fd_(std::exchange(other.fd_, -1)) {}

void Run::append(std::string_view bytes) {
  if (fd_ < 0) {
    bytes_ += bytes;
    return;
  }
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail(ErrorKind::kExhausted, kWhere, folder_,
           ": cannot hold postings here: ", std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

size_t Run::read(uint64_t offset, char* out, size_t bytes) const {
  if (fd_ < 0) {
    const size_t n = std::min<size_t>(bytes, bytes_.size() - offset);
    std::memcpy(out, bytes_.data() + offset, n);
    return n;
  }
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::pread(fd_, out + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail(ErrorKind::kExhausted, kWhere, folder_,
           ": cannot read back postings: ", std::strerror(errno));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

void PostingTable::flush(List& list) {
  put_variable(list.packed, list.document - list.written);
  put_variable(list.packed, list.count);
  list.written = list.document;
}

void PostingTable::add(std::string_view term, uint32_t document) {
  constexpr size_t kNodeBytes = sizeof(std::string) + sizeof(List) + 40;
  auto it = lists_.find(term);
  if (it == lists_.end()) {
    it = lists_.try_emplace(std::string(term)).first;
    bytes_ += kNodeBytes + (term.size() > 15 ? term.size() : 0);
  }
  List& list = it->second;
  if (list.count > 0 && list.document == document) {
    ++list.count;
    return;
  }
  if (list.count > 0) {
    const size_t before = list.packed.capacity();
    flush(list);
    bytes_ += list.packed.capacity() - before;
  }
  list.document = document;
  list.count = 1;
}

void PostingTable::move_to(Run& run) {
  std::vector<std::pair<const std::string, List>*> sorted;
  sorted.reserve(lists_.size());
  for (auto& entry : lists_) sorted.push_back(&entry);
  std::ranges::sort(sorted, {},
                    [](const auto* entry) -> const std::string& { return entry->first; });
  std::string buffer;
  for (auto* entry : sorted) {
    flush(entry->second);
    const ListHead head{entry->second.packed.size(), static_cast<uint32_t>(entry->first.size())};
    buffer.append(reinterpret_cast<const char*>(&head), sizeof head);
    buffer += entry->first;
    buffer += entry->second.packed;
    if (buffer.size() < kBufferBytes) continue;
    run.append(buffer);
    buffer.clear();
  }
  run.append(buffer);
  lists_.clear();
  bytes_ = 0;
}

void merge_runs(
    const std::vector<Run>& runs,
    const std::function<bool(std::string_view term, std::vector<Posting>& postings)>& take) {
  std::vector<RunReader> readers(runs.begin(), runs.end());
  const auto is_later = [&](size_t a, size_t b) { return readers[a].term() > readers[b].term(); };
  std::priority_queue<size_t, std::vector<size_t>, decltype(is_later)> queue(is_later);
  for (size_t i = 0; i < readers.size(); ++i)
    if (!readers[i].is_done()) queue.push(i);
  std::string term;
  std::vector<Posting> postings;
  while (!queue.empty()) {
    term = readers[queue.top()].term();
    postings.clear();
    while (!queue.empty() && readers[queue.top()].term() == term) {
      const size_t i = queue.top();
      queue.pop();
      const std::string& list = readers[i].list();
      uint32_t document = 0;
      for (const char* at = list.data(); at < list.data() + list.size();) {
        document += get_variable(at);
        const uint32_t count = get_variable(at);
        postings.push_back({document, count});
      }
      readers[i].next();
      if (!readers[i].is_done()) queue.push(i);
    }
    if (!take(term, postings)) return;
  }
}

}  // namespace erank::retrieve
