#include "erank/train/packing.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/norm.h>
#include <gtest/gtest.h>

#include <map>

#include "erank/model/lora.h"
#include "erank/train/loss.h"
#include "erank/train/tree_forward.h"
#include "tests/train/tiny_training.h"
#include "tests/train/trees.h"

namespace erank::train {
namespace {

// What precedes and is at token `t` of a batch: the tokens that it attends to.
text::Ids seen_by(const TreeBatch& batch, int32_t t) {
  int32_t b = 0;
  while (batch.starts[b + 1] <= t) ++b;
  text::Ids ids(batch.tokens.begin() + batch.starts[b], batch.tokens.begin() + t + 1);
  for (int32_t a = batch.parent(b); a >= 0; a = batch.parent(a))
    ids.insert(ids.begin(), batch.tokens.begin() + batch.starts[a],
               batch.tokens.begin() + batch.starts[a + 1]);
  EXPECT_EQ(batch.positions[t], std::ssize(ids) - 1);
  return ids;
}

text::Ids whole(const Example& example, const Branch& branch, int32_t row) {
  text::Ids ids = example.prompt;
  ids.insert(ids.end(), branch.ids.begin(), branch.ids.begin() + row);
  return ids;
}

int64_t num_learned(const std::vector<Example>& examples) {
  int64_t count = 0;
  for (const Example& example : examples)
    for (const Branch& branch : example.branches) count += branch.num_learned;
  return count;
}

int64_t num_branches(const std::vector<Example>& examples) {
  int64_t count = 0;
  for (const Example& example : examples) count += std::ssize(example.branches);
  return count;
}

TEST(Packing, EveryTermIsThereOnceAfterItsOwnPromptAlone) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const auto examples = random_examples(seed, 1 + static_cast<int>(seed % 7));
    const PackingOptions options{.weighting = seed % 2 ? Weighting::kExamples : Weighting::kTokens,
                                 .max_tokens = static_cast<int64_t>(16 << (seed % 5))};
    std::map<const Example*, int> times;
    for (const MicroBatch& micro : pack(groups_by_query(examples), options)) {
      size_t next = 0;
      for (const Example* example : micro.examples) {
        ++times[example];
        for (const Branch& branch : example->branches)
          for (const LossTerm& term : branch.terms) {
            ASSERT_LT(next, micro.terms.size());
            const LossTerm& packed = micro.terms[next++];
            EXPECT_EQ(seen_by(micro.batch, micro.batch.rows.at(packed.row)),
                      whole(*example, branch, term.row));
            EXPECT_EQ(packed.token, term.token);
            EXPECT_EQ(packed.complement, term.complement);
            const double share =
                options.weighting == Weighting::kTokens
                    ? 1.0 / static_cast<double>(num_learned(examples))
                    : 1.0 / static_cast<double>(branch.num_learned * num_branches(examples));
            EXPECT_NEAR(packed.weight, term.weight * share, 1e-6 * term.weight * share);
          }
      }
      EXPECT_EQ(next, micro.terms.size());
      EXPECT_TRUE(std::is_sorted(micro.batch.rows.begin(), micro.batch.rows.end()));
    }
    EXPECT_EQ(times.size(), examples.size());
    for (const auto& [example, count] : times) EXPECT_EQ(count, 1);
  }
}

TEST(Packing, PassesKeepToTheirTokensUnlessOneExampleIsLonger) {
  int shared = 0, alone = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const auto examples = random_examples(seed, 8);
    int64_t unshared = 0, packed = 0;
    for (const Example& example : examples) unshared += example.num_tokens();
    for (const MicroBatch& micro : pack(groups_by_query(examples), {.max_tokens = 40})) {
      if (micro.num_tokens > 40) {
        ASSERT_EQ(micro.examples.size(), 1u);
        EXPECT_EQ(micro.num_tokens, micro.examples[0]->num_tokens());
        ++alone;
      }
      EXPECT_LE(micro.num_tokens, std::ssize(micro.batch.tokens));
      packed += micro.num_tokens;
    }
    EXPECT_LE(packed, unshared);
    shared += packed < unshared;
  }
  EXPECT_GT(alone, 0);
  EXPECT_GT(shared, 50);
}

