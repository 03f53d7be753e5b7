// Which keys each sequence of a pass sees, for attention padded by classes of similar length.
// Computed once per pass, used by every layer. Integers only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "erank/train/tree_batch.h"

namespace erank::train::kernels {

struct TreePlan {
  struct Class {
    int64_t queries = 0, keys = 0;    // padded counts of each sequence
    std::vector<int32_t> sequences;   // S of them
    std::vector<int32_t> query_rows;  // [S, queries] the token, -1 for padding
    std::vector<int32_t> key_rows;    // [S, keys] ancestors' tokens, then its own; -1 for padding
    std::vector<int32_t> ancestors;   // [S] how many tokens precede its own
  };
  std::vector<Class> classes;
  std::vector<int32_t> positions;  // [T]
};

// A class ends before a sequence shorter than `fill` of its longest. REQUIRES: batch.check passes.
std::shared_ptr<const TreePlan> plan_tree(const TreeBatch& batch, double fill = 0.75);

}  // namespace erank::train::kernels
