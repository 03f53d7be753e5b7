// Words met before and their ids: most words of a text are few, and merging one costs more than
// looking it up.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace erank::text {

// A table of a fixed number of entries; a new word takes the place of the one before. Not
// thread-safe: each thread has its own (1 MB), shared by all tokenizers, which `owner` tells apart.
class BpeCache {
 public:
  static constexpr size_t kMaxBytes = 24;  // longer words are not kept
  static constexpr size_t kMaxIds = 8;

  // A word as the table compares it. REQUIRES: word.size() <= kMaxBytes.
  struct Key {
    uint64_t text[3] = {0, 0, 0};
    uint32_t owner;
    uint32_t length;
    Key(std::string_view word, uint32_t owner)
        : owner(owner), length(static_cast<uint32_t>(word.size())) {
      std::memcpy(text, word.data(), word.size());
    }
  };

  // Appends the ids of the word and returns true, or returns false.
  bool find(const Key& key, std::vector<int32_t>& ids) const {
    const Entry& entry = entries_[slot_of(key)];
    if (entry.owner != key.owner || entry.length != key.length || entry.text[0] != key.text[0] ||
        entry.text[1] != key.text[1] || entry.text[2] != key.text[2])
      return false;
    if (entry.num_ids == 1) {
      ids.push_back(entry.ids[0]);
    } else {
      ids.insert(ids.end(), entry.ids, entry.ids + entry.num_ids);
    }
    return true;
  }

  void insert(const Key& key, const int32_t* ids, size_t num_ids) {
    if (num_ids > kMaxIds) return;
    Entry& entry = entries_[slot_of(key)];
    std::memcpy(entry.text, key.text, sizeof entry.text);
    entry.owner = key.owner;
    entry.length = static_cast<uint16_t>(key.length);
    entry.num_ids = static_cast<uint16_t>(num_ids);
    std::memcpy(entry.ids, ids, num_ids * sizeof *ids);
  }

  static BpeCache& of_this_thread() {
    thread_local BpeCache cache;
    return cache;
  }

 private:
  struct alignas(64) Entry {
    uint64_t text[3] = {0, 0, 0};
    uint32_t owner = 0;  // 0: empty; tokenizers count from 1
    uint16_t length = 0;
    uint16_t num_ids = 0;
    int32_t ids[kMaxIds] = {};
  };
  static constexpr int kLogEntries = 14;

  static size_t slot_of(const Key& key) {
    uint64_t h = key.text[0] * 0x9e3779b97f4a7c15ull;
    h = (h ^ (h >> 32) ^ key.text[1]) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ (h >> 32) ^ key.text[2] ^ (uint64_t{key.owner} << 40)) * 0x94d049bb133111ebull;
    return h >> (64 - kLogEntries);
  }

  std::unique_ptr<Entry[]> entries_ = std::make_unique<Entry[]>(size_t{1} << kLogEntries);
};

}  // namespace erank::text
