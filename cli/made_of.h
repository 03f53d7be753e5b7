// What a finished output was made of, kept in OUT.made.json beside it (docs/formats.md, "Journal"
// and "Index file").
#pragma once

#include <optional>
#include <string>

#include "erank/base/json.h"
#include "erank/eval/calibration.h"

namespace erank::cli {

std::string made_path(const std::string& out);

// What is kept beside `out`, an output of `verb`; nullopt: nothing is. Throws Error{kCorrupt} for
// what is no such file.
std::optional<base::Json> read_made_of(const std::string& out, const std::string& verb);
// `scored_by`: of a run, see read_scored_by().
void write_made_of(const std::string& out, const std::string& verb, const base::Json& made_of,
                   const std::optional<eval::ScoredBy>& scored_by = {});
void remove_made_of(const std::string& out, const std::string& verb);

// What made the scores of `out`, an output of `erank rerank`; nullopt: nothing says it. Throws
// Error{kInvalidInput} where the file does not say all of it.
std::optional<eval::ScoredBy> read_scored_by(const std::string& out);

// "" when both are equal, else e.g. "'seed' was 1, now it is 2" of the first key that differs.
std::string difference(const base::Json& before, const base::Json& now);

// "2/8": the second of eight parts.
struct Shard {
  int64_t number = 1, count = 1;
};
// Throws Error{kInvalidInput} unless 1 <= number <= count; `where` is what the text is of.
Shard parse_shard(const std::string& text, const std::string& where);

}  // namespace erank::cli
