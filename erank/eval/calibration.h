// From a reranker's score to a probability of relevance, learned from judged pairs, and how far
// stated probabilities are from what happens. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "erank/base/json.h"

namespace erank::eval {

struct JudgedScore {
  double score = 0;
  bool relevant = false;
  int64_t group = 0;  // its query: pairs of one are left out of the learning together
};

// A map from scores to probabilities that never falls.
struct Calibration {
  enum class Method { kIsotonic, kPlatt };
  Method method = Method::kIsotonic;  // which of the two probability() uses

  // kIsotonic: the fitted probabilities at these scores, both ascending; linear between them, flat
  // outside.
  std::vector<double> scores = {}, probabilities = {};
  // kPlatt: 1 / (1 + exp(-(slope score + intercept))), slope >= 0.
  double slope = 0, intercept = 0;

  double probability(double score) const;
};

// Isotonic regression of relevance on the score by pool adjacent violators (Ayer et al. 1955; for
// calibration Zadrozny and Elkan 2002), and Platt's sigmoid (1999) with his targets (N+ + 1) / (N+
// + 2) and 1 / (N- + 2), by Newton's method as Lin, Lin and Weng 2007 do; a falling sigmoid becomes
// a flat one. `method` is left at kIsotonic. Throws Error{kInvalidInput} unless there are relevant
// pairs and others.
Calibration fit_calibration(std::span<const JudgedScore> pairs);

// What a reader of scores takes for their probability without a calibration: the score itself where
// all are within 0 and 1, a tenth of it within 0 and 10, else nothing.
std::optional<double> score_scale(std::span<const JudgedScore> pairs);  // 1, 10 or nothing

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
  std::optional<Reliability> before;  // of score / score_scale(), where there is such a scale
  Reliability isotonic, platt;
};

// Groups are dealt to at most 5 folds in turn, in ascending order; each fold's pairs get their
// probabilities from the maps learned from the other folds. Throws Error{kInvalidInput} where a
// fold leaves only relevant or only other pairs to learn from, or with fewer than two groups.
CrossValidation cross_validate(std::span<const JudgedScore> pairs);

// The file calibration.json (docs/formats.md, "Calibration"): both maps, the one in use, and what
// was measured.
base::OrderedJson to_json(const Calibration& calibration, const CrossValidation& measured,
                          std::span<const JudgedScore> pairs);
// Reads such a file. Throws Error{kNotFound}, Error{kInvalidInput} for anything else, and for a map
// that falls.
Calibration read_calibration(const std::string& path);

}  // namespace erank::eval