TEST(Packing, APassHasEachQuerysBeginningOnce) {
  std::vector<Example> examples;
  for (int32_t i = 0; i < 3; ++i)
    examples.push_back({"q", {1, 2, 3, 10 + i, 4}, {{{7}, {{1, 5}}}}});
  const auto micro = pack({{&examples[0], &examples[1], &examples[2]}}, {});
  ASSERT_EQ(micro.size(), 1u);
  EXPECT_EQ(micro[0].num_tokens, 3 + 3 * 3);
  // Equal prompts keep a last token each: its row is asked.
  examples[1] = examples[2] = examples[0];
  EXPECT_EQ(pack({{&examples[0], &examples[1], &examples[2]}}, {})[0].num_tokens, 4 + 3 * 2);
}

struct LossAndGradients {
  double loss = 0;
  at::Tensor gradients;
};

LossAndGradients packed_loss(TreeForward& forward, const std::vector<Example>& examples,
                             const PackingOptions& options,
                             const std::vector<model::NamedTensor>& parameters) {
  LossAndGradients result;
  for (const MicroBatch& micro : pack(groups_by_query(examples), options)) {
    const at::Tensor loss = answer_loss(forward.forward(micro.batch), micro.terms);
    result.loss += loss.item<double>();
    loss.backward();
  }
  result.gradients = flat_gradients(parameters);
  return result;
}

// Each branch after its prompt as a sequence on its own.
LossAndGradients separate_loss(TreeForward& forward, const std::vector<Example>& examples,
                               Weighting weighting,
                               const std::vector<model::NamedTensor>& parameters) {
  LossAndGradients result;
  for (const Example& example : examples)
    for (const Branch& branch : example.branches) {
      const auto ids = whole(example, branch, static_cast<int32_t>(branch.ids.size()));
      std::vector<LossTerm> terms = branch.terms;
      for (LossTerm& term : terms) term.row += static_cast<int32_t>(example.prompt.size()) - 1;
      const double share =
          weighting == Weighting::kTokens
              ? 1.0 / static_cast<double>(num_learned(examples))
              : 1.0 / static_cast<double>(branch.num_learned * num_branches(examples));
      const at::Tensor loss =
          answer_loss(forward.forward(whole_batch(std::vector<text::Ids>{ids})), terms) * share;
      result.loss += loss.item<double>();
      loss.backward();
    }
  result.gradients = flat_gradients(parameters);
  return result;
}

void expect_sharing_changes_nothing(const model::Parameters& model,
                                    const std::vector<model::NamedTensor>& parameters) {
  for (const auto& p : parameters) p.tensor.set_requires_grad(true);
  TreeForward forward(model);
  for (const Weighting weighting : {Weighting::kExamples, Weighting::kTokens})
    for (const int64_t max_tokens : {30, 100, 4096}) {
      const auto examples = random_examples(static_cast<uint64_t>(max_tokens), 5);
      const auto found = packed_loss(forward, examples, {weighting, max_tokens}, parameters);
      const auto expected = separate_loss(forward, examples, weighting, parameters);
      EXPECT_NEAR(found.loss, expected.loss, 1e-5 * expected.loss);
      EXPECT_LT((found.gradients - expected.gradients).norm().item<double>(),
                1e-5 * expected.gradients.norm().item<double>());
    }
}

TEST(TinyPacking, GivesTheLossAndGradientsOfEveryExampleOnItsOwn) {
  for (const auto family : {model::Family::kLlama, model::Family::kQwen3}) {
    const model::ModelConfig config = tiny_config(family);
    model::Parameters adapted(config, at::kFloat), full(config, at::kFloat);
    model::fill_golden(adapted);
    model::fill_golden(full);
    adapted.add_adapter(
        "a", model::make_adapter(config, {.rank = 3, .alpha = 6, .target_modules = {}}, 1));
    model::fill_golden(adapted.adapter("a")->named());
    expect_sharing_changes_nothing(adapted, adapted.adapter("a")->named());
    expect_sharing_changes_nothing(full, full.named());
  }
}

}  // namespace
}  // namespace erank::train
