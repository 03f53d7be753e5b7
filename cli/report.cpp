#include <algorithm>
#include <filesystem>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include "cli/output.h"
#include "cli/run_scale.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/data/query_times.h"
#include "erank/data/records.h"
#include "erank/data/results.h"
#include "erank/eval/comparison_report.h"
#include "erank/rank/fusion.h"

namespace erank::cli {
namespace {

using base::ErrorKind;

struct ReportFlags {
  std::vector<std::string> runs, stats, scales;
  std::string qrels, queries, corpus, beir, out;
  eval::ComparisonOptions options;
  bool json = false, overwrite = false;
};

// A run's file without its folder and endings; two of one name keep their paths.
std::vector<std::string> names_of(const std::vector<std::string>& paths) {
  std::vector<std::string> names;
  for (const std::string& path : paths) {
    std::string name(data::without_packing(std::filesystem::path(path).filename().string()));
    for (const char* ending : {".jsonl", ".run", ".trec", ".txt"})
      if (name.ends_with(ending) && name.size() > std::string_view(ending).size())
        name.resize(name.size() - std::string_view(ending).size());
    names.push_back(name);
  }
  std::vector<std::string> unique = names;
  for (size_t i = 0; i < names.size(); ++i)
    if (std::count(names.begin(), names.end(), names[i]) > 1) unique[i] = paths[i];
  return unique;
}

// Of each run what an option RUN=VALUE gives it, "": nothing. `what` VALUE is: "FILE".
std::vector<std::string> given_to_runs(const ReportFlags& flags, const char* option,
                                       const std::vector<std::string>& all, const char* what) {
  std::vector<std::string> values(flags.runs.size());
  for (const std::string& given : all) {
    bool known = false;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!given.starts_with(flags.runs[i] + "=") || !values[i].empty()) continue;
      values[i] = given.substr(flags.runs[i].size() + 1);
      known = true;
    }
    if (!known)
      base::fail(ErrorKind::kInvalidInput, option, "'", given, "', expected RUN=", what,
                 ", once for a run, with RUN as it is given to the report");
  }
  return values;
}

void fill_texts(std::vector<eval::ShownQuery>& changed, const ReportFlags& flags,
                Context& context) {
  if (!flags.queries.empty()) {
    std::unordered_map<std::string, std::string> texts;
    for (auto& query : data::read_queries(flags.queries)) texts[query.id] = std::move(query.text);
    for (auto& query : changed) query.text = texts[query.qid];
  }
  if (flags.corpus.empty()) return;
  std::unordered_set<std::string> wanted;
  for (const auto& query : changed)
    for (const auto* list : {&query.first, &query.own})
      for (const auto& document : *list) wanted.insert(document.docid);
  const auto texts = data::read_documents(flags.corpus, wanted, context.progress.get());
  for (auto& query : changed)
    for (auto* list : {&query.first, &query.own})
      for (auto& document : *list)
        if (const auto found = texts.find(document.docid); found != texts.end())
          document.text = found->second.text;
}

