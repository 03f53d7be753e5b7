// What `erank rerank` and `erank synth` read: its four ways to name queries and candidates, brought
// into one form.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "erank/data/records.h"
#include "erank/rank/reranker.h"

namespace erank::cli {

struct RerankInput {
  // Whose flags these are, and what it does with the documents: for messages.
  const char *verb = "rerank", *work = "rerank";
  std::optional<std::string> query;        // one query, with `docs`
  std::string docs;                        // its documents
  std::string queries, corpus, run, beir;  // a whole run; `beir` names queries and corpus
  std::string candidates;                  // a candidate list
  std::string text_field;                  // of documents; "": the usual ones
  int top = 100;                           // candidates of a query that are scored
};

struct RerankJob {
  std::string qid, query;
  std::vector<rank::Passage> passages;  // the first `top`, in first-stage order
  std::vector<rank::Passage> tail;      // those below, without their text
};

// The list's first `top` candidates as passages, the others as the tail.
RerankJob job_of(data::CandidateList list, int top);

// Queries that give no result, of which a warning names the first ones.
class QueriesWithoutCandidates {
 public:
  void add(const std::string& qid);
  void warn() const;  // when there are any

 private:
  std::vector<std::string> first_;
  int64_t count_ = 0;
};

// The flags that name it. `input` must outlive the verb.
void add_rerank_input(CLI::App& verb, RerankInput& input);

// Throws Error{kInvalidInput} when the flags do not name one way.
void check_rerank_input(const RerankInput& input);

// Throws as above, for an id of the run that the
// corpus or the queries lack, and for whatever the readers refuse. Warns about queries without
// candidates, which give no result.
std::vector<RerankJob> read_rerank_jobs(const RerankInput& input, base::ProgressSink& progress);

// What `input` names: files, and a BEIR folder as it is.
std::vector<std::string> input_files(const RerankInput& input);

}  // namespace erank::cli
