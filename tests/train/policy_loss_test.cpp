// Against fp64 twins of the published formulas (tools/make_policy_golden.py).
#include "erank/train/policy_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "erank/base/random.h"
#include "erank/train/advantages.h"
#include "erank/train/log_probs.h"
#include "erank/train/rank_loss.h"
#include "tests/model/golden.h"
#include "tests/shared_data.h"
#include "tests/train/gradients.h"

namespace erank::train {
namespace {

constexpr double kTolerance = 1e-7;

at::Tensor doubles(const base::Json& json) {
  return at::tensor(json.get<std::vector<double>>(), at::dtype(at::kDouble));
}

void expect_equal(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  EXPECT_LT((found.reshape({-1}) - expected.reshape({-1})).abs().max().item<double>(), tolerance);
}

at::Tensor every_row(int64_t n) { return at::arange(n); }

struct Golden {
  base::Json json = model::read_golden("policy_loss.json")["policy"];
  int64_t vocab = json["vocab"], size = std::ssize(json["tokens"]);
  at::Tensor tokens = at::tensor(json["tokens"].get<std::vector<int64_t>>());

  at::Tensor logits() const { return doubles(json["logits"]).view({size, vocab}); }
  at::Tensor log_probs_of(const at::Tensor& logits, int64_t first = 0) const {
    const int64_t n = logits.size(0);
    return log_probs(logits, every_row(n), tokens.narrow(0, first, n), json["temperature"]);
  }

