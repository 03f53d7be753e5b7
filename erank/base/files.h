// Files: whole reads, memory maps, and writes that are complete or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace erank::base {

// The whole file. Throws Error{kNotFound} when it cannot be opened, Error{kExhausted} over
// `max_bytes`.
std::string read_file(const std::string& path, size_t max_bytes = size_t{1} << 32);

bool file_exists(const std::string& path);    // a regular file (or a link to one)
bool folder_exists(const std::string& path);  // a folder (or a link to one)

// Whether both names lead to one regular file or block device: writing to one changes the other.
bool is_same_file(const std::string& a, const std::string& b);

// What a name that is to be written leads to.
struct OutputTarget {
  enum Kind {
    kNew,   // nothing yet; its folder is there
    kFile,  // a regular file
    kFolder,
    kStream,  // a FIFO, a device, a socket, or a descriptor of this process (/dev/stdout,
              // /dev/fd/N)
  };
  Kind kind = kNew;
  std::string path;     // the name at the end of all links
  int descriptor = -1;  // kStream: of this process, when the name is one of its own
};

// "-" is stdout. Throws Error{kNotFound} when the folder is missing, Error{kInvalidInput} for links
// in a circle and for what may not be looked at.
OutputTarget output_target(const std::string& path);

// Keeps other processes, and other objects of this one, from writing the same name for as long as
// it lives: a lock on a small file beside it, which says who holds it and is removed at the end.
// What a killed process left is taken over. Where the file system has no locks, or lets nobody make
// that file, it does nothing.
class WriteLock {
 public:
  // Throws Error{kInvalidInput}, which says who writes `path`, while another one holds it. `path`
  // is a name at the end of all links; of a folder, that of any file in it.
  explicit WriteLock(const std::string& path);
  ~WriteLock();
  WriteLock(WriteLock&& other) noexcept;
  WriteLock& operator=(WriteLock&&) = delete;

 private:
  std::string name_;
  int fd_ = -1;
};

// Writes a name in pieces: write() as often as needed, then commit().
// A regular file or a new name is complete or absent: the bytes go into a file without a name
// (where the file system has none: under a name of ours beside it, see docs/formats.md), which is
// synced and gets the name in commit(). Without commit(), or when it throws, what was there before
// stays. Links are followed, a replaced file's mode and, where allowed, owner are kept. A stream is
// written into as it is; what was written stays written.
class OutputFile {
 public:
  enum class Existing {
    kReplace,
    kKeep,  // a regular file of that name is an Error{kInvalidInput}, also one that came meanwhile
  };
  // Throws Error{kInvalidInput} for a folder, where nobody may write, and for what another process
  // is writing. Opening a FIFO waits for
  // its reader, until `stop` is true.
  explicit OutputFile(const std::string& path, Existing existing = Existing::kReplace,
                      const std::function<bool()>& stop = {});
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  bool is_stream() const { return target_.kind == OutputTarget::kStream; }
  // These throw Error{kExhausted}: the disk is full, a stream's reader is gone.
  void write(std::string_view bytes);
  void flush();  // a stream's reader sees all that was written; of a file nobody sees anything yet
  void commit();

 private:
  std::string path_;  // as it was given
  OutputTarget target_;
  Existing existing_;
  std::optional<WriteLock> lock_;
  std::string temporary_;  // "": the file has no name
  int fd_ = -1;
  std::string buffer_;
  void open_stream(const std::function<bool()>& stop);
  void open_beside();
  void put(std::string_view bytes);
  void keep_mode() const;
  bool give_name();
};

// All of it at once, by OutputFile.
void write_file_atomic(const std::string& path, std::string_view bytes);

// Removes the regular files of these names in `folder` in their order, with what an interrupted
// OutputFile left of them, and then the folder, if nothing else is in it. What has another name
// stays; so does everything where `folder` is a link or no folder.
void remove_files_of(const std::string& folder, std::span<const char* const> names);

// A read-only map of a whole file. Movable, not copyable; the bytes live as long as the map.
class MappedFile {
 public:
  explicit MappedFile(
      const std::string& path);  // throws as read_file does; an empty file maps to no bytes
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Gives the pages wholly inside [begin, end) back to the system (they can be read again
  // from disk), so that copying a large file does not hold it in memory twice.
  void release(size_t begin, size_t end) const;

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// $ERANK_CACHE, else $XDG_CACHE_HOME/erank, else $HOME/.cache/erank, else "": set-up's downloads.
std::string cache_folder();

// Lower-case hex SHA-256 (FIPS 180-4), of a file's bytes. Throws Error{kNotFound}.
std::string sha256_file(const std::string& path);
// The same of bytes in memory.
std::string sha256(std::string_view bytes);

}  // namespace erank::base
