#include "erank/data/source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "erank/base/error.h"
#include "erank/data/parquet_lines.h"

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

// "UTF-16" or "UTF-32" when `head`, a file's first bytes, is text in it, else "". Text of mostly
// ASCII characters has its zeros at the same places of every character; a text with zero bytes in
// it has not.
std::string_view wide_encoding(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.starts_with("\xff\xfe\0\0"sv) || head.starts_with("\0\0\xfe\xff"sv)) return "UTF-32";
  if (head.starts_with("\xff\xfe") || head.starts_with("\xfe\xff")) return "UTF-16";
  constexpr size_t kLooked = 4096;
  const std::string_view text = head.substr(0, std::min(kLooked, head.size()) / 4 * 4);
  if (text.empty()) return "";
  std::array<size_t, 4> zeros{};
  for (size_t i = 0; i < text.size(); ++i) zeros[i % 4] += text[i] == '\0';
  const size_t characters = text.size() / 4;
  const auto most = [&](size_t n) { return 2 * n > characters; };
  const auto none = [&](size_t a, size_t b) { return zeros[a] + zeros[b] == 0; };
  if ((zeros[0] == 0 && most(zeros[1]) && zeros[2] == characters && zeros[3] == characters) ||
      (zeros[3] == 0 && most(zeros[2]) && zeros[0] == characters && zeros[1] == characters))
    return "UTF-32";
  if ((none(0, 2) && most(zeros[1]) && most(zeros[3])) ||
      (none(1, 3) && most(zeros[0]) && most(zeros[2])))
    return "UTF-16";
  return "";
}

// Whether the first line that is not blank is there whole and says what the file is. An array, a
// table, TREC topics, packed data and text in two bytes a character need more.
bool has_telling_line(std::string_view head) {
  const size_t begin = head.find_first_not_of("\xef\xbb\xbf \t\r\n");
  if (begin == head.npos || head[begin] == '[' || head[begin] == '<') return false;
  const size_t end = head.find('\n', begin);
  if (end == head.npos) return false;
  const std::string_view line = head.substr(begin, end - begin);
  if (line[0] == '{') return true;
  return std::none_of(line.begin(), line.end(), [](char c) {
    return c == '\t' || c == ',' || static_cast<unsigned char>(c) < 0x20 ||
           static_cast<unsigned char>(c) >= 0x80;
  });
}

}  // namespace

// A file's bytes as stored.
class ByteSource::Raw {
 public:
  explicit Raw(const std::string& path) : path_(path) {
    fd_ = path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail(ErrorKind::kNotFound, kWhere, path, ": ", std::strerror(errno));
    struct stat info {};
    if (::fstat(fd_, &info) != 0) return;
    if (S_ISDIR(info.st_mode) && path != "-") {
      ::close(fd_);
      fail(ErrorKind::kInvalidInput, kWhere, path, ": is a folder, expected a file");
    }
    is_live_ = S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode) || S_ISSOCK(info.st_mode);
  }
  ~Raw() {
    if (fd_ != STDIN_FILENO) ::close(fd_);
  }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;

  // Fills `out` as far as the file reaches; fewer than `size` bytes mean its end.
  size_t read(char* out, size_t size) {
    size_t done = 0;
    while (done < size) {
      const size_t n = read_some(out + done, size - done);
      if (n == 0) break;
      done += n;
    }
    return done;
  }
  // What there is, once there is something; 0 at the end.
  size_t read_some(char* out, size_t size) {
    for (;;) {
      const ssize_t n = ::read(fd_, out, size);
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) fail(ErrorKind::kCorrupt, kWhere, path_, ": ", std::strerror(errno));
    }
  }
  bool is_live() const { return is_live_; }

 private:
  std::string path_;
  int fd_ = -1;
  bool is_live_ = false;  // a pipe, a terminal or a socket: more may come later
};

// Bytes in pieces, an empty piece at the end. A piece lives until the next call.
class ByteSource::Unpacker {
 public:
  virtual ~Unpacker() = default;
  virtual std::string_view next() = 0;
};

class ByteSource::Plain : public Unpacker {
 public:
  Plain(Raw& raw, std::string head) : raw_(raw), buffer_(std::move(head)) {}
  std::string_view next() override {
    if (first_) {
      first_ = false;
      if (!buffer_.empty()) return buffer_;
    }
    buffer_.resize(kPiece);
    return {buffer_.data(), raw_.is_live() ? raw_.read_some(buffer_.data(), kPiece)
                                           : raw_.read(buffer_.data(), kPiece)};
  }

 private:
  Raw& raw_;
  std::string buffer_;
  bool first_ = true;
};