  // The sequences [first, last).
  PolicySequences sequences(size_t first, size_t last) const {
    const auto lengths = json["lengths"].get<std::vector<int64_t>>();
    const auto advantages = json["advantages"].get<std::vector<double>>();
    const auto overlong = json["overlong"].get<std::vector<uint8_t>>();
    const auto sampled = json["sampled"].get<std::vector<uint8_t>>();
    int64_t begin = 0, end = 0;
    for (size_t i = 0; i < last; ++i) (i < first ? begin : end) += lengths[i];
    const auto part = [&](const char* key) { return doubles(json[key]).narrow(0, begin, end); };
    return {.lengths = {lengths.begin() + first, lengths.begin() + last},
            .advantages = {advantages.begin() + first, advantages.begin() + last},
            .overlong = {overlong.begin() + first, overlong.begin() + last},
            .sampled = {sampled.begin() + begin, sampled.begin() + begin + end},
            .old_log_probs = part("old"),
            .reference_log_probs = part("reference"),
            .sampler_log_probs = part("sampler")};
  }
};

PolicyLossOptions options_of(const base::Json& stored) {
  PolicyLossOptions options;
  options.aggregation = stored["aggregation"] == "tokens"      ? LossAggregation::kTokens
                        : stored["aggregation"] == "sequences" ? LossAggregation::kSequences
                                                               : LossAggregation::kConstant;
  options.ratio = stored["ratio"] == "token"      ? RatioKind::kToken
                  : stored["ratio"] == "sequence" ? RatioKind::kSequence
                                                  : RatioKind::kCispo;
  options.clip_low = stored["clip"][0], options.clip_high = stored["clip"][1];
  options.kl_coef = stored["kl_coef"];
  options.rollout_correction = stored["correction"];
  options.overlong = stored["overlong"] == "mask" ? Overlong::kMask : Overlong::kPenalty;
  options.constant_length = stored["constant_length"];
  return options;
}

TEST(PolicyLoss, HasTheLossGradientAndFiguresOfThePublishedFormulas) {
  const Golden golden;
  ASSERT_EQ(golden.json["cases"].size(), 10u);
  for (const auto& stored : golden.json["cases"]) {
    SCOPED_TRACE(base::dump_json(stored).substr(0, 80));
    const PolicyLossOptions options = options_of(stored);
    const PolicySequences sequences = golden.sequences(0, 4);
    const PolicyCounts counts = count_learned(sequences, options);
    const at::Tensor logits = golden.logits().requires_grad_(true);
    const PolicyLoss result = policy_loss(golden.log_probs_of(logits), sequences, counts, options,
                                          row_entropies(logits, golden.json["temperature"]));
    EXPECT_NEAR(result.loss.item<double>(), stored["loss"].get<double>(), kTolerance);
    result.loss.backward();
    expect_equal(logits.grad(), doubles(stored["gradient"]), kTolerance);

    const PolicyFigures& figures = result.figures;
    const auto relative = [&](double found, const char* key) {
      EXPECT_NEAR(found / stored[key].get<double>(), 1, kTolerance) << key;
    };
    relative(figures.kl, "kl");
    relative(figures.ratio, "ratio_sum");
    relative(figures.ratio_min, "ratio_min");
    relative(figures.ratio_max, "ratio_max");
    EXPECT_EQ((std::vector{figures.clipped_low, figures.clipped_high, figures.clipped_dual}),
              stored["clipped"].get<std::vector<int64_t>>());
    EXPECT_EQ(figures.count, counts.num_tokens);
    EXPECT_GT(figures.mean(figures.entropy), 0);
    EXPECT_LT(figures.mean(figures.entropy), std::log(5.0));
  }
}

TEST(PolicyLoss, OfPassesAddsUpToThatOfTheWhole) {
  const Golden golden;
  for (const auto& stored : golden.json["cases"]) {
    SCOPED_TRACE(base::dump_json(stored).substr(0, 80));
    const PolicyLossOptions options = options_of(stored);
    PolicyCounts counts = count_learned(golden.sequences(0, 2), options);
    counts += count_learned(golden.sequences(2, 4), options);
    const at::Tensor logits = golden.logits().requires_grad_(true);
    double loss = 0;
    PolicyFigures figures;
    const std::array<size_t, 3> edges = {0, 2, 4};
    for (int i = 0; i < 2; ++i) {
      const int64_t first = i == 0 ? 0 : 5, n = i == 0 ? 5 : 7;
      const PolicyLoss part =
          policy_loss(golden.log_probs_of(logits.narrow(0, first, n), first),
                      golden.sequences(edges[i], edges[i + 1]), counts, options);
      part.loss.backward();
      loss += part.loss.item<double>();
      figures += part.figures;
    }
    EXPECT_NEAR(loss, stored["loss"].get<double>(), kTolerance);
    expect_equal(logits.grad(), doubles(stored["gradient"]), kTolerance);
    EXPECT_EQ(figures.count, counts.num_tokens);
    EXPECT_NEAR(figures.kl, stored["kl"].get<double>(), 1e-6);
    EXPECT_NEAR(figures.ratio_min, stored["ratio_min"].get<double>(), 1e-6);
  }
}

TEST(PolicyLoss, OnUnchangedWeightsIsTheGradientOfThePolicyWithoutAnyClip) {
  const Golden golden;
  for (const RatioKind kind : {RatioKind::kToken, RatioKind::kSequence, RatioKind::kCispo}) {
    PolicySequences sequences = golden.sequences(0, 4);
    const at::Tensor log_p = golden.log_probs_of(golden.logits()).requires_grad_(true);
    sequences.old_log_probs = sequences.reference_log_probs = log_p.detach();
    const PolicyLossOptions options{.ratio = kind, .overlong = Overlong::kPenalty};
    const PolicyCounts counts = count_learned(sequences, options);
    EXPECT_EQ(counts.num_tokens, 10);
    EXPECT_EQ(counts.num_sequences, 4);
    const PolicyLoss result = policy_loss(log_p, sequences, counts, options);
    result.loss.backward();
    EXPECT_EQ(result.figures.ratio, 10);
    EXPECT_EQ(result.figures.kl, 0);
    EXPECT_EQ(result.figures.clipped_low + result.figures.clipped_high, 0);
    const at::Tensor expected =
        doubles(base::Json({1.25, 1.25, 1.25, 1.25, -0.75, -1.5, 0, -1.5, 0.5, 0.5, 0.5, 0}));
    expect_equal(log_p.grad(), expected / 10, 1e-12);
  }
}

TEST(PolicyLoss, WithoutALearnedTokenIsZero) {
  const Golden golden;
  const PolicyLossOptions options;  // masks the last sequence, which is overlong
  const PolicySequences last = golden.sequences(3, 4);
  PolicyCounts counts = count_learned(last, options);
  EXPECT_EQ(counts.num_tokens, 0);
  EXPECT_EQ(counts.num_sequences, 0);
  counts += count_learned(golden.sequences(0, 3), options);
  const at::Tensor log_p = golden.log_probs_of(golden.logits().narrow(0, 8, 4), 8);
  const PolicyLoss result = policy_loss(log_p, last, counts, options);
  EXPECT_EQ(result.loss.item<double>(), 0);
  EXPECT_EQ(result.figures.count, 0);
}

TEST(Advantages, AreVerls) {
  const base::Json golden = model::read_golden("policy_loss.json");
  for (size_t i = 0; i < golden["groups"].size(); ++i) {
    const auto rewards = golden["groups"][i].get<std::vector<double>>();
    const Advantages found = group_advantages(rewards, 5);
    EXPECT_EQ(found.num_flat, 0);
    for (size_t j = 0; j < 5; ++j)
      EXPECT_NEAR(found.values[j], golden["advantages"][i][j].get<double>(), kTolerance);
  }
}

struct ExactGolden {
  base::Json json = model::read_golden("policy_loss.json")["exact"];
  int64_t documents = json["documents"], vocab = json["vocab"];

