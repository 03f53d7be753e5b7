#include "cli/output.h"
#include "cli/progress_line.h"
#include "cli/text_table.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/data/records.h"
#include "erank/data/results.h"
#include "erank/eval/calibration.h"
#include "erank/eval/comparison.h"

namespace erank::cli {
namespace {

struct CalibrateFlags {
  std::string run, qrels, out;
  int64_t relevance_level = 1;
  bool overwrite = false;
};

void run_calibrate(const CalibrateFlags& flags) {
  Output output(flags.out, flags.overwrite, {flags.run, flags.qrels});
  data::ReadNotes notes;
  const data::Qrels qrels = data::read_qrels(flags.qrels, &notes);
  tell(flags.qrels, notes);
  const auto pairs =
      eval::judged_scores(qrels, data::read_results(flags.run), flags.relevance_level);
  eval::Calibration map = eval::fit_calibration(pairs);
  const eval::CrossValidation measured = eval::cross_validate(pairs);
  if (measured.platt.brier < measured.isotonic.brier)
    map.method = eval::Calibration::Method::kPlatt;
  output.write(base::dump_json(eval::to_json(map, measured, pairs)) + "\n");
  output.commit();
  const bool platt = map.method == eval::Calibration::Method::kPlatt;
  ProgressLine::print_above(base::str(
      "erank: ", pairs.size(), " judged pairs; expected calibration error on other queries ",
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
  verb->add_option("--out", flags->out, "write here instead of stdout, e.g. calibration.json");
  verb->add_flag("--overwrite", flags->overwrite, "let --out replace a file");
  verb->footer(
      "Example: erank calibrate erank.jsonl --qrels qrels.tsv --out calibration.json\n"
      "         erank rerank ... --calibrated calibration.json --min-probability 0.5");
  verb->callback([flags, &context] { context.run = [flags] { run_calibrate(*flags); }; });
}

}  // namespace erank::cli
