#include "erank/train/sft.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/norm.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "erank/model/lora.h"
#include "tests/train/tiny_training.h"

namespace erank::train {
namespace {

std::vector<const Example*> examples_of(const SftObjective& objective, int64_t step) {
  std::vector<const Example*> all;
  for (const Group& group : objective.groups_of(step))
    all.insert(all.end(), group.begin(), group.end());
  return all;
}

int64_t num_examples(const std::vector<Example>& examples) { return std::ssize(examples); }

TEST(SftOrder, EveryExampleOnceAnEpochInStepsOfAboutABatch) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const auto examples = random_examples(seed, 30);
    const SftOptions options{.batch_size = 1 + static_cast<int64_t>(seed % 9),
                             .group_size = 1 + static_cast<int64_t>(seed % 5),
                             .epochs = 2,
                             .packing = {},
                             .seed = seed};
    const SftObjective objective(examples, options, nullptr);
    const int64_t per_epoch =
        (num_examples(examples) + options.batch_size - 1) / options.batch_size;
    ASSERT_EQ(objective.num_steps(), 2 * per_epoch);
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      std::map<const Example*, int> times;
      for (int64_t step = epoch * per_epoch; step < (epoch + 1) * per_epoch; ++step) {
        const auto taken = examples_of(objective, step);
        EXPECT_GE(taken.size(), 1u);
        EXPECT_LE(std::ssize(taken), options.batch_size + options.group_size);
        for (const Example* example : taken) ++times[example];
        for (const Group& group : objective.groups_of(step)) {
          EXPECT_LE(std::ssize(group), options.group_size);
          for (const Example* example : group) EXPECT_EQ(example->qid, group.front()->qid);
        }
      }
      EXPECT_EQ(times.size(), examples.size());
      for (const auto& [example, count] : times) EXPECT_EQ(count, 1);
    }
  }
}

std::vector<int32_t> first_ids(const SftObjective& objective, int64_t step) {
  std::vector<int32_t> ids;
  for (const Example* example : examples_of(objective, step))
    ids.insert(ids.end(), example->prompt.begin(), example->prompt.end());
  return ids;
}

TEST(SftOrder, IsAFunctionOfSeedAndStepAlone) {
  const auto examples = random_examples(1, 20);
  const SftOptions options{.batch_size = 8, .epochs = 3, .packing = {}, .seed = 5};
  const SftObjective forward(examples, options, nullptr), backward(examples, options, nullptr);
  std::map<int64_t, std::vector<int32_t>> seen;
  for (int64_t step = 0; step < forward.num_steps(); ++step) seen[step] = first_ids(forward, step);
  for (int64_t step = forward.num_steps() - 1; step >= 0; --step)
    EXPECT_EQ(first_ids(backward, step), seen[step]);
  SftOptions other = options;
  other.seed = 6;
  EXPECT_NE(first_ids(SftObjective(examples, other, nullptr), 0), seen[0]);
  EXPECT_NE(seen[0], seen[forward.num_steps() / 3]);  // of the next epoch
}

TEST(SftOrder, EpochsAndStepsThatCannotBeAreRefused) {
  const auto make = [](double epochs, int64_t max_steps) {
    SftObjective(random_examples(2, 4), {.epochs = epochs, .max_steps = max_steps, .packing = {}},
                 nullptr);
  };
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity(), 1e9})
    EXPECT_THROW(make(bad, 0), base::Error) << bad;
  EXPECT_THROW(make(1, -1), base::Error);
  make(0.001, 0);
}

TEST(SftOrder, EpochsMayBeFractionsAndStepsLimited) {
  const auto examples = random_examples(2, 40);
  const auto steps_of = [&](double epochs, int64_t max_steps) {
    return SftObjective(examples,
                        {.batch_size = 4, .epochs = epochs, .max_steps = max_steps, .packing = {}},
                        nullptr)
        .num_steps();
  };
  const int64_t whole = steps_of(1, 0);
  EXPECT_EQ(steps_of(2.5, 0), std::llround(2.5 * static_cast<double>(whole)));
  EXPECT_EQ(steps_of(1e-9, 0), 1);
  EXPECT_EQ(steps_of(3, 5), 5);
}