  at::Tensor logits(const char* key) const {
    return doubles(json[key]).view({2 * documents, vocab});
  }
  at::Tensor answers(const at::Tensor& logits) const {
    return answer_log_probs(logits, {.first = {0, 1, 2},
                                     .after_one = {3, 4, 5},
                                     .tokens = json["digits"].get<std::vector<int32_t>>()});
  }
};

TEST(AnswerLogProbs, AreComposedOfDigits) {
  const ExactGolden golden;
  expect_equal(golden.answers(golden.logits("logits")).exp(), doubles(golden.json["answers"]),
               1e-8);
}

TEST(ExactPolicyLoss, HasTheLossAndGradientOfItsTwin) {
  const ExactGolden golden;
  const at::Tensor logits = golden.logits("logits").requires_grad_(true);
  std::vector<Outcomes> advantages(golden.documents);
  for (size_t i = 0; i < golden.json["advantages"].size(); ++i)
    advantages[i / 12].push_back(golden.json["advantages"][i]);
  const ExactLossOptions options{.num_documents = golden.json["num_documents"],
                                 .kl_coef = golden.json["kl_coef"]};
  const at::Tensor reference = golden.answers(golden.logits("reference"));
  const ExactLoss whole = exact_policy_loss(golden.answers(logits), advantages, reference, options);
  EXPECT_NEAR(whole.loss.item<double>(), golden.json["loss"].get<double>(), kTolerance);
  whole.loss.backward();
  expect_equal(logits.grad(), doubles(golden.json["gradient"]), kTolerance);
  EXPECT_NEAR(whole.kl.item<double>(), golden.json["kl"].get<double>(), kTolerance);
  EXPECT_NEAR(whole.entropy.item<double>(), golden.json["entropy"].get<double>(), kTolerance);

  double parts = 0;
  for (int64_t i = 0; i < golden.documents; ++i)
    parts +=
        exact_policy_loss(golden.answers(logits).narrow(0, i, 1),
                          std::span(advantages).subspan(i, 1), reference.narrow(0, i, 1), options)
            .loss.item<double>();
  EXPECT_NEAR(parts, golden.json["loss"].get<double>(), kTolerance);
}

// Answers of one token each: the probabilities are those of softmax, and the loss is its formula.
TEST(ExactPolicyLoss, OnTheOtherScalesIsTheFormulaOverTheirAnswers) {
  for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{5, 6, 7, 8}, {9, 2}}) {
    const auto num_answers = std::ssize(tokens);
    const AnswerRows rows{.first = {2, 0, 1}, .after_one = {}, .tokens = tokens};
    const at::Tensor logits = at::randn({3, 11}, at::dtype(at::kDouble)).requires_grad_(true);
    const at::Tensor before = answer_log_probs(at::randn({3, 11}, at::dtype(at::kDouble)), rows);
    const std::vector<int64_t> at_tokens(tokens.begin(), tokens.end());
    const at::Tensor answers = answer_log_probs(logits, rows);
    const at::Tensor p = at::softmax(logits, 1)
                             .index_select(0, at::tensor(rows.first))
                             .index_select(1, at::tensor(at_tokens));
    EXPECT_LT(relative_error(answers.exp(), p), 1e-12);

    const at::Tensor a = at::randn({3, num_answers + 1}, at::dtype(at::kDouble));
    std::vector<Outcomes> advantages;
    for (int64_t i = 0; i < 3; ++i) {
      const double* row = a.const_data_ptr<double>() + i * (num_answers + 1);
      advantages.emplace_back(row, row + num_answers + 1);
    }
    const ExactLoss found =
        exact_policy_loss(answers, advantages, before, {.num_documents = 4, .kl_coef = 0.1});
    const auto all = [](const at::Tensor& part) {
      return at::cat({part, 1 - part.sum(1, true)}, 1);
    };
    const at::Tensor now = all(p), then = all(before.exp());
    const at::Tensor kl = (now * (now.log() - then.log())).sum();
    const at::Tensor expected = (0.1 * kl - (a * now).sum()) / 4;
    EXPECT_NEAR(found.loss.item<double>(), expected.item<double>(), 1e-9);
    EXPECT_NEAR(found.kl.item<double>(), kl.item<double>(), 1e-9);
    EXPECT_NEAR(found.entropy.item<double>(), -(now * now.log()).sum().item<double>(), 1e-9);
    const at::Tensor gradient = gradients(found.loss, at::ones({}), {logits})[0];
    EXPECT_LT(relative_error(gradient, gradients(expected, at::ones({}), {logits})[0]), 1e-6);
  }
}

