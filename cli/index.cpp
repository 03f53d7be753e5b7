#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/data/records.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {
namespace {

struct IndexFlags {
  std::string corpus, beir, out, text_field;
  int threads = base::num_processors();
  bool overwrite = false;
};

void run_index(const IndexFlags& flags, base::ProgressSink& progress) {
  std::string corpus = flags.corpus;
  if (corpus.empty()) {
    corpus = data::find_beir(flags.beir).corpus;
    if (corpus.empty())
      base::fail(base::ErrorKind::kNotFound, "--beir", flags.beir,
                 ": no corpus.jsonl (.gz, .zst) in this folder");
  }
  if (flags.out.ends_with(".gz") || flags.out.ends_with(".zst"))
    base::fail(base::ErrorKind::kInvalidInput, "--out", flags.out,
               ": an index is read where it lies and cannot be compressed; give another ending");
  Output output(flags.out, flags.overwrite, {corpus});
  data::ReadNotes notes;
  const auto documents =
      data::read_documents(corpus, &progress, {.text_field = flags.text_field, .notes = &notes});
  progress.finish();
  tell(corpus, notes);
  if (interrupted()) return;
  const auto index = retrieve::Index::build(documents, flags.threads, &progress);
  progress.finish();
  if (interrupted()) return;
  output.write(index.bytes());
  output.commit();
}

}  // namespace

void add_index(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("index", "Make a BM25 index of a corpus, for retrieve");
  auto flags = std::make_shared<IndexFlags>();
  auto* source = verb->add_option_group("source");
  source->add_option("--corpus", flags->corpus,
                     "Documents: .jsonl, .json, .csv, .tsv or .txt (.gz, .zst), or - for stdin");
  source->add_option("--beir", flags->beir, "A BEIR folder; its corpus is taken");
  source->require_option(1);
  verb->add_option("--out", flags->out, "The index file to make")->required();
  verb->add_option("--text-field", flags->text_field,
                   "The field that holds a document's text [text, contents, content, passage or "
                   "body]");
  verb->add_option("--threads", flags->threads, "Threads [all processors]")
      ->check(CLI::Range(1, 1024));
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer("Example: erank index --corpus corpus.jsonl --out corpus.bm25");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_index(*flags, *context.progress); };
  });
}

}  // namespace erank::cli
