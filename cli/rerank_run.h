// The work of `erank rerank`: queries in, rankings out in the same order, a journal for files.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/rerank_jobs.h"
#include "cli/rerank_output.h"
#include "cli/rerank_stream.h"
#include "cli/verbs.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/eval/calibration.h"
#include "erank/rank/reranker.h"

namespace erank::cli {

struct RerankPlan {
  rank::RerankerOptions reranker;
  // Where jobs of one model keep it, loaded by the first one; nullptr: loaded for this job.
  std::shared_ptr<rank::Reranker>* loaded = nullptr;
  rank::ScoreOptions scores;
  std::optional<eval::Calibration> calibration;
  double min_probability = 0;  // scored pairs below it are left out
  RerankFormat format = RerankFormat::kJsonl;
  bool append_tail = true;
  std::string tag;
  std::string out;    // "-": stdout
  std::string stats;  // a data::QueryTime of each query goes here; "": nowhere
  bool resume = false, overwrite = false, quiet = false;
  // Of a file: what its journal's results depend on, and what it is made of.
  base::Json journal_header, made_of;
  eval::ScoredBy scored_by;
};

struct RerankDone {
  int64_t num_scored = 0;  // pairs, without those of the journal; 0: the output was complete
  double seconds = 0;      // which they took
  int64_t num_pairs = 0;   // in all
  int64_t num_failed = 0;  // that could not be scored: last in the output
  bool can_retry = false;  // some of them may succeed with --resume
};

// The name of the journal of such an output, "" for a stream.
std::string journal_of(const base::OutputTarget& target);

// Both return early when the user interrupts.
RerankDone run_rerank(const RerankPlan& plan, std::vector<RerankJob> jobs, Context& context);

// The queries of stdin as they come, each answered as soon as it and those before it are scored. A
// few hundred pairs are in memory. REQUIRES: `out` is a stream.
RerankDone run_rerank_stream(const RerankPlan& plan, const RerankInput& input, RerankCheck check,
                             Context& context);

}  // namespace erank::cli
