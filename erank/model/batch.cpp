#include "erank/model/batch.h"

#include "erank/base/error.h"

namespace erank::model {

void Batch::clear() {
  tokens.clear();
  positions.clear();
  starts.clear();
  page_starts.clear();
  pages.clear();
  copies.clear();
  rows.clear();
}

void Batch::check(int64_t vocab_size, int64_t context, int64_t num_pages) const {
  const auto t = static_cast<int64_t>(tokens.size());
  ERANK_CHECK(t > 0 && positions.size() == tokens.size() && starts.size() >= 2 &&
                  starts.front() == 0 && starts.back() == t && page_starts.size() == starts.size(),
              "batch of ", t, " tokens");
  for (size_t i = 0; i < tokens.size(); ++i)
    ERANK_CHECK(
        0 <= tokens[i] && tokens[i] < vocab_size && 0 <= positions[i] && positions[i] < context,
        "token ", tokens[i], " at position ", positions[i]);
  for (size_t b = 0; b + 1 < starts.size(); ++b) {
    ERANK_CHECK(starts[b] <= starts[b + 1] && page_starts[b] <= page_starts[b + 1], "sequence ", b);
    if (starts[b] == starts[b + 1]) continue;
    const int32_t last = positions[starts[b + 1] - 1];
    ERANK_CHECK(last - positions[starts[b]] == starts[b + 1] - starts[b] - 1 &&
                    last / kPageTokens < page_starts[b + 1] - page_starts[b],
                "sequence ", b, " ends at position ", last);
  }
  for (const int32_t page : pages) ERANK_CHECK(0 <= page && page < num_pages, "page ", page);
  for (const Copy& copy : copies)
    ERANK_CHECK(0 <= copy.from_slot && copy.from_slot / kPageTokens < num_pages &&
                0 <= copy.to_slot && copy.to_slot / kPageTokens < num_pages);
  for (size_t r = 0; r < rows.size(); ++r)
    ERANK_CHECK(rows[r] < t && (r == 0 ? rows[r] >= 0 : rows[r] > rows[r - 1]), "row ", r);
}

}  // namespace erank::model
