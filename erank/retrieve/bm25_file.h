// The index file's layout (inside the room only): made once in memory, then written or mapped as it
// is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace erank::retrieve {

struct Posting {
  uint32_t document;  // ascending within a term
  uint32_t tf;        // at least 1
};

struct FileHeader {
  char magic[8];  // "ERKBM25\n"
  uint32_t version;
  uint32_t header_bytes;
  uint64_t checksum;  // checksum_of(all bytes after the header)
  uint64_t num_documents, num_terms, num_postings;
  uint64_t docid_bytes, term_bytes;
  uint64_t num_with_terms;  // documents that have a term
  uint64_t total_terms;     // the sum of their lengths
  uint8_t unused[48];       // zero
};
static_assert(sizeof(FileHeader) == 128);

constexpr std::string_view kMagic{"ERKBM25\n", 8};
constexpr uint32_t kVersion = 1;

// Views of the arrays in a file's bytes.
struct FileView {
  const FileHeader* header = nullptr;
  std::span<const uint64_t> docid_offsets;    // [num_documents + 1]
  std::string_view docids;                    // [docid_bytes]
  std::span<const uint8_t> lengths;           // [num_documents] length codes
  std::span<const uint64_t> term_offsets;     // [num_terms + 1]
  std::string_view terms;                     // [term_bytes]
  std::span<const uint64_t> posting_offsets;  // [num_terms + 1]
  std::span<const Posting> postings;          // [num_postings]

  std::string_view docid(size_t i) const {
    return docids.substr(docid_offsets[i], docid_offsets[i + 1] - docid_offsets[i]);
  }
  std::string_view term(size_t i) const {
    return terms.substr(term_offsets[i], term_offsets[i + 1] - term_offsets[i]);
  }
};

// What the arrays start at and where the file ends, from the header's counts.
// Throws Error{kCorrupt} when they do not fit `size`. REQUIRES: bytes are aligned to 8.
FileView view_of(std::span<const uint8_t> bytes, const std::string& path);

// The size that a file with these counts has, or 0 when it does not fit 63 bits.
uint64_t file_size_of(const FileHeader& header);

// Throws Error{kCorrupt} unless magic, version, checksum and every array hold what FileView
// promises.
void check_file(std::span<const uint8_t> bytes, const std::string& path);

// A 64-bit sum over 8-byte words, the last one filled up with zeros, then the size:
// h = (h ^ word) * 0x9e3779b97f4a7c15; h ^= h >> 32.
uint64_t checksum_of(std::span<const uint8_t> bytes);

// Lucene's one-byte scale for lengths: the largest length on it that is at most `length`, as its
// number, and the way back.
uint8_t length_code(uint32_t length);
uint32_t length_of_code(uint8_t code);

}  // namespace erank::retrieve
