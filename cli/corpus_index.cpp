#include "cli/corpus_index.h"

#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/data/records.h"

namespace erank::cli {
namespace {

struct Interrupted {};

}  // namespace

std::string corpus_of_beir(const std::string& folder) {
  const std::string corpus = data::find_beir(folder).corpus;
  if (corpus.empty())
    base::fail(base::ErrorKind::kNotFound, "--beir", folder,
               ": no corpus.jsonl (.gz, .zst) in this folder");
  return corpus;
}

bool write_index(const std::string& corpus, const std::string& text_field,
                 const retrieve::IndexOptions& options,
                 const std::function<void(std::string_view)>& write, base::ProgressSink& progress) {
  retrieve::IndexBuilder builder(options, write);
  data::ReadNotes notes;
  try {
    data::for_each_document(corpus,
                            [&](data::Document document) {
                              if (interrupted()) throw Interrupted();
                              builder.add(std::move(document));
                            },
                            &progress, {.text_field = text_field, .notes = &notes});
  } catch (const Interrupted&) {
    return false;
  }
  progress.finish();
  tell(corpus, notes);
  const bool complete = builder.finish(&progress, interrupted);
  progress.finish();
  return complete;
}

}  // namespace erank::cli