void run_report(ReportFlags flags, Context& context) {
  const std::string_view name = data::without_packing(flags.out);
  const bool html = name.ends_with(".html");
  if (!flags.out.empty() && flags.out != "-" && !html && !flags.json && !name.ends_with(".md"))
    base::fail(ErrorKind::kInvalidInput, "--out", flags.out,
               ": expected a name that ends in .html or .md (or with .gz or .zst after it), or "
               "--json");
  if (html && flags.json)
    base::fail(ErrorKind::kInvalidInput, "--json", "does not go with --out ", flags.out,
               "; expected another name");
  if (!flags.beir.empty()) {
    const auto folder = data::find_beir(flags.beir);
    if (flags.queries.empty()) flags.queries = folder.queries;
    if (flags.corpus.empty()) flags.corpus = folder.corpus;
  }
  std::vector<std::string> inputs = flags.runs;
  const auto stats = given_to_runs(flags, "--stats", flags.stats, "FILE");
  const auto scales = given_to_runs(flags, "--scale", flags.scales, "yes-no, 0-3 or 0-10");
  for (const auto& name : {flags.qrels, flags.queries, flags.corpus})
    if (!name.empty()) inputs.push_back(name);
  for (const auto& name : stats)
    if (!name.empty()) inputs.push_back(name);
  Output output(flags.out, flags.overwrite, inputs);
  data::ReadNotes notes;
  const data::Qrels qrels = data::read_qrels(flags.qrels, &notes);
  tell(flags.qrels, notes);
  std::vector<eval::NamedRun> runs;
  const auto names = names_of(flags.runs);
  for (size_t i = 0; i < names.size(); ++i)
    runs.push_back({names[i], data::read_results(flags.runs[i]),
                    stats[i].empty() ? std::unordered_map<std::string, double>()
                                     : data::read_query_seconds(stats[i]),
                    said_scale(flags.runs[i], scales[i])});
  const auto blend = [](std::span<const double> first, std::span<const double> own, double weight) {
    return rank::blend(rank::FusionMethod::kZScore, first, own, weight);
  };
  const eval::Comparison comparison = eval::compare(qrels, runs, flags.options, blend);
  for (const std::string& warning : comparison.warnings) warn(warning);
  auto changed = eval::most_changed(comparison, qrels, runs);
  fill_texts(changed, flags, context);
  context.progress->finish();
  output.write(flags.json ? base::dump_json(eval::to_json(comparison, changed)) + "\n"
               : html     ? eval::to_html(comparison, changed)
                          : eval::to_markdown(comparison, changed));
  output.commit();
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand(
      "report", "Compare runs over judged queries: does reranking help, and how sure is that");
  auto flags = std::make_shared<ReportFlags>();
  ReportFlags& f = *flags;
  verb->add_option(
          "RUN", f.runs,
          "the first stage, then what is compared with it: TREC runs, or the JSON lines of "
          "erank rerank")
      ->required();
  verb->add_option("--qrels", f.qrels, "judgements: TREC qrels or BEIR TSV (.gz, .zst)")
      ->required();
  verb->add_option(
          "-m,--measure", f.options.measures,
          "as of erank eval; again for more. Tests and plots are of the first one [nDCG@10]")
      ->allow_extra_args(false);
  verb->add_option("-l,--level", f.options.relevance_level, "the lowest grade that is relevant")
      ->capture_default_str();
  verb->add_flag("-c,--complete", f.options.complete,
                 "all topics of the judgements; what a run lacks counts as 0");
  verb->add_option("--stats", f.stats,
                   "RUN=FILE: what erank rerank --stats wrote of a run, to show its times; again\n"
                   "for more")
      ->allow_extra_args(false);
  verb->add_option("--scale", f.scales,
                   "RUN=yes-no, 0-3 or 0-10: the scale of a run's scores (default: what the run or "
                   "its\n.made.json says, else a guess from the scores); again for more")
      ->allow_extra_args(false);
  verb->add_option("--queries", f.queries, "queries, to show those that changed most");
  verb->add_option("--corpus", f.corpus, "documents, to show the beginnings of their texts");
  verb->add_option("--beir", f.beir, "BEIR folder with both");
  verb->add_option("--seed", f.options.seed, "of resampling and of the halves of the queries")
      ->capture_default_str();
  verb->add_option("--out", f.out, "FILE.html: a page with plots; FILE.md, or stdout: Markdown");
  verb->add_flag("--json", f.json, "one object with every number");
  verb->add_flag("--overwrite", f.overwrite, "let --out replace a file");
  verb->footer("Example: erank report bm25.run erank.jsonl --qrels qrels.tsv --out report.html");
  verb->callback(
      [flags, &context] { context.run = [flags, &context] { run_report(*flags, context); }; });
}

}  // namespace erank::cli
