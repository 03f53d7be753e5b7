#include "cli/made_of.h"

#include <charconv>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::cli {

using base::ErrorKind;
using base::Json;

std::string made_path(const std::string& out) { return out + ".made.json"; }

namespace {

// The whole file.
std::optional<Json> read_record(const std::string& out, const std::string& verb) {
  const std::string path = made_path(out);
  if (!base::file_exists(path)) return std::nullopt;
  const Json json = base::parse_json(base::read_file(path), path);
  if (!json.is_object() || json.value("verb", Json()) != verb || !json.contains("made_of") ||
      !json["made_of"].is_object())
    base::fail(ErrorKind::kCorrupt, "made_of", path, ": does not say what an output of `erank ",
               verb, "` was made of; move it away");
  return json;
}

}  // namespace

std::optional<Json> read_made_of(const std::string& out, const std::string& verb) {
  const auto record = read_record(out, verb);
  if (!record) return std::nullopt;
  return (*record)["made_of"];
}

std::optional<eval::ScoredBy> read_scored_by(const std::string& out) {
  const auto record = read_record(out, "rerank");
  if (!record || !record->contains("scored_by")) return std::nullopt;
  return eval::scored_by_from_json((*record)["scored_by"], made_path(out));
}

void write_made_of(const std::string& out, const std::string& verb, const Json& made_of,
                   const std::optional<eval::ScoredBy>& scored_by) {
  Json record = {{"verb", verb}, {"made_of", made_of}};
  if (scored_by) record["scored_by"] = Json(eval::to_json(*scored_by));
  base::write_file_atomic(made_path(out), base::dump_json(record) + "\n");
}

void remove_made_of(const std::string& out, const std::string& verb) {
  if (!read_made_of(out, verb)) return;
  std::error_code none;
  std::filesystem::remove(made_path(out), none);
}

std::string difference(const Json& before, const Json& now) {
  for (const Json* keys : {&now, &before})
    for (const auto& [key, unused] : keys->items()) {
      const Json was = before.value(key, Json()), is = now.value(key, Json());
      if (was != is)
        return base::str("'", key, "' was ", base::dump_json(was), ", now it is ",
                         base::dump_json(is));
    }
  return "";
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
