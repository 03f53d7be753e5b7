// How good the weights in training are at what they are for: ranking held-out candidates.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"
#include "erank/model/parameters.h"
#include "erank/rank/score_reader.h"
#include "erank/text/tokenizer.h"
#include "erank/train/communicator.h"
#include "erank/train/serving.h"

namespace erank::train {

// A query's documents as the first stage orders them, and their scores.
struct ScoredList {
  std::string qid;
  std::span<const std::string> docids;
  std::vector<double> scores;
};

// The mean nDCG@10 over the lists, by falling score; ties keep the first stage's order. REQUIRES:
// each query once, with a judgement.
double mean_ndcg_10(const data::Qrels& qrels, const std::vector<ScoredList>& lists);

// Ranks candidates by the expected score of the direct answer, as serving does: by the engine on
// the inference network that the parameters and their active adapter give, with the same reader of
// scores. Keeps the network between two measurements. Not thread-safe.
class RankingValidation {
 public:
  struct List {
    std::string qid;
    std::vector<std::string> docids;  // in the first stage's order, which breaks ties
    std::vector<text::Ids> prompts;   // one a document
  };
  // `answer_prefix`: what follows a prompt before the answer's digits (direct_close()). Throws
  // Error{kInvalidInput} when no query has a judgement.
  RankingValidation(std::vector<List> lists, data::Qrels qrels, rank::ScoreReader reader,
                    text::Ids answer_prefix);

  // The mean nDCG@10 over the judged queries, which the ranks share; a collective. Throws Error for
  // a prompt that does not fit the model's context.
  double measure(const model::Parameters& parameters, base::ProgressSink* progress,
                 Communicator& ranks = alone());

  // Its network, for others that serve the same parameters in turn with it.
  const std::shared_ptr<Serving>& serving() const { return serving_; }

 private:
  std::vector<List> lists_;
  data::Qrels qrels_;
  rank::ScoreReader reader_;
  text::Ids answer_prefix_;
  std::shared_ptr<Serving> serving_ = std::make_shared<Serving>();
};

}  // namespace erank::train