double loss_of(SftObjective& objective, const TrainedModel& model) {
  return objective.accumulate(model, 0, [](const at::Tensor&) {}).loss;
}

// The derivative of the step's loss along a random direction of one parameter.
void expect_finite_differences(SftObjective& objective, model::Parameters& owner,
                               const std::vector<model::NamedTensor>& parameters) {
  TreeForward forward(owner);
  const TrainedModel model{owner, forward};
  for (const auto& p : parameters) p.tensor.set_requires_grad(true);
  objective.accumulate(model, 0, [](const at::Tensor& loss) { loss.backward(); });
  for (size_t i = 0; i < parameters.size(); i += 5) {
    const auto& p = parameters[i];
    const at::Tensor gradient = p.tensor.grad().clone();
    // Along the gradient itself, where rounding is smallest beside the difference.
    const double norm = gradient.norm().item<double>(), step = 1e-2;
    const at::Tensor direction = gradient / norm, start = p.tensor.detach().clone();
    const at::NoGradGuard no_grad;
    p.tensor.copy_(start + step * direction);
    const double above = loss_of(objective, model);
    p.tensor.copy_(start - step * direction);
    const double below = loss_of(objective, model);
    p.tensor.copy_(start);
    EXPECT_NEAR((above - below) / (2 * step), norm, 2e-2 * norm + 2e-4) << p.name;
  }
}

TEST(TinySft, TheWholeLossHasTheGradientOfItsFiniteDifferences) {
  for (const auto weighting : {Weighting::kExamples, Weighting::kTokens}) {
    SftObjective objective(random_examples(3, 6), {.packing = {.weighting = weighting}}, nullptr);
    model::Parameters full(tiny_config(), at::kFloat), adapted(tiny_config(), at::kFloat);
    for (model::Parameters* parameters : {&full, &adapted}) parameters->init_random(1, 0.15);
    adapted.add_adapter("a",
                        model::make_adapter(tiny_config(), {.rank = 2, .target_modules = {}}, 1));
    model::fill_golden(adapted.adapter("a")->named(), 0.5);
    expect_finite_differences(objective, full, full.named());
    expect_finite_differences(objective, adapted, adapted.adapter("a")->named());
  }
}

// Examples as ExampleWriter writes them, some with a direct branch whose rows serve the comparison.
// `rows`: that are read, 2 on the scale 0..10, else 1.
std::vector<Example> ranked_examples(uint64_t seed, int num_queries, int32_t rows = 2) {
  base::Random random(seed);
  auto examples = random_examples(seed, num_queries);
  for (Example& example : examples) {
    example.score = static_cast<double>(random.below(11));
    Branch rank{random_ids(random, 3), {{2, 0, 0}, {3, 0, 0}}, 0};
    rank.terms.resize(static_cast<size_t>(rows));
    example.branches.push_back(rank);
    int32_t count = 0;
    for (const Branch& branch : example.branches)
      count += static_cast<int32_t>(branch.terms.size());
    example.rank_term = count - rows;
  }
  return examples;
}

