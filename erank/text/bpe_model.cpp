#include "erank/text/bpe_model.h"

#include <bit>
#include <functional>
#include <queue>

namespace erank::text {
namespace {

// Up to this many symbols a scan over all ranks beats a heap.
constexpr size_t kShortWord = 40;

}  // namespace

BpePairTable::BpePairTable(const std::vector<BpeMerge>& merges) {
  const size_t capacity = std::bit_ceil(merges.size() * 2 + 2);
  slots_.resize(capacity);
  mask_ = capacity - 1;
  shift_ = 64 - std::countr_zero(capacity);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t key = key_of(merges[rank].left, merges[rank].right);
    size_t slot = slot_of(key);
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
    slots_[slot] = {key, static_cast<uint32_t>(rank)};
  }
}

BpeModel::BpeModel(const std::array<int32_t, 256>& byte_ids, std::vector<BpeMerge> merges)
    : byte_ids_(byte_ids), pairs_(merges) {
  results_.reserve(merges.size());
  for (const BpeMerge& merge : merges) results_.push_back(merge.result);
}

size_t BpeModel::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.size() <= kShortWord) {
    int32_t symbols[kShortWord];
    size_t n = 0;
    for (const char c : word) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
      if (id >= 0) symbols[n++] = id;
    }
    return merge_short(symbols, n, ids);
  }
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    if (id >= 0) symbols.push_back(id);
  }
  return merge_long(symbols, ids);
}

size_t BpeModel::merge_short(int32_t* symbols, size_t n, std::vector<int32_t>& ids) const {
  uint32_t ranks[kShortWord];  // ranks[i]: of the pair (i, i + 1)
  size_t lookups = 0;
  for (size_t i = 0; i + 1 < n; ++i, ++lookups) ranks[i] = pairs_.find(symbols[i], symbols[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == BpePairTable::kNone) break;
    symbols[best] = results_[ranks[best]];
    --n;
    for (size_t i = best + 1; i < n; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best; i + 1 < n; ++i) ranks[i] = ranks[i + 1];
    if (best > 0) ranks[best - 1] = pairs_.find(symbols[best - 1], symbols[best]), ++lookups;
    if (best + 1 < n) ranks[best] = pairs_.find(symbols[best], symbols[best + 1]), ++lookups;
  }
  ids.insert(ids.end(), symbols, symbols + n);
  return lookups;
}

size_t BpeModel::merge_long(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const {
  constexpr uint32_t kEnd = 0xffffffff;
  struct Node {
    int32_t id;     // -1 once it is merged into its left neighbour
    uint32_t rank;  // of the pair with the right neighbour
    uint32_t previous;
    uint32_t next;
  };
  const size_t n = symbols.size();
  size_t lookups = 0;
  std::vector<Node> nodes(n);
  // Rank in the high half, position in the low half: the best rank first, of equal ones the
  // leftmost.
  std::vector<uint64_t> initial;
  initial.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    uint32_t rank = BpePairTable::kNone;
    if (i + 1 < n) rank = pairs_.find(symbols[i], symbols[i + 1]), ++lookups;
    nodes[i] = {symbols[i], rank, i == 0 ? kEnd : static_cast<uint32_t>(i - 1),
                i + 1 < n ? static_cast<uint32_t>(i + 1) : kEnd};
    if (rank != BpePairTable::kNone) initial.push_back(uint64_t{rank} << 32 | i);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> heap(std::greater<>{},
                                                                            std::move(initial));
  const auto update = [&](uint32_t at) {
    Node& node = nodes[at];
    node.rank = BpePairTable::kNone;
    if (node.next == kEnd) return;
    node.rank = pairs_.find(node.id, nodes[node.next].id);
    ++lookups;
    if (node.rank != BpePairTable::kNone) heap.push(uint64_t{node.rank} << 32 | at);
  };
  while (!heap.empty()) {
    const auto rank = static_cast<uint32_t>(heap.top() >> 32);
    const auto at = static_cast<uint32_t>(heap.top());
    heap.pop();
    Node& node = nodes[at];
    if (node.id < 0 || node.rank != rank) continue;  // the pair has gone since
    Node& right = nodes[node.next];
    node.id = results_[rank];
    right.id = -1;
    node.next = right.next;
    if (node.next != kEnd) nodes[node.next].previous = at;
    update(at);
    if (node.previous != kEnd) update(node.previous);
  }
  for (uint32_t i = n == 0 ? kEnd : 0; i != kEnd; i = nodes[i].next) ids.push_back(nodes[i].id);
  return lookups;
}

}  // namespace erank::text
