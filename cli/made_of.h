// What a finished output was made of, kept in OUT.made.json beside it (docs/formats.md, "Journal"
// and "Index file").
#pragma once

#include <optional>
#include <string>

#include "erank/base/json.h"
#include "erank/eval/calibration.h"

namespace erank::cli {

struct MadeRecord {
  base::Json made_of;
  std::optional<eval::ScoredBy> scored_by = {};  // what made a run's scores, where it says that
  // Of a version of erank that did not keep the output's size and digest: which file it is of is
  // not known, and its digests may have been computed otherwise.
  bool is_early = false;
};

std::string made_path(const std::string& out);

// What is kept beside the file `out`, an output of `verb`; nullopt: nothing is. Throws
// Error{kCorrupt} for what is no such record, and Error{kInvalidInput} where it does not say all of
// what made the scores, and where `out` is not the file that it was written for; with `replaced`
// that is said there instead, "" else.
std::optional<MadeRecord> read_made_of(const std::string& out, const std::string& verb,
                                       std::string* replaced = nullptr);
// Throws Error{kCorrupt} where what is kept beside `out` is no such record.
void check_made_of(const std::string& out, const std::string& verb);
// Of `out` as it is now. `scored_by`: of a run.
void write_made_of(const std::string& out, const std::string& verb, const base::Json& made_of,
                   const std::optional<eval::ScoredBy>& scored_by = {});
// For when `out` becomes another file: what is no such record of any verb stays.
void remove_made_of(const std::string& out);

// "" when both are equal, else e.g. "'seed' was 1, now it is 2" of the first key that differs.
std::string difference(const base::Json& before, const base::Json& now);
// The same of a record, saying where an earlier version of erank is why.
std::string difference(const MadeRecord& before, const base::Json& now);

// "2/8": the second of eight parts.
struct Shard {
  int64_t number = 1, count = 1;
};
// Throws Error{kInvalidInput} unless 1 <= number <= count; `where` is what the text is of.
Shard parse_shard(const std::string& text, const std::string& where);

}  // namespace erank::cli