TEST(TinySft, TheRankLossIsPartOfTheLossAndOfItsGradient) {
  SftOptions options{.batch_size = 100,
                     .packing = {},
                     .rank_weight = 0.05,
                     .answers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}};
  model::Parameters parameters(tiny_config(), at::kFloat);
  parameters.init_random(1, 0.15);
  TreeForward forward(parameters);
  const auto stats = [&](RankLoss kind, const std::vector<Example>& examples) {
    options.rank.kind = kind;
    SftObjective objective(examples, options, nullptr);
    return objective.accumulate({parameters, forward}, 0, [](const at::Tensor&) {});
  };
  const auto examples = ranked_examples(3, 6);
  // Branches that are only read do not change the mean.
  const double plain = stats(RankLoss::kNone, examples).loss;
  EXPECT_NEAR(plain, stats(RankLoss::kNone, random_examples(3, 6)).loss, 1e-5);
  for (const RankLoss kind : {RankLoss::kMargin, RankLoss::kSoftmax}) {
    const StepStats with = stats(kind, examples);
    ASSERT_EQ(with.figures.front().first, "rank_loss");
    EXPECT_GT(with.figures.front().second, 0);
    EXPECT_NEAR(with.loss, plain + 0.05 * with.figures.front().second, 1e-5);
    SftObjective objective(examples, options, nullptr);
    model::Parameters full(tiny_config(), at::kFloat);
    full.init_random(1, 0.15);
    expect_finite_differences(objective, full, full.named());
  }
}

TEST(TinySft, TheRankLossOfAnotherScaleReadsOneRow) {
  SftOptions options{.batch_size = 100, .packing = {}, .rank_weight = 0.05, .answers = {7, 3}};
  const auto examples = ranked_examples(3, 6, 1);
  const double plain = [&] {
    model::Parameters parameters(tiny_config(), at::kFloat);
    parameters.init_random(1, 0.15);
    TreeForward forward(parameters);
    return SftObjective(examples, options, nullptr)
        .accumulate({parameters, forward}, 0, [](const at::Tensor&) {})
        .loss;
  }();
  options.rank.kind = RankLoss::kMargin;
  SftObjective objective(examples, options, nullptr);
  model::Parameters full(tiny_config(), at::kFloat);
  full.init_random(1, 0.15);
  expect_finite_differences(objective, full, full.named());
  TreeForward forward(full);
  const StepStats with = objective.accumulate({full, forward}, 0, [](const at::Tensor&) {});
  EXPECT_GT(with.figures.front().second, 0);
  EXPECT_NEAR(with.loss, plain + 0.05 * with.figures.front().second, 1e-5);
}

TEST(TinySft, TheRankLossComparesDifferencesOfScores) {
  SftOptions options{.batch_size = 100, .packing = {}, .answers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}};
  options.rank.kind = RankLoss::kMargin;
  model::Parameters parameters(tiny_config(), at::kFloat);
  parameters.init_random(1, 0.3);
  TreeForward forward(parameters);
  auto examples = ranked_examples(5, 8);
  const auto loss = [&] {
    return SftObjective(examples, options, nullptr)
        .accumulate({parameters, forward}, 0, [](const at::Tensor&) {})
        .figures.front()
        .second;
  };
  for (Example& example : examples) example.score = 0;
  const double all_equal = loss();
  for (Example& example : examples) example.score = 4;
  EXPECT_NEAR(loss(), all_equal, 1e-6);
  for (size_t i = 1; i < examples.size(); ++i)
    if (examples[i].qid == examples[i - 1].qid) examples[i].score = 14 - examples[i - 1].score;
  EXPECT_GT(loss(), all_equal + 1);  // each query has documents of both 4 and 10
}

TEST(TinySft, CountsWhatAStepLearnsFrom) {
  const auto examples = random_examples(4, 5);
  SftObjective objective(examples, {.batch_size = 100, .packing = {}}, nullptr);
  model::Parameters parameters(tiny_config(), at::kFloat);
  parameters.init_random(1);
  TreeForward forward(parameters);
  const StepStats stats = objective.accumulate({parameters, forward}, 0, [](const at::Tensor&) {});
  int64_t learned = 0;
  for (const Example& example : examples)
    for (const Branch& branch : example.branches) learned += branch.num_learned;
  EXPECT_EQ(stats.num_examples, num_examples(examples));
  EXPECT_EQ(stats.num_learned, learned);
  EXPECT_EQ(stats.num_tokens, objective.num_tokens(0, 1));
}

}  // namespace
}  // namespace erank::train
