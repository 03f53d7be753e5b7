#include "erank/retrieve/index_file.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

#include "erank/base/error.h"

namespace erank::retrieve {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr float kK1 = 0.9f;
constexpr float kB = 0.4f;

std::span<const uint8_t> bytes_of(const void* data, size_t size) {
  return {static_cast<const uint8_t*>(data), size};
}

constexpr uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace

uint64_t checksum_of(std::span<const uint8_t> bytes) {
  uint64_t h = 0x243f6a8885a308d3ull;
  const auto add = [&h](uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15ull;
    h ^= h >> 32;
  };
  size_t at = 0;
  uint64_t word = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::memcpy(&word, bytes.data() + at, 8);
    add(word);
  }
  if (at < bytes.size()) {
    word = 0;
    std::memcpy(&word, bytes.data() + at, bytes.size() - at);
    add(word);
  }
  add(bytes.size());
  return h;
}

namespace {

// Lengths below this are on the scale as they are; above, three bits follow the leading one.
constexpr uint32_t kNumExact = 24;

uint32_t to_four_bits(uint32_t value) {
  const int num_bits = std::bit_width(value);
  if (num_bits < 4) return value;
  const int shift = num_bits - 4;
  return (value >> shift & 7) | static_cast<uint32_t>(shift + 1) << 3;
}

uint32_t from_four_bits(uint32_t code) {
  const uint32_t bits = code & 7, shift = code >> 3;
  return shift == 0 ? bits : (bits | 8) << (shift - 1);
}

}  // namespace

uint8_t length_code(uint32_t length) {
  constexpr uint32_t kMaxLength = 0x7fffffff;
  length = std::min(length, kMaxLength);
  return static_cast<uint8_t>(length < kNumExact ? length
                                                 : kNumExact + to_four_bits(length - kNumExact));
}

uint32_t length_of_code(uint8_t code) {
  return code < kNumExact ? code : kNumExact + from_four_bits(code - kNumExact);
}

float length_norm(const FileEnd& end, float length) {
  const float average =
      static_cast<float>(static_cast<double>(end.total_terms) /
                         static_cast<double>(std::max<uint64_t>(1, end.num_with_terms)));
  return kK1 * ((1 - kB) + kB * length / average);
}

std::array<float, 256> inverse_norms(const FileEnd& end) {
  std::array<float, 256> out{};
  for (size_t code = 0; code < out.size(); ++code) {
    const uint32_t length = length_of_code(static_cast<uint8_t>(code));
    out[code] = 1.0f / length_norm(end, static_cast<float>(length));
  }
  return out;
}

FileWriter::FileWriter(std::function<void(std::string_view)> write) : write_(std::move(write)) {
  FileHead head{};
  std::memcpy(head.magic, kMagic.data(), kMagic.size());
  head.version = kVersion;
  put(&head, sizeof head);
  end_.sections[kTexts].offset = position_;
}

void FileWriter::put(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  write_({at, bytes});
  position_ += bytes;
  while (bytes > 0) {
    const size_t taken = std::min(bytes, kChunkBytes - chunk_.size());
    chunk_.append(at, taken);
    at += taken;
    bytes -= taken;
    if (chunk_.size() < kChunkBytes) break;
    checksums_.push_back(checksum_of(bytes_of(chunk_.data(), chunk_.size())));
    chunk_.clear();
  }
}

void FileWriter::append(const void* data, size_t bytes) { put(data, bytes); }

void FileWriter::pad() {
  constexpr char kZeros[8] = {};
  put(kZeros, padded(position_) - position_);
}

void FileWriter::begin(Section section) {
  if (section == section_) return;
  ERANK_CHECK(section == section_ + 1);
  end_.sections[section_].bytes = section_bytes();
  pad();
  section_ = section;
  end_.sections[section_].offset = position_;
}

void FileWriter::finish(FileEnd end) {
  begin(kChecksums);
  if (!chunk_.empty()) checksums_.push_back(checksum_of(bytes_of(chunk_.data(), chunk_.size())));
  const auto table = bytes_of(checksums_.data(), checksums_.size() * 8);
  end_.sections[kChecksums].bytes = table.size();
  end.sections = end_.sections;
  end.table_checksum = checksum_of(table);
  std::memcpy(end.magic, kMagic.data(), kMagic.size());
  end.checksum = checksum_of(bytes_of(&end, offsetof(FileEnd, checksum)));
  write_({reinterpret_cast<const char*>(table.data()), table.size()});
  write_({reinterpret_cast<const char*>(&end), sizeof end});
}

