// The best documents of a weighted sum of terms (inside the room only).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "erank/retrieve/index_file.h"

namespace erank::retrieve {

struct WeightedTerm {
  TermEntry entry;
  float weight;  // how often the query has it, times idf; at least 0
};

struct Found {
  float score;
  uint32_t document;
};

// The `top` documents with the largest scores over 0, best first, equal scores in ascending order
// of documents. A score is the sum over `terms` of w - w / (1 + count * norm), in float arithmetic,
// with norm that of the document's length code; the sum is exact (see Index) and rounded to float.
//
// Goes through the documents in windows (MaxScore after Turtle and Flood, 1995, with the bounds of
// Ding and Suel's block-max index, 2011): of each window the terms whose bounds together cannot
// reach the worst of the best so far are looked up only for documents that the others have found.
// A term's part grows with count * norm also when it is rounded, so the part of a block's largest
// ratio is a bound without slack. Throws Error{kCorrupt} where the file contradicts itself.
std::vector<Found> find_best(const FileReader& file, const std::array<float, 256>& norms,
                             std::span<const WeightedTerm> terms, size_t top);

}  // namespace erank::retrieve
