// The records of a reranking job, and the readers and writers of every text format that holds them:
// JSONL, TSV and plain text, BEIR folders, TREC runs and qrels, candidate lists. Plain, .gz or .zst.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "erank/base/progress.h"

namespace erank::data {

struct Query {
  std::string id;
  std::string text;
};

struct Document {
  std::string id;
  std::string text;  // title + " " + text where the source has a title
};

struct Hit {
  std::string docid;
  double score = 0;
};

// A run: for each query its hits as the file lists them. Query order is the order of first appearance.
struct Run {
  std::vector<std::string> qids;
  std::unordered_map<std::string, std::vector<Hit>> hits;
  std::string tag;
};

// qid -> docid -> grade.
struct Qrels {
  std::vector<std::string> qids;  // in order of first appearance
  std::unordered_map<std::string, std::unordered_map<std::string, int64_t>> grades;
};

// One query with its candidates in first-stage order.
struct Candidate {
  Document document;
  std::optional<double> score;  // the first stage's
};
struct CandidateList {
  Query query;
  std::vector<Candidate> candidates;
};

// Calls `line(text, number)` for every line of a plain, .gz or .zst file ("-" is stdin), split at \n alone, a
// final \r dropped, numbers from 1. Compression is recognised by the content's magic bytes. Invalid UTF-8 is
// passed on as it is. Throws Error{kNotFound, kCorrupt}, or Error{kExhausted} for one line over `max_line_bytes`.
void for_each_line(const std::string& path, const std::function<void(std::string_view line, int64_t number)>& line,
                   size_t max_line_bytes = size_t{1} << 30);

// Queries and documents. Format by the name's ending behind .gz/.zst: .jsonl ({_id|id|qid|docid, text|query|contents,
// title?}), .tsv (id TAB text; a document may be id TAB title TAB text), .txt (a line each; its number is the id). On
// stdin ("-"): JSONL if the first byte is `{`, else .txt. A missing id is the line number. Text is made valid UTF-8.
// The same id twice: with equal text once, with different text Error{kInvalidInput} naming both lines.
std::vector<Query> read_queries(const std::string& path);
std::vector<Document> read_documents(const std::string& path, base::ProgressSink* progress = nullptr);

// Only the documents whose id is in `wanted` (all are checked for duplicates): for corpora larger than memory.
std::unordered_map<std::string, Document> read_documents(const std::string& path,
                                                         const std::unordered_map<std::string, bool>& wanted,
                                                         base::ProgressSink* progress = nullptr);

// TREC run: "qid Q0 docid rank score tag", blanks or tabs. Throws Error{kInvalidInput} with the line number for
// fewer than six columns, a score that is no finite number, or a docid twice in one query.
Run read_run(const std::string& path);

// TREC qrels "qid 0 docid grade", or BEIR TSV "query-id corpus-id score" with or without its header line.
Qrels read_qrels(const std::string& path);

// {qid, query, hits: [{docid, text, title?, score?}]} a line.
std::vector<CandidateList> read_candidates(const std::string& path);

// A BEIR folder: corpus.jsonl(.gz|.zst), queries.jsonl(...), qrels/<split>.tsv or qrels.txt.
struct BeirFolder {
  std::string corpus, queries;
  std::map<std::string, std::string> qrels;  // split name -> path
};
BeirFolder find_beir(const std::string& folder);

}  // namespace erank::data
