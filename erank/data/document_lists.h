// Lists of documents that benchmarks keep of their queries: candidates, documents whose relevance
// an instruction changed, documents that do not count.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "erank/data/records.h"

namespace erank::data {

// qid -> docids, in the file's order.
using DocumentLists = std::unordered_map<std::string, std::vector<std::string>>;

// FollowIR's `qrel_diff` and `top_ranked`: {"query-id": Q, "corpus-ids": [docid, ...]}, or of its
// older layout {"qid": Q, "pid": docid}, a line each or one array. Throws Error{kInvalidInput} for
// anything else and for a query's list twice.
DocumentLists read_document_lists(const std::string& path);

// Documents that do not count for a query: BRIGHT's examples, with an id and `excluded_ids`, or the
// queries that convert_to_beir makes of them, with `metadata.excluded_ids`; a line each or one
// array. "N/A" is none. Queries without such a list are not in the result. Throws
// Error{kInvalidInput} for one that is no list of ids, and for a query twice.
DocumentLists read_excluded_documents(const std::string& path);

// Takes each query's documents of `lists` out of its hits.
void drop_documents(const DocumentLists& lists, Run& run);

}  // namespace erank::data