TEST(RankLoss, HasTheValuesOfItsTwin) {
  const ExactGolden golden;
  const at::Tensor z = expected_scores(golden.answers(golden.logits("logits")));
  expect_equal(z, doubles(golden.json["expected"]), kTolerance);
  const at::Tensor targets = doubles(golden.json["targets"]);
  EXPECT_NEAR(margin_loss(z, targets).item<double>(), golden.json["margin"].get<double>(), 1e-6);
  EXPECT_NEAR(softmax_loss(z, targets, 2).item<double>(), golden.json["softmax"].get<double>(),
              kTolerance);
}

TEST(RankLoss, HasTheGradientOfItsFiniteDifferencesAndSumsOverQueries) {
  const at::Tensor z = (at::randn({7}, at::dtype(at::kDouble)) * 3).requires_grad_(true);
  const at::Tensor targets = at::randn({7}, at::dtype(at::kDouble)) * 3;
  const std::vector<int64_t> sizes = {4, 1, 2};
  for (const RankLossOptions options :
       {RankLossOptions{RankLoss::kMargin}, RankLossOptions{RankLoss::kSoftmax, 1.5}}) {
    const auto loss_at = [&](const at::Tensor& x) { return rank_loss(x, targets, sizes, options); };
    z.mutable_grad().reset();
    loss_at(z).backward();
    for (int64_t i = 0; i < 7; ++i) {
      at::Tensor up = z.detach().clone(), down = up.clone();
      up[i] += 1e-5, down[i] -= 1e-5;
      EXPECT_NEAR(z.grad()[i].item<double>(),
                  (loss_at(up).item<double>() - loss_at(down).item<double>()) / 2e-5, 1e-7);
    }
    EXPECT_EQ(z.grad()[4].item<double>(), 0);  // a query of one document has nothing to compare
    // Only differences within a query count, and equal ones are the least loss.
    const at::Tensor shift = doubles(base::Json({5, 5, 5, 5, -1, 2, 2}));
    EXPECT_NEAR(loss_at(z.detach() + shift).item<double>(), loss_at(z).item<double>(), 1e-9);
    EXPECT_LT(loss_at(targets + shift).item<double>(), loss_at(z).item<double>());
  }
}

TEST(LogProbs, AreThoseOfLogSoftmaxAtTheTemperature) {
  for (const double temperature : {1.0, 0.6, 2.0}) {
    const at::Tensor logits = (at::randn({6, 9}, at::dtype(at::kDouble)) * 4).requires_grad_(true);
    const at::Tensor rows = at::tensor(std::vector<int64_t>{0, 2, 2, 2, 5}),
                     tokens = at::tensor(std::vector<int64_t>{3, 8, 0, 8, 1});
    const at::Tensor weights = at::randn({5});
    const at::Tensor all = at::log_softmax(logits / temperature, 1);
    const at::Tensor expected = all.view({-1}).index_select(0, rows * 9 + tokens);
    const at::Tensor found = log_probs(logits, rows, tokens, temperature);
    EXPECT_LT(relative_error(found, expected), 1e-12);
    const at::Tensor gradient = gradients(found, weights, {logits})[0];
    EXPECT_LT(relative_error(gradient, gradients(expected, weights, {logits})[0]), 1e-6);
    EXPECT_EQ(gradient[1].abs().max().item<double>(), 0);
    EXPECT_LT(relative_error(row_entropies(logits, temperature), -(all.exp() * all).sum(1)), 1e-12);
  }
}

TEST(LogProbs, ReadRowsInPiecesOfAnyNumber) {
  const at::Tensor logits = at::randn({9, int64_t{1} << 20}).requires_grad_(true);  // 3 pieces
  const at::Tensor rows = every_row(9), tokens = rows * 1000;
  const at::Tensor all = at::log_softmax(logits, 1);
  const at::Tensor expected = all.gather(1, tokens.unsqueeze(1)).squeeze(1);
  const at::Tensor found = log_probs(logits, rows, tokens);
  EXPECT_LT(relative_error(found, expected), 1e-5);
  const at::Tensor weights = at::randn({9});
  const at::Tensor gradient = gradients(found, weights, {logits})[0];
  EXPECT_LT(relative_error(gradient, gradients(expected, weights, {logits})[0]), 1e-5);
}

TEST(PolicyGolden, IsWhatNumPyComputes) {
  const std::string python = erank::testing::test_python();
  if (python.empty()) GTEST_SKIP() << "needs NumPy of `tools/setup --tests`";
  const std::string command =
      "'" + python + "' " ERANK_SOURCE_DIR "/tools/make_policy_golden.py --check";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace erank::train
