// The records of a reranking job, and the readers and writers of every text format that holds them:
// JSONL, TSV and plain text, BEIR folders, TREC runs and qrels, candidate lists. Plain, .gz or
// .zst.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
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

// A run: for each query its hits as the file lists them. Query order is the order of first
// appearance.
struct Run {
  std::vector<std::string> qids;
  std::unordered_map<std::string, std::vector<Hit>> hits;
  std::string tag;  // of the last line, as trec_eval reports it
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

// Calls `line(text, number)` for every line of a plain, .gz or .zst file ("-" is stdin), split at
// \n alone, a final \r and leading byte order marks dropped, numbers from 1. Compression is
// recognised by the content's magic bytes. Invalid UTF-8 is passed on as it is. Throws
// Error{kNotFound, kCorrupt}, or Error{kExhausted} for one line over `max_line_bytes` after
// decompression.
void for_each_line(const std::string& path,
                   const std::function<void(std::string_view line, int64_t number)>& line,
                   size_t max_line_bytes = size_t{1} << 30);

// Queries and documents. Format by the name's ending before .gz/.zst: .jsonl ({_id|id|qid|docid,
// text| contents, title?}; a query's text may also be `query`, which is preferred there), .tsv (id
// TAB text; a document may be id TAB title TAB text), .txt (a line each, its number is the id). On
// stdin ("-") or a pipe without ending: JSONL if the first byte is `{`, else .txt. A JSONL or TSV
// record's missing or empty id is the line number; JSON ids may be numbers; blank lines of JSONL
// and TSV are skipped. Text is made valid UTF-8; empty text is kept. The same id twice: with equal
// text once, with different text Error{kInvalidInput} naming both lines. Other faults:
// Error{kInvalidInput} with the line number.
std::vector<Query> read_queries(const std::string& path);
std::vector<Document> read_documents(const std::string& path,
                                     base::ProgressSink* progress = nullptr);

// Calls `take` with each document in the file's order, as above but without holding the texts.
void for_each_document(const std::string& path, const std::function<void(Document)>& take,
                       base::ProgressSink* progress = nullptr);

// Only the documents whose id is in `wanted` (all are checked for duplicates): for corpora larger
// than memory. Ids that the corpus lacks are simply missing from the result.
std::unordered_map<std::string, Document> read_documents(
    const std::string& path, const std::unordered_set<std::string>& wanted,
    base::ProgressSink* progress = nullptr);

// TREC run: "qid Q0 docid rank score tag [anything]", blanks or tabs; with exactly five tabs ids
// may hold blanks. Lines that start with # are comments. Throws Error{kInvalidInput} with the line
// number for fewer than six columns, a line whose id seems to hold a blank, a score that is no
// finite number, or a docid twice in one query.
Run read_run(const std::string& path);

// TREC qrels "qid 0 docid grade", or BEIR TSV "query-id TAB corpus-id TAB score" with or without
// its header line; the first line decides. A grade is a whole number ("1.0" is one). The same pair
// twice: with equal grades once, with different grades Error{kInvalidInput}.
Qrels read_qrels(const std::string& path);

// Appends a TREC line for each hit, in the given order, rank from 1. The score column falls
// strictly, also when it is read as float32: a score that is not below the one before becomes the
// next float under that one. Throws Error{kInvalidInput} when an id is empty or holds a blank,
// which the form cannot carry. REQUIRES: finite scores.
void append_trec_lines(std::string& out, std::string_view qid, const std::vector<Hit>& hits,
                       std::string_view tag);

// The whole run, atomically.
void write_run(const std::string& path, const Run& run);

// {qid, query, hits: [{docid, text|contents, title?, score?}]} a line; other keys are ignored. A
// hit twice with equal text counts once; Error{kInvalidInput} for one with different text, a qid
// twice, or a hit without docid or text.
std::vector<CandidateList> read_candidates(const std::string& path);

// A BEIR folder: corpus.jsonl and queries.jsonl (or .jsonl.gz, .jsonl.zst), qrels/<split>.tsv or
// .txt; qrels.tsv or qrels.txt beside them is the split "test". A missing file is an empty string;
// throws Error{kNotFound} when the folder or both corpus and queries are missing.
struct BeirFolder {
  std::string corpus, queries;
  std::map<std::string, std::string> qrels;  // split name -> path
};
BeirFolder find_beir(const std::string& folder);

}  // namespace erank::data
