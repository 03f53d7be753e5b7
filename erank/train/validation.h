// How good the weights in training are at what they are for: ranking held-out candidates.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "erank/data/records.h"
#include "erank/model/parameters.h"
#include "erank/train/communicator.h"
#include "erank/train/serving.h"
#include "erank/train/trainer.h"

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

struct ValidationOptions {
  std::vector<rank::Mode> modes = {rank::Mode::kDirect};  // what is measured; the first one chooses
  int max_think_tokens = 1024;                            // kThink: most tokens of reasoning
};

// Ranks candidates by the answer's expected score, as serving does: by the engine on the inference
// network that the parameters and their active adapter give, with the same reader of scores;
// reasoning is greedy. Keeps the network between two measurements. Not thread-safe.
class RankingValidation {
 public:
  struct List {
    std::string qid;
    std::vector<std::string> docids;  // in the first stage's order, which breaks ties
    std::vector<text::Ids> prompts;   // one a document
  };
  // Throws Error{kInvalidInput} when no query has a judgement. REQUIRES: one or two modes.
  RankingValidation(std::vector<List> lists, data::Qrels qrels, ModelFormat format,
                    ValidationOptions options = {});

  // {"ndcg_10"}: the mean nDCG@10 over the judged queries in the first mode; of two modes also
  // {"validation_direct"} and {"validation_think"}. nullopt when control.stop() has ended it. The
  // ranks share the queries; a collective. Throws Error for a prompt that does not fit the model's
  // context.
  std::optional<Figures> measure(const model::Parameters& parameters, const WorkControl& control,
                                 Communicator& ranks = alone());

  // Its network, for others that serve the same parameters in turn with it.
  const std::shared_ptr<Serving>& serving() const { return serving_; }

 private:
  std::optional<double> ndcg_10(rank::Mode mode, const WorkControl& control, Communicator& ranks);

  std::vector<List> lists_;
  data::Qrels qrels_;
  ModelFormat format_;
  ValidationOptions options_;
  std::shared_ptr<Serving> serving_ = std::make_shared<Serving>();
};

}  // namespace erank::train
