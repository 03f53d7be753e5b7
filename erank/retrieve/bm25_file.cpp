#include "erank/retrieve/bm25_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "erank/base/error.h"

namespace erank::retrieve {
namespace {

static_assert(std::endian::native == std::endian::little);

[[noreturn]] void fail_corrupt(const std::string& path, const std::string& what) {
  base::fail(base::ErrorKind::kCorrupt, "open_index", path, ": ", what,
             "; make the index again with `erank index`");
}

constexpr uint64_t kTooLarge = uint64_t{1} << 62;

// Sizes in bytes of the seven arrays, in file order.
std::array<uint64_t, 7> array_bytes(const FileHeader& h) {
  return {(h.num_documents + 1) * 8,       h.docid_bytes, h.num_documents,
          (h.num_terms + 1) * 8,           h.term_bytes,  (h.num_terms + 1) * 8,
          h.num_postings * sizeof(Posting)};
}

// Offsets that start at 0, end at `end` and never fall (or always rise, with `strict`).
bool are_offsets(std::span<const uint64_t> offsets, uint64_t end, bool strict) {
  if (offsets.front() != 0 || offsets.back() != end) return false;
  for (size_t i = 1; i < offsets.size(); ++i)
    if (offsets[i] < offsets[i - 1] + (strict ? 1 : 0)) return false;
  return true;
}

}  // namespace

uint64_t file_size_of(const FileHeader& header) {
  constexpr uint64_t kMaxCount = uint64_t{1} << 56;
  for (uint64_t count : {header.num_documents, header.num_terms, header.num_postings,
                         header.docid_bytes, header.term_bytes})
    if (count > kMaxCount) return 0;
  uint64_t size = sizeof(FileHeader);
  for (uint64_t bytes : array_bytes(header)) size += (bytes + 7) / 8 * 8;
  return size < kTooLarge ? size : 0;
}

FileView view_of(std::span<const uint8_t> bytes, const std::string& path) {
  if (bytes.size() < sizeof(FileHeader)) fail_corrupt(path, "too short for an index");
  FileView view;
  view.header = reinterpret_cast<const FileHeader*>(bytes.data());
  const FileHeader& h = *view.header;
  if (std::string_view(h.magic, 8) != kMagic) fail_corrupt(path, "is not an index of erank");
  if (h.version != kVersion)
    fail_corrupt(path, base::str("has version ", h.version, ", expected ", kVersion));
  if (h.header_bytes != sizeof(FileHeader)) fail_corrupt(path, "has a header of the wrong size");
  if (h.num_documents == 0 || h.num_documents > UINT32_MAX)
    fail_corrupt(path, base::str("claims ", h.num_documents, " documents"));
  if (const uint64_t expected = file_size_of(h); expected != bytes.size())
    fail_corrupt(path, base::str("has ", bytes.size(), " bytes, expected ", expected));
  const uint8_t* at = bytes.data() + sizeof(FileHeader);
  const auto sizes = array_bytes(h);
  size_t i = 0;
  const auto next = [&]<typename T>(const T*, uint64_t count) {
    const std::span<const T> out(reinterpret_cast<const T*>(at), count);
    at += (sizes[i++] + 7) / 8 * 8;
    return out;
  };
  const auto text = [](std::span<const char> s) { return std::string_view(s.data(), s.size()); };
  view.docid_offsets = next(static_cast<const uint64_t*>(nullptr), h.num_documents + 1);
  view.docids = text(next(static_cast<const char*>(nullptr), h.docid_bytes));
  view.lengths = next(static_cast<const uint8_t*>(nullptr), h.num_documents);
  view.term_offsets = next(static_cast<const uint64_t*>(nullptr), h.num_terms + 1);
  view.terms = text(next(static_cast<const char*>(nullptr), h.term_bytes));
  view.posting_offsets = next(static_cast<const uint64_t*>(nullptr), h.num_terms + 1);
  view.postings = next(static_cast<const Posting*>(nullptr), h.num_postings);
  return view;
}

void check_file(std::span<const uint8_t> bytes, const std::string& path) {
  const FileView view = view_of(bytes, path);
  const FileHeader& h = *view.header;
  if (checksum_of(bytes.subspan(sizeof(FileHeader))) != h.checksum)
    fail_corrupt(path, "is damaged (its checksum is wrong)");
  if (!are_offsets(view.docid_offsets, h.docid_bytes, false) ||
      !are_offsets(view.term_offsets, h.term_bytes, true) ||
      !are_offsets(view.posting_offsets, h.num_postings, true))
    fail_corrupt(path, "has offsets out of order");
  if (h.num_with_terms > h.num_documents || h.total_terms < h.num_with_terms ||
      (h.num_with_terms == 0) != (h.num_terms == 0))
    fail_corrupt(path, "has counts that contradict each other");
  for (size_t i = 1; i < h.num_terms; ++i)
    if (view.term(i - 1) >= view.term(i)) fail_corrupt(path, "has terms out of order");
  for (size_t i = 0; i < h.num_terms; ++i) {
    const uint64_t begin = view.posting_offsets[i], end = view.posting_offsets[i + 1];
    for (uint64_t p = begin; p < end; ++p) {
      const Posting& posting = view.postings[p];
      if (posting.document >= h.num_documents || posting.tf == 0 ||
          (p > begin && posting.document <= view.postings[p - 1].document))
        fail_corrupt(path, "has postings out of range");
    }
    if (end - begin > h.num_with_terms) fail_corrupt(path, "has more postings than documents");
  }
}

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

}  // namespace erank::retrieve
