#include "erank/data/output_text.h"

#include "erank/base/error.h"

#ifdef ERANK_WITH_COMPRESSION
#include <zlib.h>
#include <zstd.h>
#endif

namespace erank::data {

std::string_view without_packing(std::string_view name) {
  for (const std::string_view ending : {".gz", ".zst"})
    if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  return name;
}

// Takes bytes in and appends what it packs of them.
class OutputText::Packer {
 public:
  enum class End {
    kMore,   // it may keep bytes back
    kFlush,  // all that came can be unpacked
    kEnd,    // the data ends
  };
  virtual ~Packer() = default;
  virtual void pack(std::string_view bytes, End end, std::string& out) = 0;
};

#ifdef ERANK_WITH_COMPRESSION
namespace {
constexpr size_t kPiece = size_t{1} << 16;
}

class OutputText::Gzip : public Packer {
 public:
  Gzip() {
    constexpr int kGzip = 15 + 16;  // the largest window, with gzip's frame
    const int rc =
        deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY);
    if (rc != Z_OK) base::fail(base::ErrorKind::kExhausted, "write_file", "zlib cannot start");
  }
  ~Gzip() override { deflateEnd(&stream_); }

  void pack(std::string_view bytes, End end, std::string& out) override {
    while (bytes.size() > kPiece) {  // zlib counts in 32 bits
      pack_piece(bytes.substr(0, kPiece), Z_NO_FLUSH, out);
      bytes.remove_prefix(kPiece);
    }
    pack_piece(bytes,
               end == End::kEnd     ? Z_FINISH
               : end == End::kFlush ? Z_SYNC_FLUSH
                                    : Z_NO_FLUSH,
               out);
  }

 private:
  void pack_piece(std::string_view bytes, int flush, std::string& out) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(piece_);
      stream_.avail_out = sizeof piece_;
      ERANK_CHECK(deflate(&stream_, flush) != Z_STREAM_ERROR);
      out.append(piece_, sizeof piece_ - stream_.avail_out);
    } while (stream_.avail_out == 0);
  }

  z_stream stream_{};
  char piece_[kPiece];
};

class OutputText::Zstd : public Packer {
 public:
  Zstd() { ERANK_CHECK(stream_ != nullptr); }
  ~Zstd() override { ZSTD_freeCStream(stream_); }

  void pack(std::string_view bytes, End end, std::string& out) override {
    const auto directive = end == End::kEnd     ? ZSTD_e_end
                           : end == End::kFlush ? ZSTD_e_flush
                                                : ZSTD_e_continue;
    ZSTD_inBuffer input{bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer output{piece_, sizeof piece_, 0};
      const size_t left = ZSTD_compressStream2(stream_, &output, &input, directive);
      ERANK_CHECK(!ZSTD_isError(left), ZSTD_getErrorName(left));
      out.append(piece_, output.pos);
      if (end == End::kMore ? input.pos == input.size : left == 0) return;
    }
  }

 private:
  ZSTD_CStream* stream_ = ZSTD_createCStream();
  char piece_[kPiece];
};
#endif

OutputText::OutputText(const std::string& path, base::OutputFile::Existing existing,
                       const std::function<bool()>& stop)
    : file_(path, existing, stop) {
  const bool gzip = path.ends_with(".gz"), zstd = path.ends_with(".zst");
#ifdef ERANK_WITH_COMPRESSION
  if (gzip) packer_ = std::make_unique<Gzip>();
  if (zstd) packer_ = std::make_unique<Zstd>();
#else
  if (gzip || zstd)
    base::fail(base::ErrorKind::kInvalidInput, "write_file", path,
               ": this build has no compression; expected another ending");
#endif
}

OutputText::~OutputText() = default;

void OutputText::write(std::string_view bytes) {
  if (!packer_) return file_.write(bytes);
  packed_.clear();
  packer_->pack(bytes, Packer::End::kMore, packed_);
  file_.write(packed_);
}

void OutputText::flush() {
  if (packer_ && file_.is_stream()) {
    packed_.clear();
    packer_->pack("", Packer::End::kFlush, packed_);
    file_.write(packed_);
  }
  file_.flush();
}

void OutputText::commit() {
  if (packer_) {
    packed_.clear();
    packer_->pack("", Packer::End::kEnd, packed_);
    file_.write(packed_);
  }
  file_.commit();
}

}  // namespace erank::data
