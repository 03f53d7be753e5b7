// What `erank rerank` reads: its four ways to name queries and candidates, brought into one form.
#pragma once

#include <string>
#include <vector>

#include "erank/rank/reranker.h"

namespace erank::cli {

struct RerankInput {
  std::string query, docs;                 // one query and its documents
  std::string queries, corpus, run, beir;  // a whole run; `beir` names queries and corpus
  std::string candidates;                  // a candidate list
  int top = 100;                           // candidates of a query that are scored
};

struct RerankJob {
  std::string qid, query;
  std::vector<rank::Passage> passages;  // the first `top`, in first-stage order
  std::vector<rank::Passage> tail;      // those below, without their text
};

// Throws Error{kInvalidInput} when the flags do not name one way, for an id of the run that the
// corpus or the queries lack, and for whatever the readers refuse. Warns about queries without
// candidates, which give no result.
std::vector<RerankJob> read_rerank_jobs(const RerankInput& input, base::ProgressSink& progress);

// The files that `input` names, for the fingerprint of a journal.
std::vector<std::string> input_files(const RerankInput& input);

}  // namespace erank::cli
