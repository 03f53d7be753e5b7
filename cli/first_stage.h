// The first stage's work that verbs share: BM25's candidates of many queries, and their form.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {

// --query-weights: "counts" or "bm25", `name` without it.
void add_query_weights(CLI::App& verb, std::string& name);
retrieve::QueryWeights query_weights(std::string_view name);

// Documents that are no candidates of a query.
using Dropped = std::function<std::vector<std::string>(const data::Query& query)>;

// Calls `take` with each query and its best `top` candidates, in order. False when the user
// interrupts.
bool search_queries(const retrieve::Index& index, std::span<const data::Query> queries, int top,
                    retrieve::QueryWeights weights, int threads, const Dropped& dropped,
                    const std::function<void(const data::Query&, std::vector<data::Hit>)>& take,
                    base::ProgressSink& progress);

// The hits with the index's texts, scores being the shortest decimals of 32-bit floats, as a TREC
// run has them.
data::CandidateList candidates_of(const data::Query& query, const std::vector<data::Hit>& hits,
                                  const retrieve::Index& index);

// A line that `erank rerank --candidates` reads.
std::string candidates_line(const data::CandidateList& list);

}  // namespace erank::cli
