// Byte-pair encoding of one word: its bytes, merged pair by pair in the order of the merges' ranks.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace erank::text {

struct BpeMerge {
  int32_t left;
  int32_t right;
  int32_t result;
};

// Pairs of ids to the rank of their merge: open addressing, at most half full.
class BpePairTable {
 public:
  static constexpr uint32_t kNone = 0xffffffff;
  explicit BpePairTable(const std::vector<BpeMerge>& merges);  // of equal pairs the last counts

  uint32_t find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].rank;
      if (slots_[slot].key == kEmpty) return kNone;
    }
  }

 private:
  struct Slot {
    uint64_t key = kEmpty;
    uint32_t rank = kNone;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair of ids: they are not negative
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const { return (key * 0x9e3779b97f4a7c15ull) >> shift_; }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

// Immutable; thread-safe.
class BpeModel {
 public:
  // `byte_ids`: the id of each byte, -1 for a byte that has none: such bytes vanish, as in the
  // reference.
  BpeModel(const std::array<int32_t, 256>& byte_ids, std::vector<BpeMerge> merges);

  // Appends the ids of `word`. Time O(n log n), memory O(n). Returns how many pairs were looked up,
  // which is at most 3 n: what the tests bound instead of a clock.
  size_t encode_word(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  size_t merge_short(int32_t* symbols, size_t n, std::vector<int32_t>& ids) const;
  size_t merge_long(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<int32_t> results_;  // by rank
  BpePairTable pairs_;
};

}  // namespace erank::text
