// What is known of one query's passages when they are scored, and their order. Pure values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "erank/rank/checkpoint.h"
#include "erank/rank/fusion.h"
#include "erank/text/score_distribution.h"

namespace erank::rank {

// What of a document that exceeds its budget of tokens (or the model's context) is read.
enum class LongDocuments {
  kCut,      // its beginning
  kWindows,  // windows of the budget's size (text::split_windows), each as a pair of its own; the
             // best score counts. Where fewer than 16 tokens are left for a document: kCut
};

// How one pair is scored. What is not set takes the checkpoint's default.
struct ScoreOptions {
  std::optional<std::string> instruction = {};
  std::optional<Mode> mode = {};
  std::optional<ScoreKind> score = {};
  std::optional<int> max_think_tokens = {};
  double temperature = 0;  // of the reasoning; 0: greedy
  uint64_t seed = 0;       // of the reasoning's draws
  // Reasonings that are drawn of a pair, whose score is the mean of theirs. More than one only with
  // Mode::kThink and a temperature.
  int samples = 1;
  LongDocuments long_documents = LongDocuments::kWindows;
  int max_windows = 8;  // of a document; what comes after is not read
  // Weight of the first stage in w share(first stage) + (1 - w) share(model), shares by
  // hybrid_method; not set: the model's score alone.
  std::optional<double> hybrid_weight = {};
  FusionMethod hybrid_method = FusionMethod::kZScore;
};

enum class Finish {
  kAnswered,  // the model gave its answer (in direct mode it is always asked for at once)
  kForced,    // the reasoning ended without an answer or exceeded its budget; answer forced
  kClipped,   // the model's context was full before the budget; answer forced there
};

// The part of a document that its result is of.
struct WindowPlace {
  int number = 1, of = 1;      // counting from 1
  int64_t begin = 0, end = 0;  // see text::Window
};

// Why a pair has no score.
struct PassageError {
  enum class Kind {
    kTooLong,    // the prompt does not fit the model's context
    kNoRoom,     // the cache of keys and values can never hold it, or its pass found no memory
    kNotFinite,  // the network gave no numbers
    kFailed,     // the pass in which it was computed failed, e.g. for want of memory
    kCancelled,  // by Ticket::cancel, or the reranker has stopped
  };
  Kind kind = Kind::kFailed;
  std::string message;  // one line: query, document, what is wrong, what to do
};

struct PassageResult {
  std::string docid;
  size_t index = 0;        // in RankRequest::passages
  double score = 0;        // by ScoreOptions::score; in a Ranking with hybrid_weight: the blend
  int integer = 0;         // on the scale, "yes" is 1: what greedy decoding answers
  double probability = 0;  // Pr(integer)
  text::ScoreDistribution distribution;
  std::optional<double> first_stage_score;
  std::optional<double> relevance;  // probability by the caller's calibration of the score
  std::string reasoning;            // "" in direct mode
  Finish finish = Finish::kAnswered;
  // "query_truncated", "document_truncated", "empty_document", "binary_document" (control
  // characters or broken text), "unformatted" (the model ended without a readable answer),
  // "low_answer_mass" (kLowAnswerMass), "constant_scores" (kConstantScores; make_ranking adds it).
  std::vector<std::string> flags;
  // Of a document read in windows: the best one, the first of equals. All above is of that one;
  // the counts below are of all windows together.
  std::optional<WindowPlace> window;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, shared with others instead of computed
  int64_t new_tokens = 0;
  std::optional<PassageError> error;  // set: nothing else is but docid, index, first stage, flags
};

// A model that does not answer as it was asked to ranks by noise: its eleven answers together have
// less than this probability,
inline constexpr double kLowAnswerMass = 0.1;
// or the expected scores of a query's passages, three or more, differ by less than this.
inline constexpr double kConstantScores = 1e-4;

// What a pair's samples say together: the means of scores and distributions; integer, probability,
// reasoning, finish and flags of the sample whose score is nearest to the mean, the first of
// equals; new tokens of all. REQUIRES: at least one sample, none with an error.
PassageResult mean_of_samples(std::vector<PassageResult> samples);

struct Ranking {
  std::string qid;
  std::vector<PassageResult> results;  // best first
  std::vector<PassageResult> failed;   // those with an error, in order of index
};

// Blends (when `options.hybrid_weight` is set) and sorts the results of one query, ties in order of
// index; those with an error are put apart and take no part in the blend. Pure: what Reranker does
// last, and what a resumed job does with results it has from before. Throws Error{kInvalidInput}
// when a blend is asked for and a first-stage score is missing or the weight is not in 0..1.
Ranking make_ranking(const std::string& qid, std::vector<PassageResult> results,
                     const ScoreOptions& options);

}  // namespace erank::rank
