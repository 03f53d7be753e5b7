// How good the weights in training are at what they are for: ranking held-out candidates.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"
#include "erank/model/parameters.h"
#include "erank/rank/score_reader.h"
#include "erank/text/tokenizer.h"

namespace erank::train {

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
  ~RankingValidation();

  // The mean nDCG@10 over the judged queries. Throws Error for a prompt that does not fit the
  // model's context.
  double measure(const model::Parameters& parameters, base::ProgressSink* progress);

 private:
  struct Serving;

  std::vector<double> scores(const List& list, const std::function<void()>& on_pair);

  std::vector<List> lists_;
  data::Qrels qrels_;
  rank::ScoreReader reader_;
  text::Ids answer_prefix_;
  std::unique_ptr<Serving> serving_;  // made by the first measurement
};

}  // namespace erank::train
