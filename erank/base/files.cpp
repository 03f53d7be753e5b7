#include "erank/base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "erank/base/error.h"

namespace erank::base {
namespace {

std::string reason() { return std::strerror(errno); }

// Opens for reading, or throws with what to check.
int open_for_reading(const char* where, const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(ErrorKind::kNotFound, where, path, ": ", reason());
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    ::close(fd);
    fail(ErrorKind::kInvalidInput, where, path, ": is a folder, expected a file");
  }
  return fd;
}

class Sha256 {
 public:
  void update(const uint8_t* data, size_t size) {
    total_ += size;
    while (size > 0) {
      const size_t n = std::min(size, block_.size() - used_);
      std::memcpy(block_.data() + used_, data, n);
      used_ += n, data += n, size -= n;
      if (used_ == block_.size()) compress(), used_ = 0;
    }
  }
  std::string hex() {
    const uint64_t bits = total_ * 8;
    const uint8_t one = 0x80, zero = 0;
    update(&one, 1);
    while (used_ != 56) update(&zero, 1);
    for (int i = 7; i >= 0; --i) {
      const uint8_t byte = static_cast<uint8_t>(bits >> (8 * i));
      update(&byte, 1);
    }
    std::string out;
    for (uint32_t word : state_) {
      char text[9];
      std::snprintf(text, sizeof text, "%08x", word);
      out += text;
    }
    return out;
  }

 private:
  void compress() {
    static constexpr std::array<uint32_t, 64> kRound = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    std::array<uint32_t, 64> w;
    for (int i = 0; i < 16; ++i)
      w[i] = uint32_t{block_[4 * i]} << 24 | uint32_t{block_[4 * i + 1]} << 16 |
             uint32_t{block_[4 * i + 2]} << 8 | block_[4 * i + 3];
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
      const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (int i = 0; i < 64; ++i) {
      const uint32_t t1 = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                          ((e & f) ^ (~e & g)) + kRound[i] + w[i];
      const uint32_t t2 =
          (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t add[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state_[i] += add[i];
  }
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> block_{};
  size_t used_ = 0;
  uint64_t total_ = 0;
};

}  // namespace

namespace {

// What git leaves in place of a large file whose content was not fetched.
bool is_pointer(std::string_view bytes) {
  constexpr size_t kLongest = 1024;  // of the format's document
  return bytes.size() <= kLongest && bytes.starts_with("version https://git-lfs.github.com/spec/");
}

void refuse_pointer(bool pointer, const std::string& path) {
  if (pointer)
    fail(ErrorKind::kCorrupt, "read_file", path,
         ": is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or "
         "fetch the file again");
}

}  // namespace

std::string read_file(const std::string& path, size_t max_bytes) {
  const int fd = open_for_reading("read_file", path);
  std::string out;
  std::array<char, 1 << 16> piece;
  ssize_t n = 0;
  while ((n = ::read(fd, piece.data(), piece.size())) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 || out.size() + static_cast<size_t>(n) > max_bytes) break;
    out.append(piece.data(), static_cast<size_t>(n));
  }
  const std::string why = n < 0 ? reason() : "";
  ::close(fd);
  if (n < 0) fail(ErrorKind::kCorrupt, "read_file", path, ": ", why);
  if (n > 0) fail(ErrorKind::kExhausted, "read_file", path, ": larger than ", max_bytes, " bytes");
  refuse_pointer(is_pointer(out), path);
  return out;
}

bool file_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

bool folder_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open_for_reading("map_file", path);
  struct stat info {};
  ::fstat(fd, &info);
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const std::string why = reason();
    ::close(fd);
    if (data == MAP_FAILED) fail(ErrorKind::kExhausted, "map_file", path, ": ", why);
    const bool pointer = is_pointer({static_cast<const char*>(data), size_});
    if (pointer) ::munmap(data, size_);
    refuse_pointer(pointer, path);
    data_ = static_cast<const uint8_t*>(data);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(size_t begin, size_t end) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  begin = (begin + page - 1) / page * page;
  end = std::min(end, size_) / page * page;
  if (begin < end) ::madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string cache_folder() {
  const auto value = [](const char* name) {
    const char* v = std::getenv(name);
    return std::string(v ? v : "");
  };
  if (const std::string own = value("ERANK_CACHE"); !own.empty()) return own;
  if (const std::string xdg = value("XDG_CACHE_HOME"); !xdg.empty()) return xdg + "/erank";
  const std::string home = value("HOME");
  return home.empty() ? "" : home + "/.cache/erank";
}

std::string sha256_file(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string sha256(std::string_view bytes) {
  Sha256 sum;
  sum.update(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return sum.hex();
}

}  // namespace erank::base
