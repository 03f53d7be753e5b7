// Postings in blocks of 128, packed with the fewest bits that hold a block's largest value (inside
// the room only).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace erank::retrieve {

struct Posting {
  uint32_t document;  // ascending within a term
  uint32_t count;     // at least 1
};

constexpr size_t kBlockPostings = 128;

struct BlockEntry {
  uint32_t last_document;
  float max_ratio;        // the largest count / (k1 (1 - b + b length / average)) of a posting
  uint32_t first_word;    // of the block, from the term's first word after its entries
  uint8_t document_bits;  // of document - the one before - 1; the first of a term follows -1
  uint8_t count_bits;     // of count - 1
  uint16_t unused;
};
static_assert(sizeof(BlockEntry) == 16);

struct Block {
  std::array<uint32_t, kBlockPostings> documents, counts;
};

// 8-byte words of a block of `num` postings.
constexpr size_t block_words(const BlockEntry& entry, size_t num) {
  return (num * (size_t{entry.document_bits} + entry.count_bits) + 63) / 64;
}

// Appends the block's words, documents first, low bits first, and sets all of `entry` but
// max_ratio. `before`: the last document of the block before, UINT32_MAX for the first.
// REQUIRES: 1 to 128 postings.
void pack_block(std::span<const Posting> postings, uint32_t before, BlockEntry& entry,
                std::vector<uint64_t>& words);

// The way back; false when what is packed contradicts `entry`. Reads up to 8 bytes after the
// block's words.
bool unpack_block(const uint8_t* words, const BlockEntry& entry, size_t num, uint32_t before,
                  Block& block);

}  // namespace erank::retrieve
