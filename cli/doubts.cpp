#include "cli/doubts.h"

#include <algorithm>

#include "cli/verbs.h"
#include "erank/base/error.h"

namespace erank::cli {

void Doubts::note(const rank::Ranking& ranking) {
  const auto has = [](const rank::PassageResult& r, const char* flag) {
    return std::find(r.flags.begin(), r.flags.end(), flag) != r.flags.end();
  };
  ++num_queries_;
  num_pairs_ += std::ssize(ranking.results) + std::ssize(ranking.failed);
  for (const auto& r : ranking.results) num_low_mass_ += has(r, "low_answer_mass");
  if (!ranking.results.empty()) num_constant_ += has(ranking.results.front(), "constant_scores");
}

void Doubts::tell() const {
  if (num_low_mass_ > 0)
    warn(base::str("of ", num_low_mass_, " of ", num_pairs_,
                   " pairs the answers on the scale together have less than ", rank::kLowAnswerMass,
                   " of the probability: the model does not answer as it is asked to; take a "
                   "reranker, with the prompt it was trained on"));
  if (num_constant_ > 0)
    warn(base::str("the scores of ", num_constant_, " of ", num_queries_,
                   " queries are the same for all their documents: their order is the first "
                   "stage's"));
}

}  // namespace erank::cli
