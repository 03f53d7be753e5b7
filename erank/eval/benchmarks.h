// The benchmarks that rerankers are measured on, as data: their tasks, what a model is told for
// each, which candidates it gets, what does not count, by what it is measured, and the rows of
// ERank's paper (arXiv 2509.00520, tables 1 to 3).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "erank/data/document_lists.h"
#include "erank/data/records.h"

namespace erank::eval {

struct PaperRow {
  std::string_view system;
  double mean = 0;                                              // of the first measure, times 100
  std::vector<std::pair<std::string_view, double>> tasks = {};  // where the paper names them
};

struct Benchmark {
  std::string_view name;                      // on the command line
  std::string_view title;                     // for people
  std::vector<std::string_view> tasks;        // those of its mean; empty: all there are
  std::vector<std::string_view> columns;      // names of the values that score_task gives
  int top = 100;                              // candidates of a query
  std::string_view query_weights = "counts";  // of its BM25: "counts" or "bm25"
  bool drops_identical_ids = false;           // a document with the query's own id is no candidate
  bool has_exclusions = false;                // queries name documents that are no candidates
  bool has_pairs = false;                     // of queries, Q-og and Q-changed, of two instructions
  std::vector<PaperRow> paper;
};

// "beir", "trec-dl", "bright", "followir". Throws Error{kInvalidInput} for another name.
const Benchmark& find_benchmark(std::string_view name);

// What the paper tells the model that relevance is.
std::string_view instruction_of(const Benchmark& benchmark, std::string_view task);

// What a task's runs are measured against.
struct TaskJudgements {
  data::Qrels qrels;            // with pairs: of the topics Q-og
  data::DocumentLists changed;  // with pairs: of Q, what the changed instruction made irrelevant
};

// A value for each column: nDCG@10; of FollowIR p-MRR, and of the topics Q-og MAP@1000, of news21
// nDCG@5. Means over all topics of the judgements, those without hits being 0, p-MRR over those
// with both rankings. Scores are 32-bit floats in trec_eval's order (doubles in p-MRR's), by which
// the published numbers were made. Throws as evaluate() and p_mrr().
std::vector<double> score_task(const Benchmark& benchmark, std::string_view task,
                               const TaskJudgements& judgements, const data::Run& run);

}  // namespace erank::eval
