#include "tests/train/trees.h"

#include "erank/base/random.h"

namespace erank::train {

TreeBatch tree_batch(const std::vector<std::pair<int32_t, int32_t>>& parents_and_lengths) {
  TreeBatch batch;
  batch.starts.push_back(0);
  base::Random random(5);
  for (const auto& [parent, length] : parents_and_lengths) {
    int32_t position = 0;
    if (parent >= 0)
      position =
          batch.positions[batch.starts[parent]] + batch.starts[parent + 1] - batch.starts[parent];
    for (int32_t i = 0; i < length; ++i) {
      batch.rows.push_back(static_cast<int32_t>(batch.tokens.size()));
      batch.tokens.push_back(static_cast<int32_t>(random.below(97)));
      batch.positions.push_back(position + i);
    }
    batch.parents.push_back(parent);
    batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

TreeBatch on_their_own(const TreeBatch& batch) {
  TreeBatch alone;
  alone.starts.push_back(0);
  for (int32_t b = 0; b + 1 < static_cast<int32_t>(batch.starts.size()); ++b) {
    std::vector<int32_t> ids;
    for (int32_t a = b; a >= 0; a = batch.parent(a))
      ids.insert(ids.begin(), batch.tokens.begin() + batch.starts[a],
                 batch.tokens.begin() + batch.starts[a + 1]);
    for (size_t i = 0; i < ids.size(); ++i) {
      alone.tokens.push_back(ids[i]);
      alone.positions.push_back(static_cast<int32_t>(i));
    }
    for (int32_t t = batch.starts[b]; t < batch.starts[b + 1]; ++t)
      alone.rows.push_back(alone.starts[b] + batch.positions[t]);
    alone.starts.push_back(static_cast<int32_t>(alone.tokens.size()));
  }
  return alone;
}

}  // namespace erank::train
