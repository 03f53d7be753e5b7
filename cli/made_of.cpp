#include "cli/made_of.h"

#include <charconv>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/rank/model_files.h"

namespace erank::cli {

using base::ErrorKind;
using base::Json;

std::string made_path(const std::string& out) { return out + ".made.json"; }

namespace {

// Of whichever verb.
bool is_record(const Json& json) {
  return json.is_object() && json.value("verb", Json()).is_string() &&
         json.value("made_of", Json()).is_object() &&
         (!json.contains("output") || json["output"].is_object());
}

// The whole file.
std::optional<Json> read_record(const std::string& out, const std::string& verb) {
  const std::string path = made_path(out);
  if (!base::file_exists(path)) return std::nullopt;
  const Json json = base::parse_json(base::read_file(path), path);
  if (!is_record(json) || json["verb"] != verb)
    base::fail(ErrorKind::kCorrupt, "made_of", path, ": does not say what an output of `erank ",
               verb, "` was made of; move it away");
  return json;
}

// "" where `out` is the file of the record's "output", else what shows that it is not.
std::string replacement(const Json& output, const std::string& out) {
  const auto written = base::json_require<int64_t>(output, "bytes", made_path(out) + ", output");
  const auto digest =
      base::json_require<std::string>(output, "digest", made_path(out) + ", output");
  if (!base::file_exists(out)) return "there is no " + out;
  if (const auto now = static_cast<int64_t>(std::filesystem::file_size(out)); now != written)
    return base::str(out, " has ", now, " bytes, it had ", written);
  return rank::content_digest(out) == digest ? "" : out + " was changed since, its size was not";
}

}  // namespace

std::optional<MadeRecord> read_made_of(const std::string& out, const std::string& verb,
                                       std::string* replaced) {
  const auto json = read_record(out, verb);
  if (!json) return std::nullopt;
  MadeRecord record{(*json)["made_of"]};
  record.is_early = !json->contains("output");
  if (json->contains("scored_by"))
    record.scored_by = eval::scored_by_from_json((*json)["scored_by"], made_path(out));
  const std::string what = record.is_early ? "" : replacement((*json)["output"], out);
  if (replaced)
    *replaced = what;
  else if (!what.empty())
    base::fail(ErrorKind::kInvalidInput, "made_of", made_path(out), " is of another file: ", what,
               "; make ", out, " anew, or remove ", made_path(out), " if the file is right");
  return record;
}

void check_made_of(const std::string& out, const std::string& verb) { read_record(out, verb); }

void write_made_of(const std::string& out, const std::string& verb, const Json& made_of,
                   const std::optional<eval::ScoredBy>& scored_by) {
  Json record = {
      {"verb", verb},
      {"made_of", made_of},
      {"output",
       {{"bytes", std::filesystem::file_size(out)}, {"digest", rank::content_digest(out)}}}};
  if (scored_by) record["scored_by"] = Json(eval::to_json(*scored_by));
  base::write_file_atomic(made_path(out), base::dump_json(record) + "\n");
}

void remove_made_of(const std::string& out) {
  const std::string path = made_path(out);
  try {
    if (!base::file_exists(path) || !is_record(base::parse_json(base::read_file(path), path)))
      return;
  } catch (const base::Error&) {  // no JSON, or not to be read
    return;
  }
  std::error_code none;
  std::filesystem::remove(path, none);
}

std::string difference(const Json& before, const Json& now) {
  for (const Json* keys : {&now, &before})
    for (const auto& [key, unused] : keys->items()) {
      const Json was = before.value(key, Json()), is = now.value(key, Json());
      if (was == is) continue;
      if (!before.contains(key))
        return base::str("it is of an earlier version of erank, which did not know '", key,
                         "'; now that is ", base::dump_json(is));
      return base::str("'", key, "' was ", base::dump_json(was), ", now it is ",
                       base::dump_json(is));
    }
  return "";
}

std::string difference(const MadeRecord& before, const Json& now) {
  std::string what = difference(before.made_of, now);
  for (const char* digest :
       {"weights", "queries", "documents", "first_stage", "calibrated", "corpus"})
    if (before.is_early && what.starts_with(base::str("'", digest, "' was ")))
      what += " (or it is of an earlier version of erank, which computed that digest otherwise)";
  return what;
}

Shard parse_shard(const std::string& text, const std::string& where) {
  Shard shard;
  const char* end = text.data() + text.size();
  const auto number = std::from_chars(text.data(), end, shard.number);
  const bool slash = number.ec == std::errc() && number.ptr < end && *number.ptr == '/';
  const auto count = slash ? std::from_chars(number.ptr + 1, end, shard.count) : number;
  if (!slash || count.ec != std::errc() || count.ptr != end || shard.number < 1 ||
      shard.number > shard.count || shard.count > 1'000'000)
    base::fail(ErrorKind::kInvalidInput, where.c_str(), "'", text,
               "', expected i/n with i from 1 to n, for example 1/8");
  return shard;
}

}  // namespace erank::cli
