#include <optional>

#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/data/check.h"
#include "erank/data/document_lists.h"
#include "erank/data/records.h"
#include "erank/eval/measures.h"
#include "erank/eval/p_mrr.h"
#include "erank/eval/report.h"

namespace erank::cli {
namespace {

struct EvalFlags {
  std::string qrels, run, corpus, queries, changed, excluded, out;
  std::vector<std::string> measures;
  std::string precision = "float";
  bool per_topic = false, no_summary = false, json = false, ties = false, overwrite = false;
  eval::EvalOptions options;
};

// Judgements that point to nothing, as far as the flags say what there is.
void warn_of_lost(const EvalFlags& flags, const data::Qrels& qrels) {
  data::IdSet queries, documents;
  if (!flags.queries.empty()) queries = data::read_ids(flags.queries, data::RecordKind::kQuery);
  if (!flags.corpus.empty()) documents = data::read_ids(flags.corpus, data::RecordKind::kDocument);
  const auto lost = data::find_lost(qrels, flags.queries.empty() ? nullptr : &queries,
                                    flags.corpus.empty() ? nullptr : &documents);
  for (const auto& line : data::told(flags.qrels, lost)) warn(line);
}

void run_eval(EvalFlags flags) {
  const std::vector<eval::Measure> measures = eval::parse_measures(flags.measures);
  flags.options.rules =
      flags.precision == "double" ? eval::TrecEvalRules::k10 : eval::TrecEvalRules::k9;
  Output output(
      flags.out, flags.overwrite,
      {flags.qrels, flags.run, flags.corpus, flags.queries, flags.changed, flags.excluded});
  data::ReadNotes qrels_notes, run_notes;
  const data::Qrels qrels = data::read_qrels(flags.qrels, &qrels_notes);
  data::Run run = data::read_run(flags.run, &run_notes);
  tell(flags.qrels, qrels_notes);
  tell(flags.run, run_notes);
  if (!flags.excluded.empty()) {
    const auto excluded = data::read_excluded_documents(flags.excluded);
    if (excluded.empty())
      base::fail(base::ErrorKind::kInvalidInput, "--excluded", flags.excluded,
                 ": no query has 'excluded_ids'; expected BRIGHT's examples, or what `erank data "
                 "convert` makes of them");
    data::drop_documents(excluded, run);
  }
  std::optional<eval::PMrr> p_mrr;
  if (!flags.changed.empty()) p_mrr = eval::p_mrr(run, data::read_document_lists(flags.changed));
  warn_of_lost(flags, qrels);
  const eval::Evaluation evaluation = eval::evaluate(qrels, run, measures, flags.options);
  if (const std::string missing = eval::missing_topics(evaluation); !missing.empty()) warn(missing);
  if (p_mrr)
    if (const std::string missing = eval::missing_topics(*p_mrr); !missing.empty()) warn(missing);

  const auto with_ties = [&](eval::TieOrder ties) {
    eval::EvalOptions options = flags.options;
    options.ties = ties;
    return flags.ties ? eval::evaluate(qrels, run, measures, options) : eval::Evaluation{};
  };
  const eval::Evaluation worst = with_ties(eval::TieOrder::kWorst);
  const eval::Evaluation best = with_ties(eval::TieOrder::kBest);
  const eval::TieReport ties{evaluation, worst, best};
  const eval::ReportOptions report{.per_topic = flags.per_topic, .summary = !flags.no_summary};

  if (flags.json) {
    base::OrderedJson json = eval::to_json(evaluation, report);
    if (p_mrr) json["p-MRR"] = eval::to_json(*p_mrr, report);
    if (flags.ties) json["ties"] = eval::to_json(ties);
    output.write(base::dump_json(json) + "\n");
  } else {
    output.write(eval::format_lines(evaluation, report));
    if (p_mrr) output.write(eval::format_lines(*p_mrr, report));
    if (flags.ties) output.write(eval::format_ties(ties));
  }
  output.commit();
}

}  // namespace

void add_eval(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("eval", "Measure a run against relevance judgements");
  auto flags = std::make_shared<EvalFlags>();
  verb->add_option("qrels,--qrels", flags->qrels,
                   "Judgements: TREC qrels, BEIR TSV or CSV (.gz, .zst)")
      ->required();
  verb->add_option("run,--run", flags->run, "TREC run, or - for stdin")->required();
  verb->add_option("-m,--measure", flags->measures,
                   "A measure, by trec_eval's name (ndcg_cut.10, P.5,10, official, all_trec) or\n"
                   "ir_measures' (nDCG@10, AP(rel=2)@100); give it again for more [official]")
      ->allow_extra_args(false);
  verb->add_flag("-q,--per-query", flags->per_topic, "Print every topic before the summary");
  verb->add_flag("-n,--no-summary", flags->no_summary, "Print no summary");
  verb->add_flag("-c,--complete", flags->options.complete,
                 "Average over all topics of the judgements; missing ones count as 0");
  verb->add_option("-l,--level", flags->options.relevance_level,
                   "The lowest grade that is relevant [1]; nDCG does not look at it");
  verb->add_flag("-J,--judged-only", flags->options.judged_only,
                 "Take documents without judgement out of the ranking");
  verb->add_option("-M,--max-hits", flags->options.max_hits, "Only the first so many hits a topic")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000'000}));
  verb->add_option("--score-precision", flags->precision,
                   "float: scores and rules of trec_eval 9 [default]; double: of trec_eval 10")
      ->check(CLI::IsMember({"float", "double"}));
  verb->add_flag(
      "--ties", flags->ties,
      "Count equal scores, and what the worst and the best order inside them would give");
  verb->add_option(
      "--excluded", flags->excluded,
      "Take out of a query's ranking what it names as excluded_ids: BRIGHT's examples, or\n"
      "what `erank data convert` makes of them");
  verb->add_option(
      "--p-mrr", flags->changed,
      "FollowIR's p-MRR too: JSONL {query-id, corpus-ids} of the documents that the\n"
      "altered instruction made irrelevant; the run has topics QUERY-og, QUERY-changed");
  verb->add_option("--queries", flags->queries,
                   "Warn of judgements whose query is not in this file");
  verb->add_option("--corpus", flags->corpus,
                   "Warn of judgements whose document is not in this file");
  verb->add_flag("--json", flags->json, "{measure: {all, queries: {qid: value}}}, not rounded");
  verb->add_option("--out", flags->out, "Write here instead of stdout");
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer("Example: erank eval -m nDCG@10 -m RR@10 qrels.txt run.txt");
  verb->callback([flags, &context] { context.run = [flags] { run_eval(*flags); }; });
}

}  // namespace erank::cli
