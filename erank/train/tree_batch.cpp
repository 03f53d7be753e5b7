#include "erank/train/tree_batch.h"

#include <algorithm>

#include "erank/base/error.h"

namespace erank::train {

void TreeBatch::check(int64_t vocab_size, int64_t context) const {
  const auto t = static_cast<int64_t>(tokens.size());
  ERANK_CHECK(t > 0 && positions.size() == tokens.size() && starts.size() >= 2 &&
                  starts.front() == 0 && starts.back() == t && !rows.empty() &&
                  (parents.empty() || parents.size() + 1 == starts.size()),
              "batch of ", t, " tokens");
  ERANK_CHECK(std::is_sorted(starts.begin(), starts.end()));
  for (size_t i = 0; i < tokens.size(); ++i)
    ERANK_CHECK(
        0 <= tokens[i] && tokens[i] < vocab_size && 0 <= positions[i] && positions[i] < context,
        "token ", tokens[i], " at position ", positions[i]);
  // [B] how many tokens precede the first one that comes after sequence b.
  std::vector<int32_t> ends(starts.size() - 1);
  for (int32_t b = 0; b + 1 < static_cast<int32_t>(starts.size()); ++b) {
    ERANK_CHECK(parent(b) >= -1 && parent(b) < b, "sequence ", b, " has the parent ", parent(b));
    int32_t position = parent(b) < 0 ? 0 : ends[parent(b)];
    for (int32_t i = starts[b]; i < starts[b + 1]; ++i, ++position)
      ERANK_CHECK(positions[i] == position, "token ", i, " of sequence ", b, " is at position ",
                  positions[i], ", expected ", position);
    ends[b] = position;
  }
  for (size_t r = 0; r < rows.size(); ++r)
    ERANK_CHECK(rows[r] < t && rows[r] >= (r == 0 ? 0 : rows[r - 1]), "row ", r);
}

}  // namespace erank::train
