// One inference pass as integers: what is computed, where its keys and values go, and what is
// asked of it. The same for every device.
#pragma once

#include <cstdint>
#include <vector>

namespace erank::model {

// Tokens of a page of keys and values.
inline constexpr int kPageTokens = 16;

// T new tokens of B sequences, packed one after another. Slot s of page p is slot kPageTokens p +
// s.
struct Batch {
  std::vector<int32_t> tokens;     // [T]
  std::vector<int32_t> positions;  // [T] 0 = the sequence's first token; consecutive in a sequence
  std::vector<int32_t> starts;     // [B + 1] sequence b's new tokens are [starts[b], starts[b + 1])
  // [B + 1] and the pages of sequence b, in order, at [page_starts[b], page_starts[b + 1]); they
  // hold every position up to its last new token.
  std::vector<int32_t> page_starts;
  std::vector<int32_t> pages;
  // Before a layer attends, it writes the new keys and values into their slots, then makes the
  // copies, in order: cached tokens that a sequence takes over from a page that it may not share.
  struct Copy {
    int32_t from_slot, to_slot;
  };
  std::vector<Copy> copies;
  std::vector<int32_t> rows;  // [R] which of the T tokens' distributions are asked, ascending

  void clear();
  // Checks sizes and order; throws InternalError. `vocab_size`, `context`: bounds of ids and
  // positions.
  void check(int64_t vocab_size, int64_t context, int64_t num_pages) const;
};

// How a row's next token is drawn: engine::sample says what comes of it.
struct Drawing {
  double temperature = 0;  // 0: no draw
  double top_p = 1;
  int top_k = 0;       // 0: all
  double uniform = 0;  // in [0, 1)
};

// What is read of one asked row's logits x.
struct RowRequest {
  // Ids whose logits are wanted, written to `out` in this order; null when there are none.
  const int32_t* ids = nullptr;
  float* out = nullptr;
  int32_t num_ids = 0;
  bool sum = false;         // the softmax's denominator
  float* logits = nullptr;  // [V], filled when not null
  Drawing draw = {};        // REQUIRES: none, unless Network::draws()
};

struct RowResult {
  bool finite = false;  // no logit is NaN or +inf, and one is finite; else the rest means nothing
  int32_t argmax = 0;   // the lowest id of the largest
  float max = 0;        // its logit
  double sum = 0;       // of exp(x[j] - max), with RowRequest::sum
  // With RowRequest::draw: the token, its logit, and its log-probability as engine::Draw has it.
  int32_t drawn = 0;
  float drawn_logit = 0;
  double drawn_log_p = 0;
};

}  // namespace erank::model
