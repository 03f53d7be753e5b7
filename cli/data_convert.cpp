#include "cli/data_verbs.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "erank/base/error.h"
#include "erank/data/convert.h"
#include "erank/rank/model_files.h"

namespace erank::cli {
namespace {

using base::str;

struct ConvertFlags {
  std::string corpus, queries, qrels, split = "test", text_field, out;
  bool overwrite = false;
};

void run_convert(const ConvertFlags& flags, base::ProgressSink& progress) {
  data::CollectionFiles files{flags.corpus, flags.queries, "", {}};
  if (!flags.qrels.empty()) files.qrels[flags.split] = flags.qrels;
  if (flags.corpus.empty() && flags.queries.empty())
    base::fail(base::ErrorKind::kInvalidInput, "data convert",
               "nothing to convert; give --corpus, --queries or both");
  rank::refuse_inputs(data::beir_targets(files, flags.out),
                      {flags.corpus, flags.queries, flags.qrels});
  const data::ConvertReport report =
      data::convert_to_beir(files, flags.text_field, flags.out, flags.overwrite, &progress);
  for (const auto& [path, notes] : report.notes) tell(path, notes);
  if (report.with_exclusions > 0)
    warn(str(report.with_exclusions, report.with_exclusions == 1 ? " query names" : " queries name",
             " documents that do not count, under metadata.excluded_ids; `erank eval --excluded` "
             "takes them out of a run"));
  ProgressLine::print_above(str("erank: ", flags.out, ": ", report.documents, " documents, ",
                                report.queries, " queries, ", report.judgements, " judgements",
                                report.with_instruction > 0
                                    ? str(", ", report.with_instruction, " with their instruction")
                                    : ""));
}

}  // namespace

void add_data_convert(CLI::App& data, Context& context) {
  CLI::App* verb = data.add_subcommand(
      "convert",
      "Write a collection of another form as a BEIR folder: TREC, MS MARCO, BRIGHT, ...");
  auto flags = std::make_shared<ConvertFlags>();
  verb->add_option("--corpus", flags->corpus,
                   "Documents: JSON, CSV, TSV (of MS MARCO too) or plain text");
  verb->add_option(
      "--queries", flags->queries,
      "Queries: JSON (of BRIGHT and FollowIR too), CSV, TSV, plain text or TREC topics");
  verb->add_option("--qrels", flags->qrels,
                   "Judgements: TREC, TSV, CSV, or JSON (gold_ids of BRIGHT too)");
  verb->add_option("--split", flags->split, "What the judgements are called [test]");
  verb->add_option("--text-field", flags->text_field,
                   "The field that holds a document's text [text, contents, content, passage or "
                   "body]");
  verb->add_option("--out", flags->out, "The folder to make")->required();
  verb->add_flag("--overwrite", flags->overwrite, "Replace its files");
  verb->footer(
      "Example: erank data convert --queries topics.txt --corpus docs.jsonl --qrels qrels.txt "
      "--out "
      "my-beir");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_convert(*flags, *context.progress); };
  });
}

}  // namespace erank::cli
