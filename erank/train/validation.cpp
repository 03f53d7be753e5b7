#include "erank/train/validation.h"

#include <algorithm>
#include <numeric>

#include "erank/base/error.h"
#include "erank/eval/measures.h"

namespace erank::train {

// With places as scores the measure has no ties to break.
double mean_ndcg_10(const data::Qrels& qrels, const std::vector<ScoredList>& lists) {
  data::Run run;
  for (const ScoredList& list : lists) {
    const auto& scores = list.scores;
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    run.qids.push_back(list.qid);
    auto& hits = run.hits[list.qid];
    for (const size_t at : order)
      hits.push_back({list.docids[at], -static_cast<double>(hits.size())});
  }
  return eval::evaluate(qrels, run, eval::parse_measures({"nDCG@10"})).summary.front();
}

RankingValidation::RankingValidation(std::vector<List> lists, data::Qrels qrels,
                                     rank::ScoreReader reader, text::Ids answer_prefix)
    : qrels_(std::move(qrels)),
      reader_(std::move(reader)),
      answer_prefix_(std::move(answer_prefix)) {
  for (List& list : lists)
    if (qrels_.grades.contains(list.qid) && !list.prompts.empty())
      lists_.push_back(std::move(list));
  if (lists_.empty())
    base::fail(base::ErrorKind::kInvalidInput, "--validation",
               "no query of the candidates has a judgement; do their ids agree with the qrels'?");
}

double RankingValidation::measure(const model::Parameters& parameters,
                                  base::ProgressSink* progress) {
  serving_->load(parameters);
  int64_t done = 0, total = 0;
  for (const List& list : lists_) total += std::ssize(list.prompts);
  std::vector<ScoredList> scored;
  for (const List& list : lists_) {
    ScoredList& one = scored.emplace_back(ScoredList{list.qid, list.docids, {}});
    for (const auto& answer : serving_->direct_answers(list.prompts, reader_, answer_prefix_, [&] {
           ++done;
           if (progress) progress->update({"validate", done, total, "pairs", ""});
         }))
      one.scores.push_back(answer.expected());
  }
  return mean_ndcg_10(qrels_, scored);
}

}  // namespace erank::train
