// Which calibration is for which scores: what `erank rerank` and `erank serve` share.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "cli/model_options.h"
#include "erank/eval/calibration.h"
#include "erank/rank/reranker.h"

namespace erank::cli {

// A model with what all its scores depend on.
struct ScoringModel {
  std::string name;                   // for people
  std::string files;                  // digest of what it is read from
  rank::CheckpointDefaults defaults;  // those of `options` in their place
};
// Throws as rank::find_checkpoint does.
ScoringModel scoring_model(const ModelFlags& flags, const rank::RerankerOptions& options);

// What makes the scores of pairs with `options`, the model's defaults filled in.
eval::ScoredBy scored_by(const ScoringModel& model, const rank::ScoreOptions& options);

// `named` (--calibrated), else what lies beside the model, else "".
std::string calibration_file(const std::string& named, const std::string& model);

// What that file holds, where it is for the scores of which `now` says what makes them; `then` is
// what makes those that it is for. One that is named and is for others is refused with
// Error{kInvalidInput}, the one beside the model is not used; `tells`: with a warning.
std::optional<eval::Calibration> find_calibration(
    const std::string& named, const std::string& model, bool tells,
    const std::function<eval::ScoredBy(const eval::ScoredBy& then)>& now);

}  // namespace erank::cli
