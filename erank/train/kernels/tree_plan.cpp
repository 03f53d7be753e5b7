#include "erank/train/kernels/tree_plan.h"

#include <algorithm>
#include <utility>

#include "erank/base/error.h"

namespace erank::train::kernels {

std::shared_ptr<const TreePlan> plan_tree(const TreeBatch& batch, double fill) {
  auto planned = std::make_shared<TreePlan>();
  TreePlan& plan = *planned;
  plan.positions = batch.positions;
  const auto length = [&](int32_t b) { return batch.starts[b + 1] - batch.starts[b]; };
  std::vector<int32_t> order;
  for (int32_t b = 0; b + 1 < static_cast<int32_t>(batch.starts.size()); ++b)
    if (length(b) > 0) order.push_back(b);
  const auto context = [&](int32_t b) { return batch.positions[batch.starts[b]] + length(b); };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return std::pair(length(a), context(a)) > std::pair(length(b), context(b));
  });
  const auto round_up = [](int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
  };
  for (size_t i = 0; i < order.size();) {
    TreePlan::Class c;
    size_t end = i;
    for (; end < order.size() && length(order[end]) >= fill * length(order[i]); ++end)
      c.keys = std::max<int64_t>(c.keys, context(order[end]));
    c.queries = length(order[i]);
    // Few different shapes: libtorch caches a compiled matrix product for each.
    if (c.queries > 16) c.queries = round_up(c.queries, 16);
    c.keys = round_up(c.keys, 32);
    for (; i < end; ++i) {
      const int32_t b = order[i];
      c.sequences.push_back(b);
      std::vector<int32_t> chain;  // its ancestors, the nearest first
      for (int32_t a = batch.parent(b); a >= 0; a = batch.parent(a)) chain.push_back(a);
      int64_t seen = 0;
      const size_t first = c.key_rows.size();
      c.key_rows.resize(first + c.keys, -1);
      for (auto a = chain.rbegin(); a != chain.rend(); ++a)
        for (int32_t t = batch.starts[*a]; t < batch.starts[*a + 1]; ++t)
          c.key_rows[first + seen++] = t;
      ERANK_CHECK(seen == batch.positions[batch.starts[b]], "sequence ", b, " is at position ",
                  batch.positions[batch.starts[b]], " after ", seen, " tokens");
      c.ancestors.push_back(static_cast<int32_t>(seen));
      for (int64_t l = 0; l < c.queries; ++l) {
        const bool real = l < length(b);
        c.query_rows.push_back(real ? batch.starts[b] + static_cast<int32_t>(l) : -1);
        if (real) c.key_rows[first + seen + l] = batch.starts[b] + static_cast<int32_t>(l);
      }
    }
    plan.classes.push_back(std::move(c));
  }
  return planned;
}

}  // namespace erank::train::kernels
