// Runs compared over the queries of one set of judgements: the numbers of `erank report`.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "erank/data/records.h"
#include "erank/data/results.h"
#include "erank/eval/calibration.h"
#include "erank/eval/measures.h"
#include "erank/eval/statistics.h"

namespace erank::eval {

struct NamedRun {
  std::string name;
  data::Results results;
  std::unordered_map<std::string, double> seconds = {};  // by query, where they are known
  std::optional<ScoreScale> scale = {};  // where it is known otherwise than by find_scale()
};

// The scores of one query's candidates by the first stage and by the reranker, and the first
// stage's weight, to the scores of the blend: rank::blend with FusionMethod::kZScore.
using Blend =
    std::function<std::vector<double>(std::span<const double>, std::span<const double>, double)>;

struct ComparisonOptions {
  std::vector<std::string> measures = {"nDCG@10"};  // tests and plots are of the first one
  int64_t relevance_level = 1;  // of the measures, and the lowest grade that is relevant
  bool complete = false;        // all queries of the judgements; what a run lacks counts as 0
  double confidence = 0.95;
  uint64_t seed = 1;  // of resampling and of the halves
};

struct Estimate {
  double mean = 0;
  Interval interval;  // bootstrap_mean over queries
};

// One run, or a blend, against the first run, on the first measure.
struct PairedTest {
  Estimate difference;
  int64_t wins = 0, ties = 0, losses = 0;     // queries
  double p_randomization = 1, p_t = 1;        // as they are
  double holm_randomization = 1, holm_t = 1;  // corrected over all PairedTests of the comparison
  int64_t queries_needed = 0;
};

// The blend of a run with the first one, its weight never chosen on the queries it is measured on:
// queries are dealt to two halves at random, each half's queries are blended with the weight of 0,
// 0.1, ... 1 that is best on the other half (the least of equals).
struct BlendTest {
  double weights[2] = {0, 0};  // of the first stage; [i] is used on half i
  double weight_of_all = 0;    // the best on all queries: what to use from now on
  std::vector<double> values;  // of each query, by its half's weight
  Estimate value;
  PairedTest test;
};

enum class Answer { kYes, kNo, kCannotTell };

// The pairs of a run with one grade, or without judgement.
struct GradeScores {
  std::optional<int64_t> grade;
  std::vector<double> scores;
};

struct ComparedRun {
  std::string name;
  std::vector<Estimate> estimates = {};  // of each measure
  std::vector<double> values = {};       // of each query, on the first measure
  TieCounts ties = {};                   // of its scores as 32-bit floats
  std::vector<GradeScores> scores = {};  // grades descending, those not judged last
  ScoreScale scale = {};
  // Of score / scale.highest, where there is a scale, and pairs of both kinds.
  std::optional<Reliability> reliability = {};
  std::vector<double> prompt_tokens = {}, new_tokens = {};  // of each pair, where the run says them
  std::vector<double> seconds = {};                         // of each query, where they are known
  // Not of the first run:
  std::optional<PairedTest> test = {};
  std::optional<BlendTest> blend = {};  // with at least 4 queries
  // kYes: the run or its blend is better, with holm_randomization below 0.05. kNo: not that, and
  // the intervals of both end below kWorthwhile, on kFewestForNo queries or more. Else
  // kCannotTell.
  Answer answer = Answer::kCannotTell;
};

// The least gain on a measure from 0 to 1 that is worth a reranker.
inline constexpr double kWorthwhile = 0.01;
inline constexpr size_t kFewestForNo = 10;  // an interval of fewer says too little

struct Comparison {
  ComparisonOptions options;
  std::vector<std::string> measures;  // their names
  std::vector<std::string> qids;      // compared, in byte order
  std::vector<ComparedRun> runs;
  // A line each: topics left out or counted as 0, documents that no blend can take in.
  std::vector<std::string> warnings;
  int64_t num_resamples = 0, num_signs = 0;  // draws of each interval and randomisation test
};

// Queries are those that the judgements and every run have; with options.complete all of the
// judgements. Throws Error{kInvalidInput} when there are none, for a measure without values per
// query, and for two runs of one name. REQUIRES: at least one run. Thread-safe.
Comparison compare(const data::Qrels& qrels, const std::vector<NamedRun>& runs,
                   const ComparisonOptions& options, const Blend& blend);

// The judged pairs of a run with a score; `group` is the query's place in byte order. Queries that
// the judgements lack are left out.
std::vector<JudgedScore> judged_scores(const data::Qrels& qrels, const data::Results& results,
                                       int64_t relevance_level);

// "yes", "no", "cannot be told".
std::string answer_name(Answer answer);
// One sentence for people: the answer of a run, with its numbers.
std::string answer_text(const Comparison& comparison, const ComparedRun& run);

}  // namespace erank::eval
