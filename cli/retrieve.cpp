#include <optional>

#include "cli/corpus_index.h"
#include "cli/first_stage.h"
#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/data/records.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {
namespace {

struct RetrieveFlags {
  std::string index, queries, beir, out, text_field, format = "trec", query_weights = "counts";
  int top = 100;
  int threads = base::num_processors();
  bool drop_identical_ids = false, overwrite = false;
};

// Throws when the index was made of something else than the corpus that is named with it.
void check_fresh(const RetrieveFlags& flags, const std::string& corpus) {
  const auto what = index_difference(flags.index, corpus, flags.text_field);
  if (!what)
    return warn(base::str("there is no ", made_path(flags.index),
                          " to tell whether the index was made of ", corpus, " as it is"));
  if (!what->empty())
    base::fail(
        base::ErrorKind::kInvalidInput, "--index", flags.index, " was not made of ", corpus,
        " as it is: ", *what,
        "; make it anew with `erank index --overwrite`, or give --queries in place of --beir "
        "to search it all the same");
}

// None when the user interrupts.
std::optional<retrieve::Index> get_index(const RetrieveFlags& flags, const data::BeirFolder& beir,
                                         base::ProgressSink& progress) {
  if (!flags.index.empty()) {
    if (!beir.corpus.empty()) check_fresh(flags, beir.corpus);
    return retrieve::Index::open(flags.index);
  }
  if (beir.corpus.empty())
    base::fail(base::ErrorKind::kInvalidInput, "retrieve",
               flags.beir.empty() ? "give --index, or --beir with a folder that has a corpus"
                                  : flags.beir + ": no corpus.jsonl (.gz, .zst); give --index");
  retrieve::IndexOptions options;
  options.num_threads = flags.threads;
  std::vector<char> bytes;
  const auto write = [&](std::string_view piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  };
  if (!write_index(beir.corpus, flags.text_field, options, write, progress)) return std::nullopt;
  return retrieve::Index::from_bytes(std::move(bytes));
}

void run_retrieve(const RetrieveFlags& flags, base::ProgressSink& progress) {
  const data::BeirFolder beir =
      flags.beir.empty() ? data::BeirFolder{} : data::find_beir(flags.beir);
  const std::string path = flags.queries.empty() ? beir.queries : flags.queries;
  if (path.empty())
    base::fail(base::ErrorKind::kInvalidInput, "retrieve",
               flags.beir.empty() ? "give --queries, or --beir with a folder that has queries"
                                  : flags.beir + ": no queries.jsonl (.gz, .zst); give --queries");
  Output output(flags.out, flags.overwrite,
                {flags.index, path, flags.index.empty() ? beir.corpus : ""});
  data::ReadNotes notes;
  const auto queries = data::read_queries(path, {.notes = &notes});
  tell(path, notes);
  const auto index = get_index(flags, beir, progress);
  if (!index) return;
  size_t num_without_hits = 0;
  const auto dropped = [&](const data::Query& query) -> std::vector<std::string> {
    if (!flags.drop_identical_ids) return {};
    return {query.id};
  };
  const auto take = [&](const data::Query& query, const std::vector<data::Hit>& hits) {
    num_without_hits += hits.empty();
    std::string lines;
    if (flags.format == "jsonl") {
      lines = candidates_line(candidates_of(query, hits, *index));
    } else {
      data::append_trec_lines(lines, query.id, hits, "erank-bm25");
    }
    output.write(lines);
  };
  if (!search_queries(*index, queries, flags.top, query_weights(flags.query_weights), flags.threads,
                      dropped, take, progress))
    return;
  output.commit();
  if (num_without_hits > 0)
    warn(base::str(num_without_hits, " of ", queries.size(),
                   " queries share no word with any document: they have no ",
                   flags.format == "jsonl" ? "hits" : "line in the run"));
}

}  // namespace

void add_retrieve(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("retrieve", "Find each query's candidates with BM25");
  auto flags = std::make_shared<RetrieveFlags>();
  verb->add_option("--index", flags->index, "An index that `erank index` made");
  verb->add_option("--queries", flags->queries,
                   "Queries: .jsonl, .json, .csv, .tsv or .txt (.gz, .zst), or - for stdin");
  verb->add_option(
      "--beir", flags->beir,
      "A BEIR folder: its queries, unless --queries is given, and its corpus (indexed\n"
      "in memory), unless --index is given");
  verb->add_option("--text-field", flags->text_field,
                   "The field of the corpus that holds the texts [text, contents, content, passage "
                   "or body]");
  verb->add_option("--top", flags->top, "At most so many documents a query [100]")
      ->check(CLI::Range(1, 1'000'000'000));
  verb->add_flag("--drop-identical-ids", flags->drop_identical_ids,
                 "Leave out the document whose id is the query's: queries that are documents");
  add_query_weights(*verb, flags->query_weights);
  verb->add_option("--format", flags->format,
                   "trec: a run; jsonl: a line a query with its documents' texts, which\n"
                   "`erank rerank --candidates -` reads")
      ->check(CLI::IsMember({"trec", "jsonl"}))
      ->capture_default_str();
  verb->add_option("--out", flags->out, "The file to write [stdout]");
  verb->add_option("--threads", flags->threads, "Threads [all processors]")
      ->check(CLI::Range(1, 1024));
  verb->add_flag("--overwrite", flags->overwrite, "Let --out replace a file");
  verb->footer(
      "Examples:\n"
      "  erank retrieve --index corpus.bm25 --queries queries.jsonl --top 100 --out run.txt\n"
      "  erank retrieve --index corpus.bm25 --queries queries.jsonl --format jsonl |\n"
      "    erank rerank --candidates -");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_retrieve(*flags, *context.progress); };
  });
}

}  // namespace erank::cli
