// What a benchmark's data folder holds, in the layouts that people have it in (docs/formats.md,
// "Benchmark folder"), brought into one form.
#pragma once

#include <string>
#include <vector>

#include "erank/data/document_lists.h"
#include "erank/data/records.h"
#include "erank/eval/benchmarks.h"

namespace erank::cli {

// "": there is none.
struct TaskFiles {
  std::string task;
  std::string corpus, queries, qrels;
  std::string candidates;                         // with texts
  std::string run;                                // first-stage ranking
  std::string instructions, top_ranked, changed;  // FollowIR's
  // Of its older layout, in which `qrels` judges the queries under their first instruction: the
  // judgements under the changed one. Neither names it in a query's id.
  std::string changed_qrels;

  std::vector<std::string> all() const;  // those there are
};

// The tasks in `folder`, in the benchmark's order, else in that of their names; each has judgements
// (of the split `split`, where a folder has several), queries or candidates, and something to take
// candidates from. Throws Error{kNotFound} when there is no task or one lacks something, and
// Error{kInvalidInput} when two files have one role.
std::vector<TaskFiles> find_tasks(const eval::Benchmark& benchmark, const std::string& folder,
                                  const std::string& split);

struct TaskQueries {
  std::vector<data::Query> queries;  // the judged ones, in the file's order; their instruction, if
                                     // they have one, is appended to the text after a blank
  eval::TaskJudgements judgements;   // of these
  data::DocumentLists excluded;      // of these: no candidates
};

// The first `limit` queries, of pairs the first `limit` pairs; 0: all. Warns of what readers left
// out, and when a benchmark with exclusions has none. Throws as the readers do, and
// Error{kInvalidInput} when no query is judged.
TaskQueries read_task(const eval::Benchmark& benchmark, const TaskFiles& files, int limit);

// "310" of "310-og" and "310-changed".
std::string_view without_instruction(std::string_view qid);

}  // namespace erank::cli
