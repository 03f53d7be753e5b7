#include "erank/train/sft.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/norm.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "erank/base/error.h"
#include "erank/eval/measures.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/rank/reranker.h"
#include "tests/rank/tiny_checkpoint.h"
#include "tests/train/tiny_training.h"

namespace erank::train {
namespace {

using ::testing::HasSubstr;

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

double loss_of(SftObjective& objective, model::Decoder& decoder) {
  return objective.accumulate(decoder, 0, [](const at::Tensor&) {}).loss;
}

// The derivative of the step's loss along a random direction of one parameter.
void expect_finite_differences(SftObjective& objective, model::Decoder& decoder,
                               const std::vector<model::NamedParameter>& parameters) {
  for (const auto& p : parameters) p.tensor.set_requires_grad(true);
  objective.accumulate(decoder, 0, [](const at::Tensor& loss) { loss.backward(); });
  for (size_t i = 0; i < parameters.size(); i += 5) {
    const auto& p = parameters[i];
    const at::Tensor gradient = p.tensor.grad().clone();
    // Along the gradient itself, where rounding is smallest beside the difference.
    const double norm = gradient.norm().item<double>(), step = 1e-2;
    const at::Tensor direction = gradient / norm, start = p.tensor.detach().clone();
    const at::NoGradGuard no_grad;
    p.tensor.copy_(start + step * direction);
    const double above = loss_of(objective, decoder);
    p.tensor.copy_(start - step * direction);
    const double below = loss_of(objective, decoder);
    p.tensor.copy_(start);
    EXPECT_NEAR((above - below) / (2 * step), norm, 2e-2 * norm + 2e-4) << p.name;
  }
}

TEST(TinySft, TheWholeLossHasTheGradientOfItsFiniteDifferences) {
  for (const auto weighting : {Weighting::kExamples, Weighting::kTokens}) {
    SftObjective objective(random_examples(3, 6), {.packing = {.weighting = weighting}}, nullptr);
    model::Decoder full(tiny_config(), {}), adapted(tiny_config(), {});
    for (model::Decoder* decoder : {&full, &adapted}) decoder->init_random(1, 0.15);
    model::add_lora(adapted, {.rank = 2, .target_modules = {}}, 1);
    for (auto& p : model::lora_parameters(adapted))
      p.tensor.copy_(model::golden_fill(p.name, p.tensor.sizes()) * 0.5);
    expect_finite_differences(objective, full, full.parameters());
    expect_finite_differences(objective, adapted, model::lora_parameters(adapted));
  }
}

TEST(TinySft, CountsWhatAStepLearnsFrom) {
  const auto examples = random_examples(4, 5);
  SftObjective objective(examples, {.batch_size = 100, .packing = {}}, nullptr);
  model::Decoder decoder(tiny_config(), {});
  decoder.init_random(1);
  const StepStats stats = objective.accumulate(decoder, 0, [](const at::Tensor&) {});
  int64_t learned = 0;
  for (const Example& example : examples)
    for (const Branch& branch : example.branches) learned += branch.num_learned;
  EXPECT_EQ(stats.num_examples, num_examples(examples));
  EXPECT_EQ(stats.num_learned, learned);
  EXPECT_EQ(stats.num_tokens, objective.num_tokens(0, 1));
}

// Byte ids of a prompt that asks about `document`, as the program renders it.
struct ValidationCase {
  std::string model = rank::random_checkpoint("validation");
  text::Tokenizer tokenizer = text::Tokenizer::load(model);
  text::PromptFormat format{tokenizer, rank::find_checkpoint(model).defaults.prompt};
  std::array<int32_t, 10> digits = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9'};

  RankingValidation::List list(const std::string& qid, const std::string& query,
                               const std::vector<std::pair<std::string, std::string>>& documents) {
    RankingValidation::List list{qid, {}, {}};
    for (const auto& [docid, text] : documents) {
      list.docids.push_back(docid);
      list.prompts.push_back(format.render(text::kDefaultInstruction, query, text).ids);
      list.prompts.back().insert(list.prompts.back().end(), format.direct_close().begin(),
                                 format.direct_close().end());
    }
    return list;
  }
};

// The nDCG@10 of what the reranker returns.
double reranked(const std::string& model, const data::Qrels& qrels,
                const std::vector<rank::RankRequest>& requests) {
  const auto reranker = rank::Reranker::load(rank::tiny_options(model));
  data::Run run;
  for (const auto& request : requests) {
    run.qids.push_back(request.qid);
    for (const auto& result : reranker->rank(request).results) {
      auto& hits = run.hits[request.qid];
      hits.push_back({result.docid, -static_cast<double>(hits.size())});
    }
  }
  return eval::evaluate(qrels, run, eval::parse_measures({"nDCG@10"})).summary.front();
}

TEST(TinySft, ValidationIsTheNdcgOfTheRerankersOwnRanking) {
  ValidationCase c;
  base::Random random(6);
  std::vector<RankingValidation::List> lists;
  std::vector<rank::RankRequest> requests;
  data::Qrels qrels;
  for (const std::string qid : {"a", "b", "c"}) {
    rank::RankRequest request;
    request.qid = qid, request.query = "what is " + qid;
    request.options.mode = rank::Mode::kDirect;
    request.options.score = rank::ScoreKind::kExpected;
    std::vector<std::pair<std::string, std::string>> documents;
    for (int d = 0; d < 14; ++d) {
      std::string text(1 + random.below(40), 'x');
      for (char& letter : text) letter = static_cast<char>('a' + random.below(26));
      auto grade = static_cast<int64_t>(random.below(4));
      if (d % 5 == 4) {  // a tie
        text = documents.back().second;
        grade = qrels.grades[qid][documents.back().first];
      }
      documents.emplace_back("d" + std::to_string(random.below(1000)) + std::to_string(d), text);
      request.passages.push_back({documents.back().first, text, {}});
      qrels.grades[qid][documents.back().first] = grade;
    }
    lists.push_back(c.list(qid, request.query, documents));
    requests.push_back(std::move(request));
    qrels.qids.push_back(qid);
  }
  // Lists without a judgement count for nothing.
  lists.push_back(c.list("d", "unjudged", {{"d1", "x"}}));
  const double expected = reranked(c.model, qrels, requests);
  EXPECT_LT(expected, 1);
  const auto decoder = model::load_decoder(c.model, {});
  for (const int64_t max_tokens : {300, 4096}) {
    const RankingValidation validation(lists, qrels, c.digits, max_tokens);
    EXPECT_DOUBLE_EQ(validation.measure(*decoder, nullptr), expected);
  }
}

TEST(TinySft, ValidationKeepsTheFirstStagesOrderOfEqualScores) {
  ValidationCase c;
  const auto decoder = model::load_decoder(c.model, {});
  for (const auto& [first, second] : {std::pair("a", "z"), std::pair("z", "a")}) {
    data::Qrels qrels;
    qrels.qids = {"q"};
    qrels.grades["q"] = {{first, 1}, {second, 0}};
    const RankingValidation validation({c.list("q", "x", {{first, "same"}, {second, "same"}})},
                                       qrels, c.digits, 4096);
    EXPECT_EQ(validation.measure(*decoder, nullptr), 1) << first;
  }
}

TEST(SftValidation, WithoutAJudgedQueryIsRefused) {
  data::Qrels qrels;
  qrels.qids = {"other"};
  qrels.grades["other"] = {{"d", 1}};
  try {
    RankingValidation({{"q", {"d"}, {{1, 2}}}}, qrels, {}, 100);
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("no query of the candidates has a judgement"));
  }
}

}  // namespace
}  // namespace erank::train