FileReader::FileReader(std::span<const uint8_t> bytes, std::string path)
    : bytes_(bytes), path_(std::move(path)) {
  const auto is_magic = [](const char* magic) { return std::string_view(magic, 8) == kMagic; };
  if (bytes.size() < sizeof(FileHead)) fail("too short for an index");
  FileHead head;
  std::memcpy(&head, bytes.data(), sizeof head);
  if (!is_magic(head.magic)) fail("is not an index of erank");
  if (head.version != kVersion)
    fail(base::str("has version ", head.version, ", expected ", kVersion));
  if (bytes.size() % 8 != 0 || bytes.size() < sizeof head + sizeof(FileEnd))
    fail("is not complete");
  end_ = reinterpret_cast<const FileEnd*>(bytes.data() + bytes.size() - sizeof(FileEnd));
  if (!is_magic(end_->magic)) fail("is not complete");
  if (checksum_of(bytes_of(end_, offsetof(FileEnd, checksum))) != end_->checksum)
    fail("is damaged (the checksum of its end is wrong)");
  uint64_t at = sizeof head;
  const uint64_t limit = bytes.size() - sizeof(FileEnd);
  for (const SectionPlace& place : end_->sections) {
    if (place.offset != at || place.bytes > limit - at || padded(place.bytes) > limit - at)
      fail("has sections that do not fit its size");
    at += padded(place.bytes);
  }
  const FileEnd& e = *end_;
  const uint64_t most = bytes.size();  // every document and term has a byte of the file
  if (at != limit || e.num_documents == 0 || e.num_documents > UINT32_MAX ||
      e.num_documents > most || e.num_terms > most || e.num_with_terms > e.num_documents ||
      e.total_terms < e.num_with_terms || (e.num_with_terms == 0) != (e.num_terms == 0) ||
      e.analyzer > static_cast<uint32_t>(AnalyzerKind::kUnicode) ||
      e.sections[kTerms].bytes != e.num_terms * sizeof(TermEntry) ||
      e.sections[kIdOffsets].bytes != (e.num_documents + 1) * 8 ||
      e.sections[kLengths].bytes != e.num_documents ||
      e.sections[kTextOffsets].bytes != e.num_documents * 8)
    fail("has counts that contradict each other");
  const SectionPlace table = e.sections[kChecksums];
  const uint64_t num_chunks = (table.offset + kChunkBytes - 1) / kChunkBytes;
  if (table.bytes != num_chunks * 8) fail("has counts that contradict each other");
  checksums_ = reinterpret_cast<const uint64_t*>(bytes.data() + table.offset);
  if (checksum_of(bytes_of(checksums_, table.bytes)) != e.table_checksum)
    fail("is damaged (the checksum of its checksums is wrong)");
  verified_ = std::make_unique<std::atomic<bool>[]>(num_chunks);
}

void FileReader::fail(const std::string& what) const {
  base::fail(base::ErrorKind::kCorrupt, "open_index", path_, ": ", what,
             "; make the index again with `erank index`");
}

void FileReader::verify(uint64_t first_chunk, uint64_t last_chunk) const {
  for (uint64_t chunk = first_chunk; chunk <= last_chunk; ++chunk) {
    if (verified_[chunk].load(std::memory_order_relaxed)) continue;
    const uint64_t begin = chunk * kChunkBytes;
    const uint64_t size =
        std::min<uint64_t>(kChunkBytes, end_->sections[kChecksums].offset - begin);
    if (checksum_of(bytes_.subspan(begin, size)) != checksums_[chunk])
      fail(base::str("is damaged (the checksum of bytes ", begin, " to ", begin + size,
                     " is wrong)"));
    verified_[chunk].store(true, std::memory_order_relaxed);
  }
}

const uint8_t* FileReader::read(Section section, uint64_t offset, uint64_t bytes) const {
  const SectionPlace& place = end_->sections[section];
  if (offset > place.bytes || bytes > place.bytes - offset) fail("has offsets out of range");
  const uint64_t begin = place.offset + offset;
  if (bytes > 0) verify(begin / kChunkBytes, (begin + bytes - 1) / kChunkBytes);
  return bytes_.data() + begin;
}

}  // namespace erank::retrieve
