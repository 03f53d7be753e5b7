// Reads a corpus into a first-stage index.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "erank/base/json.h"
#include "erank/base/progress.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {

// The corpus of a BEIR folder. Throws Error{kNotFound} when it has none.
std::string corpus_of_beir(const std::string& folder);

// The index of `corpus`, a piece at a time, to `write`; false when the user interrupts.
// `text_field` as in data::ReadOptions. Warns of what the reader left out.
bool write_index(const std::string& corpus, const std::string& text_field,
                 const retrieve::IndexOptions& options,
                 const std::function<void(std::string_view)>& write, base::ProgressSink& progress);

// What an index file is made of, for write_made_of(); null: of a stream, which is gone.
base::Json index_made_of(const std::string& corpus, const std::string& text_field,
                         retrieve::AnalyzerKind analyzer);

// "" when the file `index` is as it was made, of this corpus as it is and, unless that is "", by
// this text field; else what differs. nullopt: it does not say.
std::optional<std::string> index_difference(const std::string& index, const std::string& corpus,
                                            const std::string& text_field);

}  // namespace erank::cli
