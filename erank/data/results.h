// What reranking leaves to its evaluation: results with their details.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "erank/data/records.h"

namespace erank::data {

// A pair of a run. A TREC run has scores alone.
struct Result {
  std::string docid;
  std::optional<double> score;  // none: the pair was passed on without being scored
  std::string reasoning = {};
  std::optional<int64_t> prompt_tokens = {}, new_tokens = {};
};

struct Results {
  std::vector<std::string> qids;                                 // in order of first appearance
  std::unordered_map<std::string, std::vector<Result>> results;  // of each, as the file lists them
  bool is_jsonl = false;
  std::optional<int> highest_answer = {};  // of the lines' scale: 1, 3 or 10, where they say it

  // The same as a run. The lines of a JSONL file make the order themselves, so that equal scores
  // and pairs without one stay where they are; the score of its hits is the number of lines after
  // them.
  Run run() const;
};

// The lines of `erank rerank --format jsonl` (the first byte is "{"), or a TREC run. Keys of JSONL:
// qid, docid, score (null or missing: none), distribution, reasoning, prompt_tokens, new_tokens;
// others are ignored. Throws Error{kInvalidInput} as read_run does, and for distributions over
// different scales.
Results read_results(const std::string& path);

}  // namespace erank::data
