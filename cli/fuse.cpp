#include <charconv>
#include <cmath>

#include "cli/checks.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/data/records.h"
#include "erank/rank/fusion.h"

namespace erank::cli {
namespace {

struct FuseFlags {
  std::string method, weights, out, tag = "erank-fuse";
  std::vector<std::string> runs;
  double rrf_k = rank::kRrfConstant;
  bool overwrite = false;
};

// "0.2,0.8", one for each run; "" is 1 for each.
std::vector<double> parse_weights(const std::string& text, size_t num_runs) {
  if (text.empty()) return std::vector<double>(num_runs, 1.0);
  std::vector<double> weights;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (bool more = true; more;) {
    double weight = -1;
    const auto read = std::from_chars(at, end, weight);
    more = read.ptr != end && *read.ptr == ',';
    if (read.ec != std::errc() || !(weight >= 0 && std::isfinite(weight)) ||
        (read.ptr != end && !more))
      base::fail(base::ErrorKind::kInvalidInput, "--weights", "'", text,
                 "', expected numbers from 0 on with commas between, as 0.2,0.8");
    weights.push_back(weight);
    at = read.ptr + 1;
  }
  if (weights.size() != num_runs)
    base::fail(base::ErrorKind::kInvalidInput, "--weights", weights.size(), " weights for ",
               num_runs, " runs, expected one for each");
  return weights;
}

void run_fuse(const FuseFlags& flags) {
  const auto method = rank::parse_fusion_method(flags.method, "--method");
  const auto weights = parse_weights(flags.weights, flags.runs.size());
  Output output(flags.out, flags.overwrite, flags.runs);
  std::vector<data::Run> runs;
  for (const auto& path : flags.runs) {
    data::ReadNotes notes;
    runs.push_back(data::read_run(path, &notes));
    tell(path, notes);
  }
  const data::Run fused = rank::fuse(method, runs, weights, flags.rrf_k);
  std::string lines;
  for (const auto& qid : fused.qids) {
    lines.clear();
    data::append_trec_lines(lines, qid, fused.hits.at(qid), flags.tag);
    output.write(lines);
  }
  output.commit();
}

}  // namespace

void add_fuse(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("fuse", "Make one run of several by adding up their scores");
  auto flags = std::make_shared<FuseFlags>();
  verb->add_option("runs", flags->runs, "TREC runs (.gz, .zst), two or more")
      ->required()
      ->expected(2, 1000)
      ->type_name("RUN...");
  verb->add_option("--method", flags->method,
                   "What a score x of a query's list counts: zscore ((x - mean) / deviation),\n"
                   "minmax (from 0, the least, to 1), sum (x), rrf (1 / (K + rank))")
      ->required()
      ->check(CLI::IsMember({"zscore", "minmax", "sum", "rrf"}));
  verb->add_option("--weights", flags->weights, "One for each run, as 0.2,0.8 [all 1]");
  verb->add_option("--rrf-k", flags->rrf_k, "K of rrf")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--tag", flags->tag, "The run's last column")->capture_default_str();
  verb->add_option("--out", flags->out, "The TREC run to write [stdout]");
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer(
      "Example: erank fuse --method zscore --weights 0.2,0.8 bm25.run erank.run --out both.run");
  verb->callback([flags, &context] { context.run = [flags] { run_fuse(*flags); }; });
}

}  // namespace erank::cli
