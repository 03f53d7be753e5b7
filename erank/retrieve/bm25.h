// BM25 first stage: search, as Lucene ranks, in an index of a whole corpus in one file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"
#include "erank/retrieve/index_builder.h"

namespace erank::retrieve {

// What a term of the query counts: how often it is there, as in Lucene; or, as in the baseline of
// BRIGHT, whose queries are as long as documents, what it would count in a document:
//   idf(t) * tf / (tf + k1 * (1 - b + b * length / average_length)),
// with tf and length those of the query, terms that the index lacks left out.
enum class QueryWeights { kCounts, kBm25 };

// The score of a document is the sum over the query's terms, each times its QueryWeights, of
//   idf(t) * tf / (tf + k1 * (1 - b + b * length / average_length)),  k1 = 0.9, b = 0.4,
//   idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)),
// with N the documents that have a term at all, and `length` the number of terms rounded down to
// Lucene's one-byte scale (exact up to 40, then four significant bits): Lucene's BM25Similarity
// from version 8 on with the parameters of Anserini's published baselines. A term's part is a
// float; the parts are added as doubles, each rounded to a multiple of 2^-51 times a power of two
// over the largest possible score, so that no order of additions makes a difference.
//
// Documents without a chance to be among the best are passed over by the largest parts that the
// file keeps of each block of postings (block-max MaxScore); hits and scores are those of looking
// at all of them. docs/formats.md describes the file.
//
// Immutable after it is made; thread-safe.
class Index {
 public:
  // In memory. Documents are numbered in the byte order of their ids. Deterministic: the same bytes
  // for any number of threads. Throws Error{kInvalidInput} for no documents. REQUIRES: ids are
  // unique.
  static Index build(std::span<const data::Document> documents, int num_threads,
                     AnalyzerKind analyzer = AnalyzerKind::kEnglish);
  // The bytes that an IndexBuilder has written.
  static Index from_bytes(std::vector<char> bytes);

  // Maps the file and checks its end and checksums. What lies in it is checked when it is first
  // used, so every member throws Error{kCorrupt} for a file that is damaged there. Throws
  // Error{kNotFound}, or Error{kCorrupt} for a file that is no index or comes from another version.
  static Index open(const std::string& path);

  Index(Index&&) noexcept;
  Index& operator=(Index&&) noexcept;
  ~Index();

  std::string_view bytes() const;  // the file; they live as long as the index
  AnalyzerKind analyzer() const;
  int64_t num_documents() const;
  int64_t num_terms() const;
  int64_t num_postings() const;

  // The best `top` documents with a score over 0, best first; equal scores (as float32) in the byte
  // order of the ids, as Anserini has them.
  std::vector<data::Hit> search(std::string_view query, int top,
                                QueryWeights weights = QueryWeights::kCounts) const;

  // search() for every query, on `num_threads` threads; the result does not depend on their number.
  std::vector<std::vector<data::Hit>> search_all(
      std::span<const data::Query> queries, int top, int num_threads,
      QueryWeights weights = QueryWeights::kCounts) const;

  // A document's text. Throws Error{kNotFound} for an id that the index lacks.
  std::string text(std::string_view docid) const;

 private:
  struct State;
  explicit Index(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace erank::retrieve
