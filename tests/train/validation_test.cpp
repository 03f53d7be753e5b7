#include "erank/train/validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/eval/measures.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/rank/reranker.h"
#include "erank/text/prompt_format.h"
#include "tests/model/golden.h"
#include "tests/rank/tiny_checkpoint.h"

namespace erank::train {
namespace {

using ::testing::HasSubstr;

// Byte ids of a prompt that asks about `document`, as the program renders it.
struct ValidationCase {
  std::string model = rank::random_checkpoint("validation");
  text::Tokenizer tokenizer = text::Tokenizer::load(model);
  text::PromptFormat format{tokenizer, rank::find_checkpoint(model).defaults.prompt};

  RankingValidation::List list(const std::string& qid, const std::string& query,
                               const std::vector<std::pair<std::string, std::string>>& documents) {
    RankingValidation::List list{qid, {}, {}};
    for (const auto& [docid, text] : documents) {
      list.docids.push_back(docid);
      list.prompts.push_back(format.render(text::kDefaultInstruction, query, text).ids);
    }
    return list;
  }
  RankingValidation validation(std::vector<RankingValidation::List> lists, const data::Qrels& qrels,
                               const ValidationOptions& options = {}) const {
    return {std::move(lists), qrels, {tokenizer, format}, options};
  }
};

std::optional<Figures> figures_of(RankingValidation& validation,
                                  const model::Parameters& parameters, bool stopped = false) {
  const std::function<bool()> stop = [=] { return stopped; };
  return validation.measure(parameters, {nullptr, stop});
}

double measure(RankingValidation& validation, const model::Parameters& parameters) {
  return figures_of(validation, parameters)->at(0).second;
}

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

TEST(TinyValidation, IsTheNdcgOfTheRerankersOwnRanking) {
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
  const auto parameters = model::load_parameters(c.model, at::kFloat);
  RankingValidation validation = c.validation(lists, qrels);
  for (int i = 0; i < 2; ++i) EXPECT_DOUBLE_EQ(measure(validation, *parameters), expected);

  for (rank::RankRequest& request : requests) {
    request.options.mode = rank::Mode::kThink;
    request.options.max_think_tokens = 9;
  }
  const double thinking = reranked(c.model, qrels, requests);
  EXPECT_NE(thinking, expected);
  RankingValidation both = c.validation(
      lists, qrels, {.modes = {rank::Mode::kThink, rank::Mode::kDirect}, .max_think_tokens = 9});
  const Figures figures = *figures_of(both, *parameters);
  ASSERT_EQ(figures.size(), 3u);
  EXPECT_EQ(figures[0].first, "ndcg_10");
  EXPECT_DOUBLE_EQ(figures[0].second, thinking);  // the first mode's
  EXPECT_EQ(figures[1], Figures::value_type("validation_think", figures[0].second));
  EXPECT_EQ(figures[2].first, "validation_direct");
  EXPECT_DOUBLE_EQ(figures[2].second, expected);
  RankingValidation think =
      c.validation(lists, qrels, {.modes = {rank::Mode::kThink}, .max_think_tokens = 9});
  EXPECT_EQ(figures_of(think, *parameters), (Figures{{"ndcg_10", figures[0].second}}));
  EXPECT_EQ(figures_of(think, *parameters, true), std::nullopt);  // stopped
  EXPECT_EQ(figures_of(think, *parameters), (Figures{{"ndcg_10", figures[0].second}}));
}

TEST(TinyValidation, KeepsTheFirstStagesOrderOfEqualScores) {
  ValidationCase c;
  const auto parameters = model::load_parameters(c.model, at::kFloat);
  for (const auto& [first, second] : {std::pair("a", "z"), std::pair("z", "a")}) {
    data::Qrels qrels;
    qrels.qids = {"q"};
    qrels.grades["q"] = {{first, 1}, {second, 0}};
    RankingValidation validation =
        c.validation({c.list("q", "x", {{first, "same"}, {second, "same"}})}, qrels);
    EXPECT_EQ(measure(validation, *parameters), 1) << first;
  }
}

TEST(TinyValidation, MeasuresTheWeightsOfNowAndTheActiveAdapter) {
  ValidationCase c;
  const auto parameters = model::load_parameters(c.model, at::kFloat);
  std::vector<std::pair<std::string, std::string>> documents;
  data::Qrels qrels;
  qrels.qids = {"q"};
  for (int d = 0; d < 12; ++d) {
    documents.emplace_back(base::str("d", d), base::str("text ", d * d));
    qrels.grades["q"][documents.back().first] = d % 3;
  }
  const std::vector<RankingValidation::List> lists = {c.list("q", "x", documents)};
  RankingValidation validation = c.validation(lists, qrels);
  const double before = measure(validation, *parameters);
  model::Adapter adapter =
      model::make_adapter(parameters->config(), {.rank = 4, .target_modules = {}}, 5);
  model::fill_golden(adapter.named());
  parameters->add_adapter("a", adapter);
  const double adapted = measure(validation, *parameters);
  EXPECT_NE(adapted, before);
  RankingValidation fresh = c.validation(lists, qrels);
  EXPECT_EQ(measure(fresh, *parameters), adapted);
  parameters->activate("");
  EXPECT_EQ(measure(validation, *parameters), before);
}

TEST(TinyValidation, APromptThatDoesNotFitIsAnError) {
  ValidationCase c;
  const auto parameters = model::load_parameters(c.model, at::kFloat);
  data::Qrels qrels;
  qrels.qids = {"q"};
  qrels.grades["q"]["d"] = 1;
  RankingValidation validation = c.validation(
      {{"q", {"d"}, {text::Ids(parameters->config().max_position_embeddings, 65)}}}, qrels);
  EXPECT_THROW(figures_of(validation, *parameters), base::Error);
}

TEST(TinyValidation, WithoutAJudgedQueryIsRefused) {
  ValidationCase c;
  data::Qrels qrels;
  qrels.qids = {"other"};
  qrels.grades["other"] = {{"d", 1}};
  try {
    c.validation({{"q", {"d"}, {{1, 2}}}}, qrels);
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("no query of the candidates has a judgement"));
  }
}

}  // namespace
}  // namespace erank::train
