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

double RankingValidation::measure(const model::Parameters& parameters, base::ProgressSink* progress,
                                  Communicator& ranks) {
  serving_->load(parameters);
  std::vector<int64_t> costs;
  std::vector<double> scores;  // of all pairs; another rank's are 0 until they are added up
  std::vector<size_t> first;
  for (const List& list : lists_) {
    costs.push_back(count_tokens(list.prompts));
    first.push_back(scores.size());
    scores.resize(scores.size() + list.prompts.size());
  }
  const auto own = own_share(costs, ranks);
  int64_t done = 0, total = 0;
  for (const size_t i : own) total += std::ssize(lists_[i].prompts);
  for (const size_t i : own) {
    size_t at = first[i];
    for (const auto& answer :
         serving_->direct_answers(lists_[i].prompts, reader_, answer_prefix_, [&] {
           ++done;
           if (progress) progress->update({"validate", done, total, "pairs", ""});
         }))
      scores[at++] = answer.expected();
  }
  all_sum(ranks, scores);
  std::vector<ScoredList> scored;
  for (size_t i = 0; i < lists_.size(); ++i) {
    const auto begin = scores.begin() + static_cast<int64_t>(first[i]);
    scored.push_back(
        {lists_[i].qid, lists_[i].docids, {begin, begin + std::ssize(lists_[i].prompts)}});
  }
  return mean_ndcg_10(qrels_, scored);
}

}  // namespace erank::train
