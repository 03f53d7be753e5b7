// The index file's layout (inside the room only): written once from its beginning to its end, then
// mapped. docs/formats.md, "Index file".
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/retrieve/analyzer.h"

namespace erank::retrieve {

enum Section : uint32_t {
  kTexts,        // in the order in which they came: u32 size, bytes
  kPostings,     // a term's blocks: BlockEntry of each, then their packed words
  kTerms,        // TermEntry of each term, in byte order
  kTermBytes,    // the terms one after another
  kIdOffsets,    // u64 x (documents + 1), into kIds
  kIds,          // in byte order: a document's number is its place
  kLengths,      // u8 x documents: length_code
  kTextOffsets,  // u64 x documents, into kTexts
  kChecksums,    // u64 for each chunk of the file before this section
  kNumSections
};

struct SectionPlace {
  uint64_t offset, bytes;  // without the zeros that fill it up to 8
};

struct FileHead {
  char magic[8];
  uint32_t version, unused;
};
static_assert(sizeof(FileHead) == 16);

struct FileEnd {
  std::array<SectionPlace, kNumSections> sections;
  uint64_t num_documents, num_terms, num_postings;
  uint64_t num_with_terms;  // documents that have a term
  uint64_t total_terms;     // the sum of their lengths
  uint32_t analyzer;        // AnalyzerKind
  uint32_t unused;
  uint64_t table_checksum;  // checksum_of(the section kChecksums)
  uint64_t checksum;        // checksum_of(all of this before)
  char magic[8];
};
static_assert(sizeof(FileEnd) == kNumSections * 16 + 72);

struct TermEntry {
  uint64_t text;      // where it begins in kTermBytes
  uint64_t postings;  // where its blocks begin in kPostings
  uint32_t num_documents;
  uint32_t text_bytes;
};
static_assert(sizeof(TermEntry) == 24);

constexpr std::string_view kMagic{"ERKBM25\n", 8};
constexpr uint32_t kVersion = 2;
constexpr size_t kChunkBytes = 16384;

// A 64-bit sum over 8-byte words, the last one filled up with zeros, then the size:
// h = (h ^ word) * 0x9e3779b97f4a7c15; h ^= h >> 32.
uint64_t checksum_of(std::span<const uint8_t> bytes);

// Lucene's one-byte scale for lengths: the largest length on it that is at most `length`, as its
// number, and the way back.
uint8_t length_code(uint32_t length);
uint32_t length_of_code(uint8_t code);

// k1 (1 - b + b length / average), the average from the counts of `end`.
float length_norm(const FileEnd& end, float length);

// 1 / length_norm by length code.
std::array<float, 256> inverse_norms(const FileEnd& end);

// Hands the file's bytes on as they come and keeps the checksums of its chunks.
class FileWriter {
 public:
  explicit FileWriter(std::function<void(std::string_view)> write);
  // Sections are written in their order; begin() also ends the one before.
  void begin(Section section);
  void append(const void* data, size_t bytes);
  uint64_t section_bytes() const { return position_ - end_.sections[section_].offset; }
  // Writes the checksums and `end`, whose own places and checksums are filled in.
  void finish(FileEnd end);

 private:
  void put(const void* data, size_t bytes);
  void pad();
  std::function<void(std::string_view)> write_;
  FileEnd end_{};
  Section section_ = kTexts;
  uint64_t position_ = 0;
  std::string chunk_;
  std::vector<uint64_t> checksums_;
};

// Reads a file's bytes; a chunk's checksum is compared before something of it is given out for the
// first time. Every function throws Error{kCorrupt} for what is damaged or lies outside. Immutable
// to its users; thread-safe.
class FileReader {
 public:
  // Looks at the head, the end and the checksums alone. REQUIRES: bytes are aligned to 8.
  FileReader(std::span<const uint8_t> bytes, std::string path);

  const FileEnd& end() const { return *end_; }
  const std::string& path() const { return path_; }

  // `bytes` bytes of a section from `offset` on. At least 8 more can be read after them.
  const uint8_t* read(Section section, uint64_t offset, uint64_t bytes) const;
  // Elements from that one on; array_at: from that byte on. REQUIRES: counts that fit 32 bits.
  template <typename T>
  std::span<const T> array(Section section, uint64_t first, uint64_t count) const {
    return array_at<T>(section, first * sizeof(T), count);
  }
  template <typename T>
  std::span<const T> array_at(Section section, uint64_t offset, uint64_t count) const {
    if (offset % alignof(T) != 0) fail("has offsets out of line");
    return {reinterpret_cast<const T*>(read(section, offset, count * sizeof(T))), count};
  }
  std::string_view text(Section section, uint64_t offset, uint64_t bytes) const {
    return {reinterpret_cast<const char*>(read(section, offset, bytes)), bytes};
  }

  [[noreturn]] void fail(const std::string& what) const;

 private:
  void verify(uint64_t first_chunk, uint64_t last_chunk) const;
  std::span<const uint8_t> bytes_;
  std::string path_;
  const FileEnd* end_ = nullptr;
  const uint64_t* checksums_ = nullptr;
  std::unique_ptr<std::atomic<bool>[]> verified_;  // of each chunk
};

}  // namespace erank::retrieve
