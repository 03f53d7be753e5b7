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

RankingValidation::RankingValidation(std::vector<List> lists, data::Qrels qrels, ModelFormat format,
                                     ValidationOptions options)
    : qrels_(std::move(qrels)), format_(format), options_(std::move(options)) {
  ERANK_CHECK(options_.modes.size() == 1 || options_.modes.size() == 2);
  for (List& list : lists) {
    if (!qrels_.grades.contains(list.qid) || list.prompts.empty()) continue;
    lists_.push_back(std::move(list));
  }
  if (lists_.empty())
    base::fail(base::ErrorKind::kInvalidInput, "--validation",
               "no query of the candidates has a judgement; do their ids agree with the qrels'?");
}

std::optional<Figures> RankingValidation::measure(const model::Parameters& parameters,
                                                  const WorkControl& control, Communicator& ranks) {
  serving_->load(parameters);
  Figures figures;
  for (const rank::Mode mode : options_.modes) {
    const auto value = ndcg_10(mode, control, ranks);
    if (!value) return std::nullopt;
    figures.emplace_back(base::str("validation_", mode_name(mode)), *value);
  }
  if (figures.size() == 1) return Figures{{"ndcg_10", figures.front().second}};
  figures.insert(figures.begin(), {"ndcg_10", figures.front().second});
  return figures;
}

// Of all its lists together, so that much reasoning is written at a time.
std::optional<double> RankingValidation::ndcg_10(rank::Mode mode, const WorkControl& control,
                                                 Communicator& ranks) {
  std::vector<int64_t> costs;
  std::vector<size_t> first;
  std::vector<double> scores;  // of all pairs; another rank's are 0 until they are added up
  for (const List& list : lists_) {
    costs.push_back(count_tokens(list.prompts));
    first.push_back(scores.size());
    scores.resize(scores.size() + list.prompts.size());
  }
  const auto own = own_share(costs, ranks);
  std::vector<text::Ids> prompts;
  for (const size_t i : own)
    prompts.insert(prompts.end(), lists_[i].prompts.begin(), lists_[i].prompts.end());
  int64_t done = 0;
  const auto on_pair = [&] {
    ++done;
    if (control.progress)
      control.progress->update({"validate", done, std::ssize(prompts), "pairs", mode_name(mode)});
  };
  const auto answers =
      serving_->answers(prompts, format_, mode, options_.max_think_tokens, on_pair, control.stop);
  if (any(ranks, answers.size() < prompts.size())) return std::nullopt;
  auto answer = answers.begin();
  for (const size_t i : own)
    for (size_t j = 0; j < lists_[i].prompts.size(); ++j)
      scores[first[i] + j] = (answer++)->expected();
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
