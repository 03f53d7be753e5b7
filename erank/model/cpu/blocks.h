// How a pass's rows are cut into blocks for the matrix products (inside the folder only).
#pragma once

#include <cstdint>

#include "erank/model/cpu/kernels.h"
#include "erank/model/network.h"

namespace erank::model::cpu {

// How many rows are multiplied at once.
struct RowCounts {
  // Of one block that a member takes through several matrix products without waiting for others,
  // and of one that all members share.
  int64_t own, shared;
  int64_t fewest_own;  // with at least so many rows for each member it takes rows of its own
  int64_t head;        // of logits
};
inline constexpr RowCounts kPackedRows = {96, 192, 48, 12};
// Unpacking a panel costs as much as multiplying some tens of rows by it.
inline constexpr RowCounts kStoredRows = {384, 768, 192, 96};
// Tiles multiply 32 rows at once, faster than memory gives them weights.
inline constexpr RowCounts kTileRows = {192, 384, 48, 96};
inline const RowCounts& row_counts(Precision precision) {
  if (precision == Precision::kGguf) return kStoredRows;
  return kernels().tiles && precision != Precision::kFp32 ? kTileRows : kPackedRows;
}

// How the rows of a run of products are divided.
struct Blocks {
  Blocks(int64_t rows, int members, const RowCounts& most) : rows(rows) {
    own = rows >= most.fewest_own * members;
    // As many own blocks as fill whole rounds of all members.
    const int64_t round = most.own * members;
    count = own ? (rows + round - 1) / round * members : (rows + most.shared - 1) / most.shared;
  }
  int64_t begin(int64_t block) const { return rows * block / count; }
  int64_t most_rows() const { return count > 0 ? (rows + count - 1) / count : 0; }

  int64_t rows, count;
  bool own;  // whether a block goes through all its products with one member
};

}  // namespace erank::model::cpu
