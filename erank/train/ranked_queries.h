// The judged lists of documents that reinforcement learning ranks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/train/run.h"

namespace erank::train {

// A query with N documents in the first stage's order.
struct RankedQuery {
  std::string qid;
  std::vector<std::string> docids;  // [N]
  std::vector<int> grades;          // [N] judged; without a judgement 0
  std::vector<text::Ids> prompts;   // [N]
  // [N] scores to compare answers with, on the model's scale. Empty: what the model answers before
  // training. All queries have them or none.
  std::vector<double> reference = {};
};

struct RankedQueriesOptions {
  int64_t documents = 20;  // of a query at most
  int positive_grade = 1;  // documents graded at least so are relevant
  // Tokens that may follow a prompt and its answer prefix.
  int64_t answer_tokens = 2;
  uint64_t seed = 1;
  std::string reference_scores;  // file of data::read_pair_scores; "": none
};

struct RankedQueries {
  std::vector<RankedQuery> queries;  // in the file's order
  int64_t num_left_out = 0;          // queries without a relevant document
  int64_t longest = 0;               // tokens of the longest prompt
};

// Reads candidates with text and their judgements and renders prompts for the run's model. A longer
// list is cut by data::sample_documents. Throws Error{kInvalidInput} when no query has a relevant
// candidate, naming query and document of a prompt that the model cannot read whole, and naming the
// first pair that the reference scores lack; also as data::read_candidates, read_qrels and
// read_pair_scores do.
RankedQueries read_ranked_queries(const std::string& candidates, const std::string& qrels,
                                  const Run& run, const RankedQueriesOptions& options);

}  // namespace erank::train
