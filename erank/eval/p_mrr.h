// p-MRR of FollowIR (Weller et al. 2024, arXiv 2403.15246): how far the documents whose
// relevance an altered instruction took away moved down when the instruction was altered.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "erank/data/records.h"

namespace erank::eval {

struct PMrr {
  std::vector<std::string> qids = {};     // queries with a value, in byte order
  std::vector<double> values = {};        // of each of them, -1 to 1
  double mean = 0;                        // over queries
  std::vector<std::string> missing = {};  // queries without both rankings: left out
};

// `changed`: of each query the documents whose relevance changed, as read by
// data::read_document_lists. `run` holds the ranking of query Q with its first instruction as
// topic Q-og and with the altered one as Q-changed. With r and s a document's ranks there (from 1,
// by score, equal scores by docid descending; a document that is not there is after the last one)
// its value is s / r - 1 if r >= s, else 1 - r / s; a query's is the mean over its documents.
// Throws Error{kInvalidInput} when no query has both rankings and a document. Thread-safe.
PMrr p_mrr(const data::Run& run,
           const std::unordered_map<std::string, std::vector<std::string>>& changed);

}  // namespace erank::eval
