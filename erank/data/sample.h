// Which documents of a query are learned from: the mix of ERank (arXiv 2509.00520, section 4.1).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/check.h"
#include "erank/data/records.h"

namespace erank::data {

// What a document is among those of its query. Ranks are those of the first stage.
enum class SampleKind {
  kPositive,  // the one with the largest grade
  kOwn,       // a negative of the data set's own: judged, and graded below a positive's grade
  kHard,      // of ranks 1 to 10, and not relevant
  kMedium,    // of ranks 11 to 100
  kEasy,      // of later ranks
  kRelevant,  // another one that is graded as positive
};
constexpr size_t kNumSampleKinds = 6;
const char* sample_kind_name(SampleKind kind);

// The kind of each document of a list in the first stage's order. Those from `num_ranked` on have
// no rank. `own`: which of them (not 0) are the data set's own negatives; empty: none. One of the
// first ten ranks is hard all the same.
std::vector<SampleKind> sample_kinds(std::span<const int> grades, int positive_grade,
                                     size_t num_ranked, std::span<const char> own = {});

// Which `count` documents of such a list are learned from: the positive one; all hard ones; own
// negatives, as far as there is room after these; for the rest one half of the medium and one half
// of the easy ones, more of one kind where the other has too few; then other relevant ones. Where
// not all of a kind are taken they are drawn at random. Every one when there are no more than
// `count`. Ascending. A function of its arguments alone.
std::vector<size_t> sample_documents(std::span<const SampleKind> kinds, int64_t count,
                                     uint64_t seed);

struct SampleOptions {
  int64_t documents = 20;   // of a query at most
  int64_t max_rank = 1000;  // hits below are not looked at
  int positive_grade = 1;   // documents graded at least so are relevant
  uint64_t seed = 1;
};

struct SampleReport {
  int64_t queries = 0;                             // with a list
  std::array<int64_t, kNumSampleKinds> of_kind{};  // documents in all lists
  int64_t short_lists = 0;                         // lists of fewer than `documents`
  int64_t without_positive = 0;  // queries of the run that have no relevant document, left out
  int64_t without_hits = 0;      // judged queries that the run lacks, left out
  LostJudgements lost;           // not looked at
};

struct CandidateSample {
  std::vector<CandidateList> lists;  // in the order of the queries' file
  SampleReport report;
};

// `corpus` is read twice. A list for each query of `queries` that the run has hits for and that has
// a relevant document in the corpus. A list's documents are in the first stage's order with its
// scores; the positive one and own negatives that the first stage has not found follow without a
// score, by id. Throws Error{kInvalidInput} naming what the run points to when queries or corpus
// lack it, and when no list comes out.
CandidateSample sample_candidates(const std::string& queries, const std::string& corpus,
                                  const Qrels& qrels, const Run& run, const SampleOptions& options,
                                  const ReadOptions& read, base::ProgressSink* progress = nullptr);

}  // namespace erank::data
