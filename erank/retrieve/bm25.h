// BM25 first stage: an index of a whole corpus in one file, and search in it as Lucene ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"

namespace erank::retrieve {

// The score of a document is the sum over the query's terms, each counted as often as it occurs
// there, of
//   idf(t) * tf / (tf + k1 * (1 - b + b * length / average_length)),  k1 = 0.9, b = 0.4,
//   idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)),
// with N the documents that have a term at all, and `length` the number of terms rounded down to
// Lucene's one-byte scale (exact up to 40, then four significant bits): Lucene's BM25Similarity
// from version 8 on with the parameters of Anserini's published baselines.
//
// The file, little-endian (docs/formats.md): a header of 128 bytes with magic, version, counts and
// a checksum over the rest, then seven arrays, each padded to 8 bytes: document id offsets and
// bytes, length codes, term offsets and bytes (terms sorted by bytes), posting offsets, postings
// {document, tf}.
//
// Immutable after it is made; thread-safe.
class Index {
 public:
  // Takes the documents' order for ties. Deterministic: the same file for any number of threads.
  // Throws Error{kInvalidInput} for no documents. REQUIRES: ids are unique.
  static Index build(std::span<const data::Document> documents, int num_threads,
                     base::ProgressSink* progress = nullptr);

  // Maps the file and checks all of it. Throws Error{kNotFound}, or Error{kCorrupt} for a file that
  // is no index, is damaged or comes from another version.
  static Index open(const std::string& path);

  std::string_view bytes() const;  // the file; they live as long as the index

  Index(Index&&) noexcept;
  Index& operator=(Index&&) noexcept;
  ~Index();

  int64_t num_documents() const;
  int64_t num_terms() const;
  int64_t num_postings() const;

  // The best `top` documents with a score over 0, best first; equal scores (as float32) in document
  // order.
  std::vector<data::Hit> search(std::string_view query, int top) const;

  // search() for every query, on `num_threads` threads; the result does not depend on their number.
  std::vector<std::vector<data::Hit>> search_all(std::span<const data::Query> queries, int top,
                                                 int num_threads,
                                                 base::ProgressSink* progress = nullptr) const;

 private:
  struct State;
  explicit Index(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace erank::retrieve
