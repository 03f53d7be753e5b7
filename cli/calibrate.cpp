#include "cli/made_of.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "cli/run_scale.h"
#include "cli/text_table.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/records.h"
#include "erank/data/results.h"
#include "erank/eval/calibration.h"
#include "erank/eval/comparison.h"
#include "erank/rank/model_files.h"

namespace erank::cli {
namespace {

using base::ErrorKind;

struct CalibrateFlags {
  std::string run, qrels, out, scale, model;
  int64_t relevance_level = 1;
  bool overwrite = false;
};

// What made the run's scores, if it is known; it must be a model's own score, and that of
// flags.model, if it is to lie beside it.
std::optional<eval::ScoredBy> scored_by(const CalibrateFlags& flags) {
  if (const std::string hybrid = hybrid_of(flags.run); !hybrid.empty())
    base::fail(ErrorKind::kInvalidInput, "calibrate", flags.run, " was made with --hybrid ", hybrid,
               ", and a calibration is for the model's own score; give a run without --hybrid");
  std::optional<eval::ScoredBy> by;
  if (base::file_exists(flags.run))
    by = read_made_of(base::output_target(flags.run).path, "rerank")
             .value_or(MadeRecord())
             .scored_by;
  ModelFlags model;
  model.options.model = flags.model;
  if (by && !flags.model.empty() && by->weights != rank::files_digest(model.files()))
    base::fail(ErrorKind::kInvalidInput, "--model", flags.model, ": ", flags.run,
               " was made with other files, of the model ", by->model,
               " or of an --adapter or --prompt-format; give the model of the run, or --out");
  return by;
}

void run_calibrate(const CalibrateFlags& flags) {
  const std::string out = flags.model.empty() ? flags.out : rank::calibration_of_model(flags.model);
  Output output(out, flags.overwrite, {flags.run, flags.qrels});
  const auto by = scored_by(flags);
  data::ReadNotes notes;
  const data::Qrels qrels = data::read_qrels(flags.qrels, &notes);
  tell(flags.qrels, notes);
  const data::Results results = data::read_results(flags.run);
  const auto pairs = eval::judged_scores(qrels, results, flags.relevance_level);
  const eval::ScoreScale scale =
      eval::find_scale(results, pairs, said_scale(flags.run, flags.scale));
  eval::Calibration map = eval::fit_calibration(pairs);
  map.scored_by = by;
  const eval::CrossValidation measured = eval::cross_validate(pairs, scale.highest);
  if (measured.platt.brier < measured.isotonic.brier)
    map.method = eval::Calibration::Method::kPlatt;
  output.write(base::dump_json(eval::to_json(map, measured, pairs)) + "\n");
  output.commit();
  if (!by)
    warn(base::str("nothing says which model and options made the scores of ", flags.run,
                   ", so rerank cannot tell whether the calibration is for its scores; `erank "
                   "rerank --out F` keeps that in ",
                   made_path("F")));
  const bool platt = map.method == eval::Calibration::Method::kPlatt;
  ProgressLine::print_above(base::str(
      "erank: ", pairs.size(), " judged pairs, scores ",
      scale.highest > 0 ? base::str("from 0 to ", scale.highest, " (", eval::why(scale.from), ")")
                        : std::string("on no scale"),
      "; expected calibration error on other queries ",
      measured.before ? formatted("%.4f", measured.before->expected_error) + " before, " : "",
      formatted("%.4f", (platt ? measured.platt : measured.isotonic).expected_error), " after (",
      platt ? "platt" : "isotonic", ")"));
}

}  // namespace

void add_calibrate(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand(
      "calibrate", "Learn from judged pairs which probability of relevance a score means");
  auto flags = std::make_shared<CalibrateFlags>();
  verb->add_option("RUN", flags->run,
                   "scores of judged pairs: JSON lines of erank rerank, or a TREC run")
      ->required();
  verb->add_option("--qrels", flags->qrels, "judgements, those of grade 0 too")->required();
  verb->add_option("-l,--level", flags->relevance_level, "the lowest grade that is relevant")
      ->capture_default_str();
  verb->add_option("--scale", flags->scale,
                   "what the run's model was asked for, yes-no, 0-3 or 0-10 (default: what the run "
                   "or its\n.made.json says, else a guess from the scores)")
      ->check(CLI::IsMember({"yes-no", "0-3", "0-10"}));
  auto* out =
      verb->add_option("--out", flags->out, "write here instead of stdout, e.g. calibration.json");
  verb->add_option("--model", flags->model,
                   "write beside this model, whose run it is: erank rerank takes it from there")
      ->excludes(out);
  verb->add_flag("--overwrite", flags->overwrite, "let --out or --model replace a file");
  verb->footer(
      "Example: erank calibrate erank.jsonl --qrels qrels.tsv --out calibration.json\n"
      "         erank rerank ... --calibrated calibration.json --min-probability 0.5");
  verb->callback([flags, &context] { context.run = [flags] { run_calibrate(*flags); }; });
}

}  // namespace erank::cli
