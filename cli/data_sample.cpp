#include "cli/data_verbs.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/data/sample.h"

namespace erank::cli {
namespace {

using base::OrderedJson;
using base::str;

struct SampleFlags {
  CollectionFlags files;
  std::string text_field, out;
  data::SampleOptions options;
  bool overwrite = false;
};

std::string line_of(const data::CandidateList& list) {
  OrderedJson json = {{"qid", list.query.id}, {"query", list.query.text}};
  json["hits"] = OrderedJson::array();
  for (const auto& candidate : list.candidates) {
    OrderedJson hit = {{"docid", candidate.document.id}};
    if (candidate.score) hit["score"] = *candidate.score;
    hit["text"] = candidate.document.text;
    json["hits"].push_back(std::move(hit));
  }
  return base::dump_json(json) + "\n";
}

std::string summary(const data::SampleReport& report) {
  int64_t documents = 0;
  std::string kinds;
  for (size_t kind = 0; kind < data::kNumSampleKinds; ++kind) {
    documents += report.of_kind[kind];
    kinds += str(kinds.empty() ? "" : ", ", report.of_kind[kind], " ",
                 data::sample_kind_name(static_cast<data::SampleKind>(kind)));
  }
  return str(report.queries, report.queries == 1 ? " query" : " queries", " with ", documents,
             " documents: ", kinds);
}

void warn_of(const data::SampleReport& report, const SampleFlags& flags, const std::string& qrels) {
  const auto count = [](int64_t n) { return str(n, n == 1 ? " query" : " queries"); };
  if (report.without_positive > 0)
    warn(str(count(report.without_positive), " of the run without a document graded ",
             flags.options.positive_grade, " or more, left out"));
  if (report.without_hits > 0)
    warn(str("judged, but without a hit in the run: ", count(report.without_hits), ", left out"));
  if (report.short_lists > 0)
    warn(str("fewer than ", flags.options.documents, " documents: ", count(report.short_lists)));
  for (const auto& line : data::told(qrels, report.lost)) warn(line);
}

void run_sample(const SampleFlags& flags, base::ProgressSink& progress) {
  const data::CollectionFiles files = flags.files.files();
  const auto need = [&](bool is_there, const char* what, const char* flag) {
    if (!is_there)
      base::fail(base::ErrorKind::kInvalidInput, "data sample", "no ", what, "; give ", flag);
  };
  need(!files.queries.empty(), "queries", "--queries, or --beir with a folder that has queries");
  need(!files.corpus.empty(), "corpus", "--corpus, or --beir with a folder that has a corpus");
  need(!files.run.empty(), "run", "--run; `erank retrieve --top 1000` makes one");
  need(!files.qrels.empty(), "judgements", "--qrels, or --beir with a folder that has judgements");
  if (files.qrels.size() > 1) {
    std::string splits;
    for (const auto& [name, path] : files.qrels) splits += (splits.empty() ? "" : ", ") + name;
    base::fail(base::ErrorKind::kInvalidInput, "--split", flags.files.beir,
               ": judgements of several splits, ", splits, "; choose one");
  }
  Output output(flags.out, flags.overwrite, flags.files.inputs());
  const std::string& qrels_path = files.qrels.begin()->second;
  data::ReadNotes qrels_notes, run_notes, notes;
  const data::Qrels qrels = data::read_qrels(qrels_path, &qrels_notes);
  const data::Run run = data::read_run(files.run, &run_notes);
  tell(qrels_path, qrels_notes);
  tell(files.run, run_notes);
  const auto sample =
      data::sample_candidates(files.queries, files.corpus, qrels, run, flags.options,
                              {.text_field = flags.text_field, .notes = &notes}, &progress);
  tell(files.corpus, notes);
  for (const auto& list : sample.lists) output.write(line_of(list));
  output.commit();
  warn_of(sample.report, flags, qrels_path);
  ProgressLine::print_above("erank: " + summary(sample.report));
}

}  // namespace

void add_data_sample(CLI::App& data, Context& context) {
  CLI::App* verb =
      data.add_subcommand("sample",
                          "Draw training candidates: a positive, hard, medium and easy negatives "
                          "of each query");
  auto flags = std::make_shared<SampleFlags>();
  auto& options = flags->options;
  flags->files.add_to(*verb);
  verb->add_option("--docs-per-query", options.documents, "Documents of a query [20]")
      ->check(CLI::Range(2, 1 << 20));
  verb->add_option("--positive-grade", options.positive_grade,
                   "Documents graded at least so are relevant [1]")
      ->check(CLI::Range(1, 1 << 20));
  verb->add_option("--seed", options.seed, "Seed of what is drawn [1]");
  verb->add_option("--text-field", flags->text_field,
                   "The field that holds a document's text [text, contents, content, passage or "
                   "body]");
  verb->add_option("--out", flags->out, "The candidates to write, JSON lines [stdout]");
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer(
      "Example: erank data sample --beir scifact --split train --run bm25.run --out train.jsonl");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_sample(*flags, *context.progress); };
  });
}

}  // namespace erank::cli
