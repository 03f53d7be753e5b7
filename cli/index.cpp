#include <filesystem>

#include "cli/corpus_index.h"
#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/threads.h"

namespace erank::cli {
namespace {

struct IndexFlags {
  std::string corpus, beir, out, text_field, analyzer = "english";
  int threads = base::num_processors();
  bool overwrite = false;
};

// Where the output's disk is; of a stream the system's folder for such files.
std::string spill_folder(const std::string& out) {
  const base::OutputTarget target = base::output_target(out);
  if (target.kind == base::OutputTarget::kStream) return "";
  const auto folder = std::filesystem::path(target.path).parent_path();
  return folder.empty() ? "." : folder.string();
}

void run_index(const IndexFlags& flags, base::ProgressSink& progress) {
  retrieve::IndexOptions options;
  options.analyzer = retrieve::parse_analyzer_kind(flags.analyzer);
  options.num_threads = flags.threads;
  const std::string corpus = flags.corpus.empty() ? corpus_of_beir(flags.beir) : flags.corpus;
  if (flags.out.ends_with(".gz") || flags.out.ends_with(".zst"))
    base::fail(base::ErrorKind::kInvalidInput, "--out", flags.out,
               ": an index is read where it lies and cannot be compressed; give another ending");
  Output output(flags.out, flags.overwrite, {corpus});
  options.spill_folder = spill_folder(flags.out);
  const auto target = base::output_target(flags.out);
  const bool is_file = target.kind != base::OutputTarget::kStream;
  if (is_file) check_made_of(target.path, "index");  // what is none is refused before any work
  // Before it is read: what changes meanwhile is told from what was there.
  const base::Json made_of = index_made_of(corpus, flags.text_field, options.analyzer);
  const auto write = [&](std::string_view bytes) { output.write(bytes); };
  if (!write_index(corpus, flags.text_field, options, write, progress)) return;
  output.commit();
  if (is_file && !made_of.is_null()) write_made_of(target.path, "index", made_of);
}

}  // namespace

void add_index(CLI::App& app, Context& context) {
  CLI::App* verb =
      app.add_subcommand("index", "Make a BM25 index of a corpus, for retrieve and search");
  auto flags = std::make_shared<IndexFlags>();
  auto* source = verb->add_option_group("source");
  source->add_option("--corpus", flags->corpus,
                     "Documents: .jsonl, .json, .csv, .tsv or .txt (.gz, .zst), or - for stdin");
  source->add_option("--beir", flags->beir, "A BEIR folder; its corpus is taken");
  source->require_option(1);
  verb->add_option("--out", flags->out, "The index file to make")->required();
  verb->add_option("--analyzer", flags->analyzer,
                   "How text becomes terms, of documents and of queries:\n"
                   "english (stop words, Porter's stems), whitespace (as it is written) or\n"
                   "unicode (lower case; Chinese, Japanese and Korean as pairs of signs)")
      ->check(CLI::IsMember({"english", "whitespace", "unicode"}))
      ->capture_default_str();
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
