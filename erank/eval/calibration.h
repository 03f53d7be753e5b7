// From a reranker's score to a probability of relevance, learned from judged pairs, and how far
// stated probabilities are from what happens. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/base/json.h"
#include "erank/data/results.h"

namespace erank::eval {

struct JudgedScore {
  double score = 0;
  bool relevant = false;
  int64_t group = 0;  // its query: pairs of one are left out of the learning together
};

// What made a run's scores, the checkpoint's defaults filled in.
struct ScoredBy {
  std::string model;    // its name, for people
  std::string weights;  // digest of the files that it is read from
  std::string instruction, mode, score, scale;
  // What earlier versions wrote lacks some of these. Where the mode is "think":
  std::optional<int64_t> max_think_tokens = {}, samples = {};
  std::optional<double> temperature = {};
  std::optional<int64_t> max_document_tokens = {}, max_query_tokens = {};
  std::optional<std::string> long_documents = {};  // "windows", "cut"
  std::optional<int64_t> max_windows = {};         // where they are read in windows
};
base::OrderedJson to_json(const ScoredBy& by);
// Throws Error{kInvalidInput} for what is no such object, with `where` it is from.
ScoredBy scored_by_from_json(const base::Json& json, const std::string& where);
// "" where both make the same scores, else what differs first. What one of them does not say is not
// compared.
std::string difference(const ScoredBy& before, const ScoredBy& now);

// A map from scores to probabilities that never falls.
struct Calibration {
  enum class Method { kIsotonic, kPlatt };
  Method method = Method::kIsotonic;  // which of the two probability() uses

  // kIsotonic: the fitted probabilities at these scores, both ascending; linear between them, flat
  // outside.
  std::vector<double> scores = {}, probabilities = {};
  // kPlatt: 1 / (1 + exp(-(slope score + intercept))), slope >= 0.
  double slope = 0, intercept = 0;
  std::optional<ScoredBy> scored_by = {};  // the scores that it is for, where that is known

  double probability(double score) const;
};

// Isotonic regression of relevance on the score by pool adjacent violators (Ayer et al. 1955; for
// calibration Zadrozny and Elkan 2002), and Platt's sigmoid (1999) with his targets (N+ + 1) / (N+
// + 2) and 1 / (N- + 2), by Newton's method as Lin, Lin and Weng 2007 do; a falling sigmoid becomes
// a flat one. `method` is left at kIsotonic. Throws Error{kInvalidInput} unless there are relevant
// pairs and others.
Calibration fit_calibration(std::span<const JudgedScore> pairs);

// The scale of a run's scores, 0 to `highest`: what a reader takes for the probability of a pair
// without a calibration is its score / highest.
struct ScoreScale {
  enum class From { kGuess, kDistributions, kRecord, kOption };  // what says it
  double highest = 0;  // 1, 3 or 10; 0: the scores are on no scale, such as a first stage's
  From from = From::kGuess;
};
// As it is `said`, else by the lines' distributions, else a guess: 1 where no score of the run is
// above it, else 10. None where one of `judged`, its judged pairs, is off that scale; where an
// option said it, throws Error{kInvalidInput}.
ScoreScale find_scale(const data::Results& results, std::span<const JudgedScore> judged,
                      const std::optional<ScoreScale>& said = {});
// "guessed", "as its distributions say", "as its .made.json says", "as --scale says".
std::string_view why(ScoreScale::From from);

// A bar of a reliability diagram: the pairs whose probability is in [i / n, (i + 1) / n).
struct ReliabilityBin {
  int64_t num_pairs = 0;
  double mean_probability = 0, share_relevant = 0;  // 0 without pairs
};
inline constexpr int kReliabilityBins = 10;

struct Reliability {
  std::vector<ReliabilityBin> bins;
  double expected_error = 0;  // expected calibration error: mean of |mean_probability -
                              // share_relevant| over bins, weighted with their pairs (Naeini et al.
                              // 2015)
  double brier = 0;           // mean squared difference of probability and relevance
};
// REQUIRES: equal sizes, probabilities within 0 and 1.
Reliability reliability(std::span<const double> probabilities, std::span<const JudgedScore> pairs);

// How well the two maps do on queries that they were not learned from.
struct CrossValidation {
  int folds = 0;
  std::optional<Reliability> before;  // of score / highest, where there is a scale
  Reliability isotonic, platt;
};

// Groups are dealt to at most 5 folds in turn, in ascending order; each fold's pairs get their
// probabilities from the maps learned from the other folds. Throws Error{kInvalidInput} where a
// fold leaves only relevant or only other pairs to learn from, or with fewer than two groups.
// REQUIRES: scores from 0 to `highest`, unless that is 0.
CrossValidation cross_validate(std::span<const JudgedScore> pairs, double highest);

// The file calibration.json (docs/formats.md, "Calibration"): both maps, the one in use, and what
// was measured.
base::OrderedJson to_json(const Calibration& calibration, const CrossValidation& measured,
                          std::span<const JudgedScore> pairs);
// Reads such a file. Throws Error{kNotFound}, Error{kInvalidInput} for anything else, and for a map
// that falls.
Calibration read_calibration(const std::string& path);

}  // namespace erank::eval
