// How `erank rerank` shows rankings: a table for people, JSON lines, or a TREC run.
#pragma once

#include <string>
#include <unordered_map>

#include "cli/rerank_jobs.h"
#include "erank/rank/reranker.h"

namespace erank::cli {

enum class RerankFormat { kTable, kJsonl, kTrec };

// `name`: "table", "jsonl", "trec", or "" = the table on a terminal, else JSON lines.
RerankFormat parse_rerank_format(const std::string& name, bool to_file);

// One query's ranking: the scored ones, then those that could not be scored in first-stage order;
// the job's tail follows unscored when `append_tail`.
std::string format_ranking(RerankFormat format, const RerankJob& job, const rank::Ranking& ranking,
                           bool append_tail, const std::string& tag);

}  // namespace erank::cli
