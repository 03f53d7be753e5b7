#include "cli/corpus_index.h"

#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/records.h"
#include "erank/rank/model_files.h"

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

base::Json index_made_of(const std::string& corpus, const std::string& text_field,
                         retrieve::AnalyzerKind analyzer) {
  if (!base::file_exists(corpus)) return nullptr;
  return {{"corpus", rank::file_digest(corpus)},
          {"text_field", text_field},
          {"analyzer", retrieve::analyzer_name(analyzer)}};
}

std::optional<std::string> index_difference(const std::string& index, const std::string& corpus,
                                            const std::string& text_field) {
  std::string replaced;
  const auto record = read_made_of(base::output_target(index).path, "index", &replaced);
  if (!record) return std::nullopt;
  if (!replaced.empty()) return replaced;
  base::Json now = record->made_of;
  now["corpus"] = rank::file_digest(corpus);
  if (!text_field.empty()) now["text_field"] = text_field;
  return difference(*record, now);
}

}  // namespace erank::cli
