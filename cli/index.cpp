#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/data/records.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {
namespace {

struct IndexFlags {
  std::string corpus, beir, out;
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
  Output output(flags.out, flags.overwrite, {corpus});
  const auto documents = data::read_documents(corpus, &progress);
  progress.finish();
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
                     "Documents: .jsonl, .tsv or .txt (.gz, .zst), or - for stdin");
  source->add_option("--beir", flags->beir, "A BEIR folder; its corpus is taken");
  source->require_option(1);
  verb->add_option("--out", flags->out, "The index file to make")->required();
  verb->add_option("--threads", flags->threads, "Threads [all processors]")
      ->check(CLI::Range(1, 1024));
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer("Example: erank index --corpus corpus.jsonl --out corpus.bm25");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_index(*flags, *context.progress); };
  });
}

}  // namespace erank::cli
