// What a finished output was made of, kept in OUT.made.json beside it (docs/formats.md, "Journal"
// and "Index file").
#pragma once

#include <optional>
#include <string>

#include "erank/base/json.h"

namespace erank::cli {

std::string made_path(const std::string& out);

// What is kept beside `out`, an output of `verb`; nullopt: nothing is. Throws Error{kCorrupt} for
// what is no such file.
std::optional<base::Json> read_made_of(const std::string& out, const std::string& verb);
void write_made_of(const std::string& out, const std::string& verb, const base::Json& made_of);
void remove_made_of(const std::string& out, const std::string& verb);

// "" when both are equal, else e.g. "'seed' was 1, now it is 2" of the first key that differs.
std::string difference(const base::Json& before, const base::Json& now);

// "2/8": the second of eight parts.
struct Shard {
  int64_t number = 1, count = 1;
};
// Throws Error{kInvalidInput} unless 1 <= number <= count; `where` is what the text is of.
Shard parse_shard(const std::string& text, const std::string& where);

}  // namespace erank::cli
