#include "erank/retrieve/posting_blocks.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace erank::retrieve {
namespace {

// Values of 0 to 32 bits, one after another from the lowest bit of the first word on.
class BitWriter {
 public:
  explicit BitWriter(std::vector<uint64_t>& words) : words_(words) {}
  void put(uint32_t value, uint32_t bits) {
    word_ |= uint64_t{value} << used_;
    used_ += bits;
    if (used_ < 64) return;
    words_.push_back(word_);
    used_ -= 64;
    word_ = used_ == 0 ? 0 : uint64_t{value} >> (bits - used_);
  }
  void finish() {
    if (used_ > 0) words_.push_back(word_);
  }

 private:
  std::vector<uint64_t>& words_;
  uint64_t word_ = 0;
  uint32_t used_ = 0;
};

void unpack(const uint8_t* bytes, size_t first_bit, uint32_t bits, size_t num, uint32_t* out) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  size_t bit = first_bit;
  for (size_t i = 0; i < num; ++i, bit += bits) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + bit / 8, 8);
    out[i] = static_cast<uint32_t>(word >> (bit % 8) & mask);
  }
}

}  // namespace

void pack_block(std::span<const Posting> postings, uint32_t before, BlockEntry& entry,
                std::vector<uint64_t>& words) {
  uint32_t gaps = 0, counts = 0, last = before;
  for (const Posting& p : postings) {
    gaps |= p.document - last - 1;
    counts |= p.count - 1;
    last = p.document;
  }
  entry.last_document = last;
  entry.first_word = static_cast<uint32_t>(words.size());
  entry.document_bits = static_cast<uint8_t>(std::bit_width(gaps));
  entry.count_bits = static_cast<uint8_t>(std::bit_width(counts));
  entry.unused = 0;
  BitWriter out(words);
  last = before;
  for (const Posting& p : postings) {
    out.put(p.document - last - 1, entry.document_bits);
    last = p.document;
  }
  for (const Posting& p : postings) out.put(p.count - 1, entry.count_bits);
  out.finish();
}

bool unpack_block(const uint8_t* words, const BlockEntry& entry, size_t num, uint32_t before,
                  Block& block) {
  if (num > kBlockPostings || entry.document_bits > 32 || entry.count_bits > 32) return false;
  unpack(words, 0, entry.document_bits, num, block.documents.data());
  uint64_t document = before == UINT32_MAX ? 0 : uint64_t{before} + 1;
  for (size_t i = 0; i < num; ++i) {
    document += block.documents[i];
    block.documents[i] = static_cast<uint32_t>(document);
    ++document;
  }
  // No gap is negative, so no document before the last one is over it.
  if (document != uint64_t{entry.last_document} + 1) return false;
  if (entry.count_bits == 0) {
    std::fill_n(block.counts.begin(), num, 1u);
    return true;
  }
  unpack(words, num * entry.document_bits, entry.count_bits, num, block.counts.data());
  for (size_t i = 0; i < num; ++i) ++block.counts[i];
  return true;
}

}  // namespace erank::retrieve