#ifdef ERANK_WITH_COMPRESSION
class ByteSource::Gzip : public Unpacker {
 public:
  Gzip(Raw& raw, std::string head, const std::string& path)
      : raw_(raw), path_(path), in_(std::move(head)), out_(kPiece, '\0') {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK)
      fail(ErrorKind::kExhausted, kWhere, path_, ": zlib cannot start");
    set_input(in_.size());
  }
  ~Gzip() override { inflateEnd(&stream_); }

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
        if (skip_zeros()) continue;
        if (zeros_)
          fail(ErrorKind::kCorrupt, kWhere, path_,
               ": bytes after the zeros that end its gzip data");
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
  // Between members: passes over zero bytes; true when the input is used up.
  bool skip_zeros() {
    while (stream_.avail_in > 0 && *stream_.next_in == 0) {
      ++stream_.next_in, --stream_.avail_in;
      zeros_ = true;
    }
    return stream_.avail_in == 0;
  }
  Raw& raw_;
  std::string path_, in_, out_;
  z_stream stream_{};
  bool between_members_ = false, zeros_ = false;
};

class ByteSource::Zstd : public Unpacker {
 public:
  Zstd(Raw& raw, std::string head, const std::string& path)
      : raw_(raw), path_(path), in_(std::move(head)), out_(kPiece, '\0') {
    ERANK_CHECK(stream_ != nullptr);
    input_ = {in_.data(), in_.size(), 0};
  }
  ~Zstd() override { ZSTD_freeDStream(stream_); }

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
  Raw& raw_;
  std::string path_, in_, out_;
  ZSTD_DStream* stream_ = ZSTD_createDStream();
  ZSTD_inBuffer input_{};
  bool at_frame_end_ = false;
};
#endif

class ByteSource::Parquet : public Unpacker {
 public:
  explicit Parquet(const std::string& path)
      : parts_(parquet_parts(path)), lines_(open_parquet(parts_[0])) {}
  std::string_view next() override {
    while (given_ == text_.size()) {
      text_ = lines_->next();
      given_ = 0;
      if (!text_.empty()) break;
      if (++part_ >= parts_.size()) return {};
      lines_ = open_parquet(parts_[part_]);
    }
    const auto piece = std::string_view(text_).substr(given_, kPiece);
    given_ += piece.size();
    return piece;
  }

 private:
  std::vector<std::string> parts_;
  size_t part_ = 0;
  std::unique_ptr<ParquetLines> lines_;
  std::string text_;
  size_t given_ = 0;
};

ByteSource::ByteSource(const std::string& path)
    : name_(path == "-" ? "stdin" : path), raw_(std::make_unique<Raw>(path)) {
  std::string head;
  for (;;) {
    const size_t size = head.size();
    head.resize(kPiece);
    const size_t n = raw_->is_live() ? raw_->read_some(head.data() + size, kPiece - size)
                                     : raw_->read(head.data(), kPiece);
    head.resize(size + n);
    if (!raw_->is_live() || n == 0 || head.size() == kPiece || has_telling_line(head)) break;
  }
  const bool gzip = head.starts_with("\x1f\x8b");
  const bool zstd = head.starts_with("\x28\xb5\x2f\xfd");
  if (head.starts_with("\xfd"
                       "7zXZ"))
    fail(ErrorKind::kInvalidInput, kWhere, name_,
         ": is xz data; expected plain, gzip or zstd: unpack it with `xz -d`");
  if (head.starts_with("PAR1\x15")) {
    if (path == "-" || raw_->is_live())
      fail(ErrorKind::kInvalidInput, kWhere, name_,
           ": is a Parquet file, which is not read in order; give the name of a file");
    unpacker_ = std::make_unique<Parquet>(path);
  }
#ifdef ERANK_WITH_COMPRESSION
  if (gzip) unpacker_ = std::make_unique<Gzip>(*raw_, std::move(head), name_);
  if (zstd) unpacker_ = std::make_unique<Zstd>(*raw_, std::move(head), name_);
#else
  if (gzip || zstd)
    fail(ErrorKind::kInvalidInput, kWhere, name_, ": is ", gzip ? "gzip" : "zstd",
         " data, which this build without compression cannot read: unpack it first");
#endif
  if (!unpacker_) unpacker_ = std::make_unique<Plain>(*raw_, std::move(head));
  head_ = unpacker_->next();
  if (const auto encoding = wide_encoding(head_); !encoding.empty())
    fail(ErrorKind::kInvalidInput, kWhere, name_, ": is ", encoding,
         " text, expected UTF-8; convert it: iconv -f ", encoding, " -t UTF-8");
  while (head_.starts_with("\xef\xbb\xbf")) head_.remove_prefix(3);
}

ByteSource::~ByteSource() = default;
ByteSource::ByteSource(ByteSource&&) noexcept = default;

std::string_view ByteSource::next() {
  if (!std::exchange(head_taken_, true) && !head_.empty()) return head_;
  return unpacker_->next();
}

}  // namespace erank::data
