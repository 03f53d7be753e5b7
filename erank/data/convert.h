// Collections of other forms written as BEIR folders.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/check.h"
#include "erank/data/records.h"

namespace erank::data {

struct ConvertReport {
  int64_t documents = 0, queries = 0, judgements = 0;
  int64_t with_instruction = 0;  // queries whose `instruction` was appended to their text
  int64_t with_exclusions = 0;   // queries with `excluded_ids`, which judgements cannot say
  std::vector<std::pair<std::string, ReadNotes>> notes;  // of each file that was read
};

// The files that convert_to_beir writes: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, as far as
// there is something to read for them.
std::vector<std::string> beir_targets(const CollectionFiles& files, const std::string& folder);

// Reads corpus, queries and judgements of every form that records.h reads and writes them into
// `folder`, which is made. A query's `instruction` (FollowIR) is appended to its text after a
// blank; its other keys, of a TREC topic its description and narrative, are kept under `metadata`.
// Throws as the readers do; Error{kInvalidInput} for a target that is there, without `overwrite`,
// and for a judged id with a tab or a line end.
ConvertReport convert_to_beir(const CollectionFiles& files, const std::string& text_field,
                              const std::string& folder, bool overwrite,
                              base::ProgressSink* progress = nullptr);

}  // namespace erank::data
