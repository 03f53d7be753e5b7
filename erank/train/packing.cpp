#include "erank/train/packing.h"

#include <algorithm>
#include <map>

#include "erank/base/error.h"

namespace erank::train {
namespace {

// libtorch caches a compiled matrix product for every count of rows: few different ones.
constexpr size_t kTokenMultiple = 128, kRowMultiple = 32;

// How many ids all prompts begin with, each keeping at least one of its own.
size_t common_prefix(const Group& group) {
  const text::Ids& first = group.front()->prompt;
  size_t n = first.size() - 1;
  for (const Example* example : group) {
    n = std::min(n, example->prompt.size() - 1);
    size_t same = 0;
    while (same < n && example->prompt[same] == first[same]) ++same;
    n = same;
  }
  return group.size() > 1 ? n : 0;
}

// The first and the second half until each part fits.
void split(const Group& group, int64_t max_tokens, std::vector<Group>& out) {
  if (group.size() == 1 || num_tokens(group) <= max_tokens) return out.push_back(group);
  const auto middle = group.begin() + static_cast<int64_t>(group.size() / 2);
  split(Group(group.begin(), middle), max_tokens, out);
  split(Group(middle, group.end()), max_tokens, out);
}

class Writer {
 public:
  Writer() { micro_.batch.starts.push_back(0); }

  // A sequence after `parent` (-1: none) -> its number.
  int32_t add_sequence(int32_t parent, const int32_t* ids, size_t n) {
    TreeBatch& batch = micro_.batch;
    int32_t position = 0;
    if (parent >= 0) position = batch.positions[batch.starts[parent + 1] - 1] + 1;
    for (size_t i = 0; i < n; ++i) {
      batch.tokens.push_back(ids[i]);
      batch.positions.push_back(position + static_cast<int32_t>(i));
    }
    batch.parents.push_back(parent);
    batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
    return static_cast<int32_t>(batch.parents.size()) - 1;
  }

  // The terms of a branch whose ids begin at token `first`; row 0 is read at token `before`.
  void add_terms(const Branch& branch, int32_t before, int32_t first, float scale) {
    for (LossTerm term : branch.terms) {
      term.row = term.row == 0 ? before : first + term.row - 1;
      term.weight *= scale;
      micro_.terms.push_back(term);
    }
  }

  void add_example(const Example& example, int32_t root, size_t shared, float branch_scale,
                   bool by_branch) {
    micro_.examples.push_back(&example);
    const auto scale_of = [&](const Branch& branch) {
      return by_branch ? branch_scale / static_cast<float>(std::max<int64_t>(1, branch.num_learned))
                       : branch_scale;
    };
    const text::Ids& prompt = example.prompt;
    if (example.branches.size() == 1) {  // one sequence: nothing else comes after the passage
      const Branch& branch = example.branches.front();
      text::Ids ids(prompt.begin() + static_cast<int64_t>(shared), prompt.end());
      const auto own = static_cast<int32_t>(ids.size());
      ids.insert(ids.end(), branch.ids.begin(), branch.ids.end());
      const int32_t first = micro_.batch.starts[add_sequence(root, ids.data(), ids.size())];
      add_terms(branch, first + own - 1, first + own, scale_of(branch));
      return;
    }
    const int32_t passage = add_sequence(root, prompt.data() + shared, prompt.size() - shared);
    const int32_t before = micro_.batch.starts[passage + 1] - 1;
    for (const Branch& branch : example.branches) {
      const int32_t b = branch.ids.empty()
                            ? passage
                            : add_sequence(passage, branch.ids.data(), branch.ids.size());
      add_terms(branch, before, micro_.batch.starts[b], scale_of(branch));
    }
  }

  void add_group(const Group& group, float branch_scale, bool by_branch) {
    const size_t shared = common_prefix(group);
    const int32_t root = shared > 0 ? add_sequence(-1, group.front()->prompt.data(), shared) : -1;
    for (const Example* example : group)
      add_example(*example, root, shared, branch_scale, by_branch);
    micro_.sizes.push_back(std::ssize(group));
  }

  // Rows become numbers of asked rows; padding makes the counts round.
  MicroBatch finish() {
    TreeBatch& batch = micro_.batch;
    micro_.num_tokens = static_cast<int64_t>(batch.tokens.size());
    std::map<int32_t, int32_t> numbers;
    for (const LossTerm& term : micro_.terms) numbers[term.row] = 0;
    for (auto& [token, number] : numbers) {
      number = static_cast<int32_t>(batch.rows.size());
      batch.rows.push_back(token);
    }
    for (LossTerm& term : micro_.terms) term.row = numbers[term.row];
    while (batch.rows.size() % kRowMultiple != 0) batch.rows.push_back(batch.rows.back());
    const size_t missing = (kTokenMultiple - batch.tokens.size() % kTokenMultiple) % kTokenMultiple;
    const text::Ids padding(missing, batch.tokens.front());
    if (missing > 0) add_sequence(-1, padding.data(), missing);
    return std::move(micro_);
  }

  int64_t num_tokens() const { return static_cast<int64_t>(micro_.batch.tokens.size()); }

 private:
  MicroBatch micro_;
};

}  // namespace

std::vector<Group> groups_by_query(const std::vector<Example>& examples) {
  std::vector<Group> groups;
  for (const Example& example : examples) {
    if (groups.empty() || groups.back().front()->qid != example.qid) groups.emplace_back();
    groups.back().push_back(&example);
  }
  return groups;
}

int64_t num_tokens(const Group& group) {
  const auto shared = static_cast<int64_t>(common_prefix(group));
  int64_t count = shared;
  for (const Example* example : group) count += example->num_tokens() - shared;
  return count;
}

std::vector<MicroBatch> pack(const std::vector<Group>& groups, const PackingOptions& options) {
  return pack(groups, options, groups);
}

std::vector<MicroBatch> pack(const std::vector<Group>& groups, const PackingOptions& options,
                             const std::vector<Group>& step) {
  std::vector<Group> parts;
  int64_t branches = 0, learned = 0;
  for (const Group& group : step)
    for (const Example* example : group)
      for (const Branch& branch : example->branches)
        branches += branch.num_learned > 0, learned += branch.num_learned;
  for (const Group& group : groups) {
    ERANK_CHECK(!group.empty());
    split(group, options.max_tokens, parts);
  }
  const auto longest = [](const Group& group) {
    size_t n = 0;
    for (const Example* example : group) n = std::max(n, example->prompt.size());
    return n;
  };
  std::stable_sort(parts.begin(), parts.end(),
                   [&](const Group& a, const Group& b) { return longest(a) > longest(b); });
  const bool by_branch = options.weighting == Weighting::kExamples;
  const float scale = 1.0f / static_cast<float>(by_branch ? branches : learned);
  std::vector<MicroBatch> micro_batches;
  for (size_t i = 0; i < parts.size();) {
    Writer writer;
    do writer.add_group(parts[i++], scale, by_branch);
    while (i < parts.size() && writer.num_tokens() + num_tokens(parts[i]) <= options.max_tokens);
    micro_batches.push_back(writer.finish());
  }
  return micro_batches;
}

}  // namespace erank::train
