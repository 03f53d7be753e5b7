// Reads a corpus into a first-stage index.
#pragma once

#include <functional>
#include <string>
#include <string_view>

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

}  // namespace erank::cli
