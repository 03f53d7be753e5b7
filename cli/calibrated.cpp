#include "cli/calibrated.h"

#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/rank/model_files.h"

namespace erank::cli {

ScoringModel scoring_model(const ModelFlags& flags, const rank::RerankerOptions& options) {
  const auto checkpoint = rank::find_checkpoint(options.model);
  return {checkpoint.name, rank::files_digest(flags.files()),
          rank::with_options(checkpoint.defaults, options)};
}

eval::ScoredBy scored_by(const ScoringModel& model, const rank::ScoreOptions& options) {
  const rank::CheckpointDefaults& d = model.defaults;
  const rank::Mode mode = options.mode.value_or(d.mode);
  const bool windows = options.long_documents == rank::LongDocuments::kWindows;
  eval::ScoredBy by{model.name,
                    model.files,
                    options.instruction.value_or(d.instruction),
                    rank::mode_name(mode),
                    rank::score_kind_name(options.score.value_or(d.score)),
                    std::string(text::scale_name(d.prompt.scale))};
  if (mode == rank::Mode::kThink) {
    by.max_think_tokens = options.max_think_tokens.value_or(d.max_think_tokens);
    by.samples = options.samples;
    by.temperature = options.temperature;
  }
  by.max_document_tokens = d.prompt.max_document_tokens;
  by.max_query_tokens = d.prompt.max_query_tokens;
  by.long_documents = windows ? "windows" : "cut";
  if (windows) by.max_windows = options.max_windows;
  return by;
}

std::string calibration_file(const std::string& named, const std::string& model) {
  if (!named.empty()) return named;
  const std::string beside = rank::calibration_of_model(model);
  return base::file_exists(beside) ? beside : "";
}

std::optional<eval::Calibration> find_calibration(
    const std::string& named, const std::string& model, bool tells,
    const std::function<eval::ScoredBy(const eval::ScoredBy&)>& now) {
  const std::string file = calibration_file(named, model);
  if (file.empty()) return std::nullopt;
  auto calibration = eval::read_calibration(file);
  if (!calibration.scored_by) {
    if (tells) warn(file + " does not say which scores it is for; it is taken to be for these");
    return calibration;
  }
  const auto& then = *calibration.scored_by;
  const std::string what = eval::difference(then, now(then));
  if (what.empty()) return calibration;
  if (!named.empty())
    base::fail(base::ErrorKind::kInvalidInput, "--calibrated", file, " is for other scores: ", what,
               "; score as then, or make one of a run like this with `erank calibrate`");
  if (tells) warn(base::str(file, " is for other scores and is not used: ", what));
  return std::nullopt;
}

}  // namespace erank::cli
