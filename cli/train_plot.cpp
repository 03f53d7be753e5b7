#include <map>

#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/train/plot.h"

namespace erank::cli {
namespace {

using base::ErrorKind;

struct PlotFlags {
  std::vector<std::string> runs;
  std::string out;
  bool overwrite = false;
};

void run_plot(const PlotFlags& flags) {
  const std::string_view name = data::without_packing(flags.out);
  const bool svg = name.ends_with(".svg");
  if (!svg && !name.ends_with(".html"))
    base::fail(ErrorKind::kInvalidInput, "--out", flags.out,
               ": expected a name that ends in .svg or .html (or with .gz or .zst after it)");
  if (flags.runs.size() > size_t{train::kMaxPlottedRuns})
    base::fail(ErrorKind::kInvalidInput, "train plot", flags.runs.size(),
               " runs; expected at most ", train::kMaxPlottedRuns,
               ", which one picture can tell apart");
  std::vector<std::string> logs;
  for (const auto& run : flags.runs)
    logs.push_back(base::folder_exists(run) ? run + "/log.jsonl" : run);
  Output output(flags.out, flags.overwrite, logs);
  std::vector<train::RunCurves> runs;
  std::map<std::string, int> uses;
  for (const auto& run : flags.runs) ++uses[runs.emplace_back(train::read_run_curves(run)).name];
  // Runs of one name are called by their paths.
  for (size_t i = 0; i < runs.size(); ++i)
    if (uses[runs[i].name] > 1) runs[i].name = flags.runs[i];
  output.write(svg ? train::plot_svg(runs) : train::plot_html(runs));
  output.commit();
}

}  // namespace

void add_train_plot(CLI::App& train, Context& context) {
  auto* verb = train.add_subcommand("plot", "Draw the curves of training runs over each other");
  auto flags = std::make_shared<PlotFlags>();
  verb->add_option("RUN", flags->runs, "training folders, or their log.jsonl")->required();
  verb->add_option("--out", flags->out, "picture to make: FILE.svg or FILE.html")->required();
  verb->add_flag("--overwrite", flags->overwrite, "let --out replace a file");
  verb->footer("Example: erank train plot run1 run2 --out curves.html");
  verb->callback([flags, &context] { context.run = [flags] { run_plot(*flags); }; });
}

}  // namespace erank::cli
