// Files: whole reads, memory maps, and writes that are complete or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace erank::base {

// The whole file. Throws Error{kNotFound} when it cannot be opened, Error{kExhausted} over
// `max_bytes`.
std::string read_file(const std::string& path, size_t max_bytes = size_t{1} << 32);

bool file_exists(const std::string& path);    // a regular file (or a link to one)
bool folder_exists(const std::string& path);  // a folder (or a link to one)

// Writes `path` under a temporary name beside it, syncs, renames: after a crash the old file or the
// new one is there, never a part. Throws Error{kExhausted} when the disk is full.
void write_file_atomic(const std::string& path, std::string_view bytes);

// The same in pieces: write() as often as needed, then commit(). Without commit() nothing remains.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  std::string buffer_;
  void flush();
};

// A read-only map of a whole file. Movable, not copyable; the bytes live as long as the map.
class MappedFile {
 public:
  explicit MappedFile(
      const std::string& path);  // throws Error{kNotFound}; an empty file maps to no bytes
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Gives the pages that lie wholly inside [begin, end) back to the system (they can be read again
  // from disk), so that copying a large file does not hold it in memory twice.
  void release(size_t begin, size_t end) const;

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// $ERANK_CACHE, else $XDG_CACHE_HOME/erank, else $HOME/.cache/erank: where set-up puts downloads.
std::string cache_folder();

// Lower-case hex SHA-256 of a file's bytes (FIPS 180-4). Throws Error{kNotFound}.
std::string sha256_file(const std::string& path);

}  // namespace erank::base
