#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "erank/base/error.h"
#include "erank/data/records.h"

#ifdef ERANK_WITH_COMPRESSION
#include <zlib.h>
#include <zstd.h>
#endif

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;

constexpr const char* kWhere = "read_lines";
constexpr size_t kPiece = size_t{1} << 18;

// A file's bytes as stored.
class RawSource {
 public:
  explicit RawSource(const std::string& path) : path_(path) {
    if (path == "-") {
      fd_ = STDIN_FILENO;
      return;
    }
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail(ErrorKind::kNotFound, kWhere, path, ": ", std::strerror(errno));
    struct stat info {};
    if (::fstat(fd_, &info) == 0 && S_ISDIR(info.st_mode)) {
      ::close(fd_);
      fail(ErrorKind::kInvalidInput, kWhere, path, ": is a folder, expected a file");
    }
  }
  ~RawSource() {
    if (fd_ != STDIN_FILENO) ::close(fd_);
  }
  RawSource(const RawSource&) = delete;
  RawSource& operator=(const RawSource&) = delete;

  // Fills `out` as far as the file reaches; fewer than `size` bytes mean its end.
  size_t read(char* out, size_t size) {
    size_t done = 0;
    while (done < size) {
      const ssize_t n = ::read(fd_, out + done, size - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(ErrorKind::kCorrupt, kWhere, path_, ": ", std::strerror(errno));
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

 private:
  std::string path_;
  int fd_ = -1;
};

// Bytes in pieces, an empty piece at the end. A piece lives until the next call.
class Source {
 public:
  virtual ~Source() = default;
  virtual std::string_view next() = 0;
};

class PlainSource : public Source {
 public:
  PlainSource(RawSource& raw, std::string head) : raw_(raw), buffer_(std::move(head)) {}
  std::string_view next() override {
    if (first_) {
      first_ = false;
      if (!buffer_.empty()) return buffer_;
    }
    buffer_.resize(kPiece);
    return {buffer_.data(), raw_.read(buffer_.data(), kPiece)};
  }

 private:
  RawSource& raw_;
  std::string buffer_;
  bool first_ = true;
};

#ifdef ERANK_WITH_COMPRESSION
class GzipSource : public Source {
 public:
  GzipSource(RawSource& raw, std::string head, const std::string& path)
      : raw_(raw), path_(path), in_(std::move(head)), out_(kPiece, '\0') {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK)
      fail(ErrorKind::kExhausted, kWhere, path_, ": zlib cannot start");
    set_input(in_.size());
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  std::string_view next() override {
    stream_.next_out = reinterpret_cast<Bytef*>(out_.data());
    stream_.avail_out = static_cast<uInt>(out_.size());
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0) {
        in_.resize(kPiece);
        set_input(raw_.read(in_.data(), kPiece));
      }
      if (stream_.avail_in == 0) {
        if (!between_members_)
          fail(ErrorKind::kCorrupt, kWhere, path_, ": the gzip data ends too early");
        break;
      }
      if (between_members_) {
        inflateReset(&stream_);
        between_members_ = false;
      }
      const int rc = inflate(&stream_, Z_NO_FLUSH);
      if (rc == Z_STREAM_END) {
        between_members_ = true;
      } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
        fail(ErrorKind::kCorrupt, kWhere, path_,
             ": damaged gzip data: ", stream_.msg ? stream_.msg : "error");
      }
    }
    return {out_.data(), out_.size() - stream_.avail_out};
  }

 private:
  void set_input(size_t size) {
    stream_.next_in = reinterpret_cast<Bytef*>(in_.data());
    stream_.avail_in = static_cast<uInt>(size);
  }
  RawSource& raw_;
  std::string path_, in_, out_;
  z_stream stream_{};
  bool between_members_ = false;
};

class ZstdSource : public Source {
 public:
  ZstdSource(RawSource& raw, std::string head, const std::string& path)
      : raw_(raw), path_(path), in_(std::move(head)), out_(kPiece, '\0') {
    ERANK_CHECK(stream_ != nullptr);
    input_ = {in_.data(), in_.size(), 0};
  }
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }

  std::string_view next() override {
    ZSTD_outBuffer output{out_.data(), out_.size(), 0};
    while (output.pos < output.size) {
      if (input_.pos == input_.size) {
        in_.resize(kPiece);
        input_ = {in_.data(), raw_.read(in_.data(), kPiece), 0};
      }
      const size_t before = output.pos;
      // The decoder may still hold output when the input is used up.
      if (input_.size == 0 && at_frame_end_) break;
      const size_t rc = ZSTD_decompressStream(stream_, &output, &input_);
      if (ZSTD_isError(rc))
        fail(ErrorKind::kCorrupt, kWhere, path_, ": damaged zstd data: ", ZSTD_getErrorName(rc));
      at_frame_end_ = rc == 0;
      if (input_.size == 0 && output.pos == before && !at_frame_end_)
        fail(ErrorKind::kCorrupt, kWhere, path_, ": the zstd data ends too early");
    }
    return {out_.data(), output.pos};
  }

 private:
  RawSource& raw_;
  std::string path_, in_, out_;
  ZSTD_DStream* stream_ = ZSTD_createDStream();
  ZSTD_inBuffer input_{};
  bool at_frame_end_ = false;
};
#endif

std::unique_ptr<Source> open_source(RawSource& raw, const std::string& path) {
  std::string head(kPiece, '\0');
  head.resize(raw.read(head.data(), kPiece));
  const bool gzip = head.starts_with("\x1f\x8b");
  const bool zstd = head.starts_with("\x28\xb5\x2f\xfd");
  if (head.starts_with("\xfd"
                       "7zXZ"))
    fail(ErrorKind::kInvalidInput, kWhere, path,
         ": is xz data; expected plain, gzip or zstd: unpack it with `xz -d`");
#ifdef ERANK_WITH_COMPRESSION
  if (gzip) return std::make_unique<GzipSource>(raw, std::move(head), path);
  if (zstd) return std::make_unique<ZstdSource>(raw, std::move(head), path);
#else
  if (gzip || zstd)
    fail(ErrorKind::kInvalidInput, kWhere, path, ": is ", gzip ? "gzip" : "zstd",
         " data, which this build without compression cannot read: unpack it first");
#endif
  return std::make_unique<PlainSource>(raw, std::move(head));
}

}  // namespace

void for_each_line(const std::string& path,
                   const std::function<void(std::string_view, int64_t)>& line,
                   size_t max_line_bytes) {
  RawSource raw(path);
  const auto source = open_source(raw, path);
  int64_t number = 0;
  const auto emit = [&](std::string_view text) {
    ++number;
    while (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    if (text.ends_with('\r')) text.remove_suffix(1);
    line(text, number);
  };
  const auto check = [&](size_t size) {
    if (size > max_line_bytes)
      fail(ErrorKind::kExhausted, kWhere, path, ":", number + 1, ": a line of more than ",
           max_line_bytes, " bytes");
  };
  std::string rest;  // the line that the last piece did not end
  for (std::string_view piece = source->next(); !piece.empty(); piece = source->next()) {
    size_t begin = 0;
    for (size_t end; (end = piece.find('\n', begin)) != piece.npos; begin = end + 1) {
      const std::string_view part = piece.substr(begin, end - begin);
      check(rest.size() + part.size());
      if (rest.empty()) {
        emit(part);
      } else {
        rest += part;
        emit(rest);
        rest.clear();
      }
    }
    rest += piece.substr(begin);
    check(rest.size());
  }
  if (!rest.empty()) emit(rest);
}

}  // namespace erank::data
