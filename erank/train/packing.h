// From examples to forward passes: pairs of one query share what their prompts share, sequences are
// packed one after another and never see each other. Pure integers; thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/train/example.h"
#include "erank/train/tree_batch.h"

namespace erank::train {

// How much each learned token weighs in a step's loss.
enum class Weighting {
  // The mean over branches that learn a token of the mean over the branch's learned tokens.
  kExamples,
  kTokens,  // the mean over all learned tokens of the step
};

// One forward and backward pass. terms[i].row counts the asked rows of `batch`; weights are divided
// by the whole step's normaliser, so that the step's loss is the sum of its passes' losses.
struct MicroBatch {
  TreeBatch batch;
  std::vector<LossTerm> terms;
  std::vector<const Example*> examples;  // whose terms these are, in the terms' order
  std::vector<int64_t> sizes;            // of the groups, or parts of split ones, among them
  int64_t num_tokens = 0;                // that the network computes, without padding
};

// Examples of one query: their prompts' common beginning is computed once.
using Group = std::vector<const Example*>;
// A group for each run of examples with the same qid. Points into `examples`.
std::vector<Group> groups_by_query(const std::vector<Example>& examples);

struct PackingOptions {
  Weighting weighting = Weighting::kExamples;
  int64_t max_tokens = 4096;  // of a pass; an example that is longer has a pass of its own
};

// The passes of one step. Groups of similar length come together; a group that does not fit is
// split.
std::vector<MicroBatch> pack(const std::vector<Group>& groups, const PackingOptions& options);
// The passes of `groups`, some of those of a step: weights are divided by the normaliser of `step`.
std::vector<MicroBatch> pack(const std::vector<Group>& groups, const PackingOptions& options,
                             const std::vector<Group>& step);
// That the network computes for a group in one pass.
int64_t num_tokens(const Group& group);

}  // namespace erank::train
