// How long each query of a job took: what `erank rerank --stats` writes.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

namespace erank::data {

struct QueryTime {
  std::string qid;
  int64_t pairs = 0;   // scored
  double seconds = 0;  // until the last of them had its score
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompts, not computed anew
  int64_t new_tokens = 0;
};

// A JSON line with these names as keys, docs/formats.md; microseconds.
std::string to_line(const QueryTime& time);

// qid -> seconds, of such lines, other keys ignored; of a qid that comes again, the parts of a job
// that was resumed, the sum. Throws Error{kInvalidInput} with the line for anything else.
std::unordered_map<std::string, double> read_query_seconds(const std::string& path);

}  // namespace erank::data
