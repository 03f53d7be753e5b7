// A benchmark task's candidates as one file, whatever its data folder has them from.
#pragma once

#include <string>

#include "cli/benchmark_data.h"
#include "erank/base/progress.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {

struct CandidateOptions {
  int top = 100;
  int threads = 1;
  std::string index;  // where an index of the corpus goes, where candidates are to be searched
  retrieve::QueryWeights weights = retrieve::QueryWeights::kCounts;  // of such a search
};

// Writes a line that `erank rerank --candidates` reads for each query to `out`, replacing it: its
// candidates with texts, or the run's or the list's, or else what BM25 finds in the corpus; without
// those that do not count, then the first `top`. False when the user interrupts. Throws as the
// readers do, and Error{kInvalidInput} for candidates that the corpus lacks.
bool write_candidates(const eval::Benchmark& benchmark, const TaskFiles& files,
                      const TaskQueries& task, const CandidateOptions& options,
                      const std::string& out, base::ProgressSink& progress);

}  // namespace erank::cli
