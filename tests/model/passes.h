// Sequences, their pages and passes over them, for the tests of inference networks.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "erank/base/random.h"
#include "erank/model/network.h"

namespace erank::model {

inline std::vector<int32_t> random_ids(size_t n, int64_t vocab, uint64_t seed) {
  base::Random random(seed);
  std::vector<int32_t> ids(n);
  for (auto& id : ids) id = static_cast<int32_t>(random.below(vocab));
  return ids;
}

// A sequence and the pages it owns in a test's cache.
struct Sequence {
  std::vector<int32_t> ids;
  std::vector<int32_t> pages;
  int32_t computed = 0;

  int32_t left() const { return static_cast<int32_t>(ids.size()) - computed; }
};

// Gives out the pages of a cache in a random order.
class Pages {
 public:
  Pages(int32_t count, uint64_t seed) : free_(count) {
    std::iota(free_.begin(), free_.end(), 0);
    base::Random random(seed);
    for (size_t i = free_.size(); i > 1; --i) std::swap(free_[i - 1], free_[random.below(i)]);
  }
  Sequence sequence(std::vector<int32_t> ids) {
    Sequence s{std::move(ids), {}};
    for (size_t i = 0; i < s.ids.size(); i += kPageTokens) {
      s.pages.push_back(free_.back());
      free_.pop_back();
    }
    return s;
  }

 private:
  std::vector<int32_t> free_;
};

// Adds the next `count` ids of `s` to `batch`, and asks for the last one's row or for all.
inline void schedule(Batch& batch, Sequence& s, int32_t count, bool all_rows = false) {
  if (batch.starts.empty()) batch.starts.push_back(0), batch.page_starts.push_back(0);
  for (int32_t i = 0; i < count; ++i) {
    if (all_rows || i + 1 == count) batch.rows.push_back(static_cast<int32_t>(batch.tokens.size()));
    batch.tokens.push_back(s.ids[s.computed]);
    batch.positions.push_back(s.computed++);
  }
  batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  batch.pages.insert(batch.pages.end(), s.pages.begin(), s.pages.end());
  batch.page_starts.push_back(static_cast<int32_t>(batch.pages.size()));
}

// The logits of every asked row of a pass, [R, V].
inline at::Tensor forward(Network& network, const Batch& batch, KvCache& cache) {
  network.forward(batch, cache);
  const auto rows = static_cast<int64_t>(batch.rows.size());
  at::Tensor logits = at::empty({rows, network.config().vocab_size}, at::dtype(at::kFloat));
  std::vector<RowRequest> requests(rows);
  for (int64_t r = 0; r < rows; ++r)
    requests[r].logits = logits.mutable_data_ptr<float>() + r * logits.size(1);
  std::vector<RowResult> results(rows);
  network.read_rows(0, requests, results);
  return logits;
}

// Each sequence's own tokens in one pass, every row asked.
inline at::Tensor whole_pass(Network& network, const std::vector<std::vector<int32_t>>& sequences) {
  size_t pages = 0;
  for (const auto& ids : sequences) pages += (ids.size() + kPageTokens - 1) / kPageTokens;
  const auto cache = network.make_cache(static_cast<int64_t>(pages));
  Pages free(static_cast<int32_t>(pages), 1);
  Batch batch;
  for (const auto& ids : sequences) {
    Sequence s = free.sequence(ids);
    schedule(batch, s, s.left(), true);
  }
  return forward(network, batch, *cache);
}

// The last row of a pass over `ids` alone, [V].
inline at::Tensor last_row(Network& network, const std::vector<int32_t>& ids) {
  const at::Tensor rows = whole_pass(network, {ids});
  return rows.select(0, rows.size(0) - 1);
}

inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() /
         expected.to(at::kDouble).abs().max().item<double>();
}

}  // namespace erank::model
