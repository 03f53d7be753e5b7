// A file's bytes, unpacked: what every reader of text in this room begins with.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace erank::data {

constexpr size_t kMaxLineBytes = size_t{1} << 30;

// Plain, gzip or zstd, by the first bytes; "-" is stdin. Of a Parquet file its rows as JSON lines,
// of one with several parts those of all (parquet_lines.h). Zeros after gzip data are passed over,
// as gzip does. Throws Error{kNotFound}, Error{kCorrupt} for damaged data and Error{kInvalidInput}
// for a folder, xz data and UTF-16 or UTF-32 text: a byte order mark of theirs, or one zero byte in
// two (three in four), all at the same places of each character. Of uncompressed JSON lines from a
// pipe or a terminal a line can be taken before the next one is written.
class ByteSource {
 public:
  explicit ByteSource(const std::string& path);
  ~ByteSource();
  ByteSource(ByteSource&&) noexcept;

  // As messages name it: the path, or "stdin".
  const std::string& name() const { return name_; }
  // The first bytes, 256 KiB at most and without a byte order mark; next() gives them too. Of such
  // lines the first one, and what had come with it.
  std::string_view head() const { return head_; }
  // The next bytes, none at the end. They live until the next call.
  std::string_view next();

 private:
  class Raw;
  class Unpacker;
  class Plain;
  class Gzip;
  class Zstd;
  class Parquet;
  std::string name_;
  std::unique_ptr<Raw> raw_;
  std::unique_ptr<Unpacker> unpacker_;
  std::string_view head_;
  bool head_taken_ = false;
};

// Where a record begins in its file.
struct Place {
  std::string_view file;  // ByteSource::name()
  int64_t number = 0;     // of its line, or in a JSON array of the element, from 1
  bool is_element = false;

  std::string str() const;      // "docs.jsonl:3", "docs.json: element 3"
  std::string in_file() const;  // "line 3", "element 3"
};

// As for_each_line of records.h.
void for_each_line(ByteSource& source,
                   const std::function<void(std::string_view line, int64_t number)>& line,
                   size_t max_line_bytes = kMaxLineBytes);

}  // namespace erank::data
