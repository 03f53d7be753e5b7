// What must hold for every ranking, whatever its numbers.
#include <rapidcheck.h>

#include <algorithm>

#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

// A topic with up to 30 documents d0.. with grades -1 to 4, some of them retrieved, many tied.
struct Ranking {
  data::Qrels qrels;
  data::Run run;
};

Ranking any_ranking() {
  const auto grades = *rc::gen::resize(
      30, rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(-2, 5))));
  const auto scores =
      *rc::gen::container<std::vector<int>>(grades.size(), rc::gen::inRange(-3, 12));
  Ranking ranking;
  ranking.qrels.qids = ranking.run.qids = {"q"};
  ranking.qrels.grades["q"]["never retrieved"] = *rc::gen::inRange(0, 4);
  auto& hits = ranking.run.hits["q"];
  for (size_t i = 0; i < grades.size(); ++i) {
    const std::string docid = "d" + std::to_string(i);
    if (grades[i] > -2) ranking.qrels.grades["q"][docid] = grades[i];
    if (scores[i] >= 0) hits.push_back({docid, static_cast<double>(scores[i])});
  }
  if (hits.empty()) hits.push_back({"other", 1});
  return ranking;
}

const std::vector<Measure>& fractions() {
  static const auto measures = parse_measures(
      {"map",     "gm_map",   "Rprec",          "bpref",         "recip_rank", "iprec_at_recall",
       "P",       "recall",   "11pt_avg",       "ndcg",          "ndcg_cut",   "map_cut",
       "success", "set_P",    "set_relative_P", "set_recall",    "set_map",    "set_F",
       "unj",     "Judged@5", "ndcg_cut.1,3",   "ndcg.1=2,3=0.5"});
  return measures;
}

void check(const std::string& name, const std::function<void()>& body) {
  EXPECT_TRUE(rc::check(name, body));
}

TEST(Properties, EveryMeasureLiesBetweenZeroAndOne) {
  check("0 <= value <= 1", [] {
    const Ranking ranking = any_ranking();
    EvalOptions options{.relevance_level = *rc::gen::inRange(1, 4),
                        .judged_only = *rc::gen::arbitrary<bool>(),
                        .max_hits = *rc::gen::inRange(0, 10)};
    if (*rc::gen::arbitrary<bool>()) options.rules = TrecEvalRules::k10;
    const auto values = evaluate(ranking.qrels, ranking.run, fractions(), options);
    for (size_t m = 0; m < values.measures.size(); ++m) {
      RC_ASSERT(values.summary[m] >= 0);
      RC_ASSERT(values.summary[m] <= 1 + 1e-12);
    }
  });
}

TEST(Properties, TheOrderOfTheFileDoesNotMatter) {
  check("shuffled = not", [] {
    Ranking ranking = any_ranking();
    const auto before = evaluate(ranking.qrels, ranking.run, fractions()).summary;
    auto& hits = ranking.run.hits["q"];
    const auto keys = *rc::gen::container<std::vector<int>>(hits.size(), rc::gen::arbitrary<int>());
    std::vector<std::pair<int, data::Hit>> shuffled;
    for (size_t i = 0; i < hits.size(); ++i) shuffled.emplace_back(keys[i], hits[i]);
    std::stable_sort(shuffled.begin(), shuffled.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t i = 0; i < hits.size(); ++i) hits[i] = shuffled[i].second;
    RC_ASSERT(evaluate(ranking.qrels, ranking.run, fractions()).summary == before);
  });
}

TEST(Properties, OnlyTheOrderOfTheScoresMatters) {
  check("any growing map of the scores", [] {
    Ranking ranking = any_ranking();
    const auto before = evaluate(ranking.qrels, ranking.run, fractions()).summary;
    for (data::Hit& hit : ranking.run.hits["q"]) hit.score = hit.score * 0.125 - 77;
    RC_ASSERT(evaluate(ranking.qrels, ranking.run, fractions()).summary == before);
  });
}

TEST(Properties, ABetterDocumentMovedUpNeverLowersAnyMeasure) {
  check("swap", [] {
    Ranking ranking = any_ranking();
    auto& hits = ranking.run.hits["q"];
    for (size_t i = 0; i < hits.size(); ++i) hits[i].score = -static_cast<double>(i);
    const auto& grades = ranking.qrels.grades["q"];
    const auto grade = [&](size_t i) {
      const auto it = grades.find(hits[i].docid);
      return it == grades.end() ? -1 : it->second;
    };
    std::vector<std::pair<size_t, size_t>> misplaced;
    for (size_t lower = 0; lower < hits.size(); ++lower)
      for (size_t upper = 0; upper < lower; ++upper)
        if (grade(lower) > grade(upper)) misplaced.emplace_back(upper, lower);
    if (misplaced.empty()) return;
    const auto [upper, lower] = *rc::gen::elementOf(misplaced);
    static const auto measures =
        parse_measures({"ndcg", "ndcg_cut.1,3,5,10", "map", "recip_rank", "P.1,5", "recall.1,5",
                        "Rprec", "bpref", "11pt_avg"});
    const auto before = evaluate(ranking.qrels, ranking.run, measures).summary;
    std::swap(hits[upper].score, hits[lower].score);
    const auto after = evaluate(ranking.qrels, ranking.run, measures).summary;
    for (size_t m = 0; m < measures.size(); ++m) RC_ASSERT(after[m] >= before[m] - 1e-12);
  });
}

TEST(Properties, TheTieRuleLiesBetweenTheWorstAndTheBestOrder) {
  check("worst <= trec <= best", [] {
    const Ranking ranking = any_ranking();
    static const auto measures = parse_measures(
        {"ndcg", "ndcg_cut.1,3,5", "map", "recip_rank", "P.1,3", "recall.2,5", "Rprec"});
    const auto value = [&](TieOrder order) {
      return evaluate(ranking.qrels, ranking.run, measures, {.ties = order}).summary;
    };
    const auto worst = value(TieOrder::kWorst), trec = value(TieOrder::kTrec),
               best = value(TieOrder::kBest);
    for (size_t m = 0; m < measures.size(); ++m) {
      RC_ASSERT(worst[m] <= trec[m] + 1e-12);
      RC_ASSERT(trec[m] <= best[m] + 1e-12);
    }
  });
}

TEST(Properties, TheIdealOrderHasAnNdcgOfOne) {
  check("ideal", [] {
    Ranking ranking = any_ranking();
    auto& hits = ranking.run.hits["q"];
    hits.clear();
    for (const auto& [docid, grade] : ranking.qrels.grades["q"])
      hits.push_back({docid, static_cast<double>(grade)});
    const bool any =
        std::any_of(hits.begin(), hits.end(), [](const auto& x) { return x.score > 0; });
    for (const char* name : {"ndcg", "nDCG@1", "nDCG@10"})
      RC_ASSERT(std::abs(value_of(name, ranking.qrels, ranking.run) - (any ? 1 : 0)) < 1e-12);
  });
}

}  // namespace
}  // namespace erank::eval
