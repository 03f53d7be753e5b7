// Batches of whole sequences for the tests of training.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "erank/base/json.h"
#include "erank/train/tree_batch.h"

namespace erank::train {

// Whole sequences packed, every row asked.
inline TreeBatch whole_batch(const std::vector<std::vector<int32_t>>& sequences) {
  TreeBatch batch;
  batch.starts.push_back(0);
  for (const auto& ids : sequences) {
    for (size_t i = 0; i < ids.size(); ++i) {
      batch.rows.push_back(static_cast<int32_t>(batch.tokens.size()));
      batch.tokens.push_back(ids[i]);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

inline TreeBatch whole_batch(const base::Json& sequences) {
  return whole_batch(sequences.get<std::vector<std::vector<int32_t>>>());
}

// Sequences of random tokens below 97, each with its parent (-1: none) and its length; every row
// asked.
TreeBatch tree_batch(const std::vector<std::pair<int32_t, int32_t>>& parents_and_lengths);

// Each sequence of `batch` with its ancestors' tokens, as a sequence on its own; the rows are those
// of `batch`'s own tokens, in the same order.
TreeBatch on_their_own(const TreeBatch& batch);

}  // namespace erank::train
