// The records of a reranking job, and the readers and writers of every text format that holds them:
// JSON, CSV, TSV and plain text, BEIR folders, TREC runs and qrels, candidate lists.
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

// What a reader left out of a file or changed in it. Readers add to it; who calls them tells it.
struct ReadNotes {
  int64_t comments = 0;  // lines that begin with # and are no record: left out
  int64_t repeated = 0;  // records that were there already, and are the same: left out
  // Records with bytes that are no UTF-8, or a JSON escape of half a surrogate pair, in a text:
  // U+FFFD is in their place.
  int64_t repaired = 0;
  // Objects and rows without id, which get a number; `told` does not name them.
  int64_t numbered = 0;
};
// One line that tells it, or "" when there is nothing to tell: "run.txt: 2 lines that begin ...".
std::string told(const std::string& path, const ReadNotes& notes);

struct ReadOptions {
  // The field or column that a document's text is in; "": the first of the usual ones.
  std::string text_field = {};
  ReadNotes* notes = nullptr;
};

// Every reader takes plain, gzip and zstd, by the content; "-" is stdin. UTF-16 and UTF-32 are an
// Error{kInvalidInput}. Ids are UTF-8: another one is an Error{kInvalidInput} with its line. Texts
// are made valid UTF-8.

// Calls `line(text, number)` for every line, split at \n alone, a final \r and leading byte order
// marks dropped, numbers from 1. Invalid UTF-8 is passed on as it is. Throws Error{kNotFound,
// kCorrupt}, or Error{kExhausted} for one line over `max_line_bytes` after decompression.
void for_each_line(const std::string& path,
                   const std::function<void(std::string_view line, int64_t number)>& line,
                   size_t max_line_bytes = size_t{1} << 30);

// Queries and documents. Format by the name's ending before .gz/.zst:
//   .jsonl, .json  a JSON value a line, or one array of them: an object {_id|id|pid|docid|...,
//   title?,
//                  text|contents|content|passage|body}, of a query also `query`, which is preferred
//                  there, or a text alone
//   .csv           RFC 4180, with a header line that names the same fields
//   .tsv           with such a header line (all its names are known ones), or id TAB text; a
//                  document may be id TAB title TAB text
//   .txt           a text a line; queries: or TREC topics, see trec_topics.h
// Headerless TSV of four columns with a URL in the second is MS MARCO's documents. Another ending:
// as on stdin, but for plain text. On stdin ("-") or a pipe without ending the content decides, see
// docs/formats.md. A missing or empty id is the number of the line, in an array of the element;
// JSON ids may be whole numbers; blank lines are skipped but in .txt; empty text is kept. The same
// id twice: with equal text once, with different text Error{kInvalidInput} naming both lines. Other
// faults: Error{kInvalidInput} with the line.
std::vector<Query> read_queries(const std::string& path, const ReadOptions& options = {});
std::vector<Document> read_documents(const std::string& path,
                                     base::ProgressSink* progress = nullptr,
                                     const ReadOptions& options = {});

enum class RecordKind { kQuery, kDocument };

// Their ids alone; one that comes twice counts once, whatever its texts are.
std::unordered_set<std::string> read_ids(const std::string& path, RecordKind kind);

// Calls `take` with each document in the file's order, as above but without holding the texts.
void for_each_document(const std::string& path, const std::function<void(Document)>& take,
                       base::ProgressSink* progress = nullptr, const ReadOptions& options = {});

// Only the documents whose id is in `wanted` (all are checked for duplicates): for corpora larger
// than memory. Ids that the corpus lacks are simply missing from the result.
std::unordered_map<std::string, Document> read_documents(
    const std::string& path, const std::unordered_set<std::string>& wanted,
    base::ProgressSink* progress = nullptr, const ReadOptions& options = {});

// TREC run: "qid Q0 docid rank score tag [anything]", blanks or tabs; with exactly five tabs ids
// may hold blanks. A line that begins with # is a record when it has exactly six columns with a
// whole rank and a finite score, else a comment. Throws Error{kInvalidInput} with the line number
// for fewer than six columns, a line whose id seems to hold a blank, a score that is no finite
// number, or a docid twice in one query.
Run read_run(const std::string& path, ReadNotes* notes = nullptr);

// TREC qrels "qid 0 docid grade", BEIR TSV "query-id TAB corpus-id TAB score" with or without its
// header line, CSV with such a header line, or JSON, a line each or one array, of objects with the
// same keys or with the query's id and `gold_ids`, a list of documents of grade 1 (BRIGHT); the
// first line decides. A grade is a whole number ("1.0" is one). A line that begins with # is a
// record when it has exactly the form's columns and a whole grade, else a comment. The same pair
// twice: with equal grades once, with different grades Error{kInvalidInput}.
Qrels read_qrels(const std::string& path, ReadNotes* notes = nullptr);

// Appends a TREC line for each hit, in the given order, rank from 1. The score column falls
// strictly, also when it is read as float32: a score that is not below the one before becomes the
// next float under that one. Throws Error{kInvalidInput} when an id is empty, holds a blank, is no
// UTF-8, or, of a query, begins with a byte order mark: the form cannot carry these. What was
// written reads back the same. REQUIRES: finite scores.
void append_trec_lines(std::string& out, std::string_view qid, const std::vector<Hit>& hits,
                       std::string_view tag);

// The whole run, atomically, compressed by the name's ending (see OutputText).
void write_run(const std::string& path, const Run& run);

// {qid, query, hits: [{docid, text, title?, score?}]}, a line each or one array; other keys are
// ignored. Texts are under the names that documents have them under. As rank_llm writes them:
// {query: {qid, text}, candidates: [{docid, score, doc: {...}}]}. Or MS MARCO's top1000 TSV: qid
// TAB docid TAB query TAB passage. A hit twice with equal text counts once; Error{kInvalidInput}
// for one with different text, a qid twice, or a hit without docid or text.
std::vector<CandidateList> read_candidates(const std::string& path,
                                           const ReadOptions& options = {});

// The same, one query after another: of JSON lines one is in memory at a time, and of a pipe each
// is given before the next one is read. `where` names its place for messages: "stdin:3". A qid that
// comes twice is no error here.
void for_each_candidates(
    const std::string& path, const ReadOptions& options,
    const std::function<void(CandidateList list, const std::string& where)>& take);

// A BEIR folder: corpus.jsonl and queries.jsonl (or .jsonl.gz, .jsonl.zst, .parquet),
// qrels/<split>.tsv or .txt; qrels.tsv or qrels.txt beside them is the split "test". A missing file
// is an empty string; throws Error{kNotFound} without the folder, or without corpus and queries.
struct BeirFolder {
  std::string corpus, queries;
  std::map<std::string, std::string> qrels;  // split name -> path
};
BeirFolder find_beir(const std::string& folder);

}  // namespace erank::data
