#include "erank/rank/checkpoint.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/installed.h"
#include "erank/base/json.h"

namespace erank::rank {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using base::Json;
using base::json_value;

constexpr const char* kDefaultModel = "models/erank-135m";

std::string require_text(const Json& json, const char* key, const std::string& fallback,
                         const std::string& where) {
  return json_value<std::string>(json, key, fallback, where);
}

int positive(const Json& json, const char* key, int fallback, const std::string& where) {
  const int value = json_value<int>(json, key, fallback, where);
  if (value < 1)
    base::fail(ErrorKind::kInvalidInput, "erank.json", where, ": '", key, "' is ", value,
               ", expected at least 1");
  return value;
}

// The sum of `file`, from the note that set-up leaves beside a file it has checked, else computed.
std::string known_sha256(const std::string& file) {
  const std::string note = file + ".sha256";
  if (base::file_exists(note)) return base::read_file(note, 1024).substr(0, 64);
  return base::sha256_file(file);
}

std::string find_base(const Json& base_entry, const std::string& where) {
  base::refuse_unknown_keys(base_entry, {"file", "sha256", "folder"}, where + " base");
  if (base_entry.contains("folder")) {
    const fs::path folder = fs::path(where).parent_path() /
                            base::json_require<std::string>(base_entry, "folder", where);
    if (!base::folder_exists(folder))
      base::fail(ErrorKind::kNotFound, "model", where, " needs the base model ", folder.string(),
                 ", which is not there");
    return folder.lexically_normal();
  }
  const std::string file = base::json_require<std::string>(base_entry, "file", where);
  const std::string sum = base::json_require<std::string>(base_entry, "sha256", where);
  const std::string cache = base::cache_folder();
  // A path joined to another stays what it is when it is absolute.
  const fs::path fetched =
      cache.empty() && !fs::path(file).is_absolute() ? "" : fs::path(cache) / "models" / file;
  for (const std::string& place : {fetched.string(), base::find_installed("models/" + file)}) {
    if (!base::file_exists(place)) continue;
    if (const std::string found = known_sha256(place); found != sum)
      base::fail(ErrorKind::kCorrupt, "model", place, ": sha256 is ", found, ", expected ", sum,
                 "; delete it and run tools/setup");
    return fs::path(place).lexically_normal();
  }
  if (fetched.empty())
    base::fail(
        ErrorKind::kNotFound, "model", where, " needs the base model ", file,
        ", and HOME is not set, by which the cache folder is found; set HOME, or ERANK_CACHE "
        "to the folder that tools/setup downloads to");
  base::fail(ErrorKind::kNotFound, "model", where, " needs the base model ", file,
             ", which is not in ", fetched.parent_path().string(), "; run tools/setup to fetch it");
}

// For what looks like a model's name on the hub: an owner and a name.
std::string how_to_fetch(const std::string& path) {
  const size_t slash = path.find('/');
  const auto is_word = [](std::string_view text) {
    constexpr std::string_view kMore = "-_.";
    return !text.empty() && text[0] != '.' &&
           std::all_of(text.begin(), text.end(), [&](const unsigned char c) {
             return std::isalnum(c) || kMore.find(static_cast<char>(c)) != kMore.npos;
           });
  };
  if (slash == path.npos || !is_word(std::string_view(path).substr(0, slash)) ||
      !is_word(std::string_view(path).substr(slash + 1)))
    return "";
  const std::string name = path.substr(slash + 1);
  return base::str("; erank fetches no models: `hf download ", path, " --local-dir ", name,
                   "` (of the Python package huggingface_hub) does, then --model ", name);
}

[[noreturn]] void refuse_bare_adapter(const std::string& path) {
  const std::string file = path + "/adapter_config.json";
  const Json json = base::parse_json(base::read_file(file, 1 << 24), file);
  const auto of = json.is_object()
                      ? json_value<std::string>(json, "base_model_name_or_path", "", file)
                      : std::string();
  base::fail(ErrorKind::kInvalidInput, "model", path, ": a PEFT adapter",
             of.empty() ? "" : base::str(" of ", of),
             " without its base model; give the base as --model and this folder as --adapter, or "
             "write {\"base\": {\"folder\": \"BASE\"}} to ",
             path, "/erank.json");
}

// A folder that somebody has put a GGUF into.
[[noreturn]] void name_gguf(const fs::path& folder, const std::vector<std::string>& files) {
  base::fail(ErrorKind::kInvalidInput, "model", folder.string(), ": a folder with ",
             files.size() == 1 ? "a .gguf file" : base::str(files.size(), " .gguf files"),
             files.size() == 1 ? "; give it" : "; give one of them", ": --model ",
             (folder / files.front()).string());
}

// The .gguf files in it, sorted; of a model in parts the first.
std::vector<std::string> ggufs_in(const fs::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    const bool later = name.find("-of-") != name.npos && name.find("-00001-of-") == name.npos;
    if (name.ends_with(".gguf") && !later) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  return files;
}

CheckpointDefaults read_defaults(const Json& json, const std::string& where) {
  CheckpointDefaults d;
  base::refuse_unknown_keys(
      json,
      {"base", "layout", "scale", "mode", "score", "instruction", "max_query_tokens",
       "max_document_tokens", "lower_capitals", "max_think_tokens", "int8", "think_open",
       "think_close", "direct_close"},
      where);
  if (json.contains("mode")) d.mode = parse_mode(require_text(json, "mode", "", where), where);
  if (json.contains("score"))
    d.score = parse_score_kind(require_text(json, "score", "", where), where);
  const std::string layout = require_text(json, "layout", "paper", where);
  if (layout == "passage-last")
    d.prompt.layout = text::Layout::kPassageLast;
  else if (layout != "paper")
    base::fail(ErrorKind::kInvalidInput, "erank.json", where, ": layout is '", layout,
               "', expected paper or passage-last");
  if (json.contains("scale"))
    d.prompt.scale = text::parse_scale(require_text(json, "scale", "", where), where);
  d.instruction = require_text(json, "instruction", d.instruction, where);
  d.max_think_tokens = positive(json, "max_think_tokens", d.max_think_tokens, where);
  d.prompt.max_query_tokens = positive(json, "max_query_tokens", d.prompt.max_query_tokens, where);
  d.prompt.max_document_tokens =
      positive(json, "max_document_tokens", d.prompt.max_document_tokens, where);
  d.prompt.lower_capitals = base::json_value(json, "lower_capitals", false, where);
  d.int8 = base::json_value(json, "int8", false, where);
  d.prompt.think_open = require_text(json, "think_open", d.prompt.think_open, where);
  d.prompt.think_close = require_text(json, "think_close", d.prompt.think_close, where);
  d.prompt.direct_close = require_text(json, "direct_close", d.prompt.direct_close, where);
  return d;
}

}  // namespace

void check_tokenizer(const text::Tokenizer& tokenizer, int64_t num_rows) {
  for (int64_t id = num_rows; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.has(static_cast<int32_t>(id))) continue;
    const std::string& token = tokenizer.bytes_of(static_cast<int32_t>(id));
    const bool added = tokenizer.special(token) == id;
    base::fail(base::ErrorKind::kInvalidInput, "tokenizer", tokenizer.where(), ": ",
               added ? "added token '" : "token '", tokenizer.piece_of(static_cast<int32_t>(id)),
               "' has id ", id, ", but the embedding has ", num_rows,
               " rows; give the model a row for it (resize_token_embeddings in transformers), or "
               "take it out of the tokenizer's files");
  }
}

base::OrderedJson to_json(const CheckpointDefaults& d) {
  base::OrderedJson json;
  const CheckpointDefaults usual;
  json["layout"] = d.prompt.layout == text::Layout::kPassageLast ? "passage-last" : "paper";
  if (d.prompt.scale != usual.prompt.scale) json["scale"] = text::scale_name(d.prompt.scale);
  json["mode"] = mode_name(d.mode);
  json["score"] = score_kind_name(d.score);
  if (d.instruction != usual.instruction) json["instruction"] = d.instruction;
  json["max_query_tokens"] = d.prompt.max_query_tokens;
  json["max_document_tokens"] = d.prompt.max_document_tokens;
  json["lower_capitals"] = d.prompt.lower_capitals;
  json["max_think_tokens"] = d.max_think_tokens;
  if (d.prompt.think_open != usual.prompt.think_open) json["think_open"] = d.prompt.think_open;
  if (d.prompt.think_close != usual.prompt.think_close) json["think_close"] = d.prompt.think_close;
  if (d.prompt.direct_close != usual.prompt.direct_close)
    json["direct_close"] = d.prompt.direct_close;
  return json;
}

void write_checkpoint(const std::string& folder, const CheckpointDefaults& d,
                      const Checkpoint* base) {
  base::OrderedJson json;
  if (base) {
    const fs::path weights = fs::absolute(base->weights).lexically_normal();
    if (base::file_exists(weights)) {
      const bool cached = weights.parent_path() == fs::path(base::cache_folder()) / "models";
      json["base"] = {{"file", cached ? weights.filename().string() : weights.string()},
                      {"sha256", known_sha256(weights)}};
    } else {
      json["base"] = {{"folder", weights.string()}};
    }
  }
  json.update(to_json(d));
  base::write_file_atomic(folder + "/erank.json", json.dump(2) + "\n");
}

const char* mode_name(Mode mode) { return mode == Mode::kDirect ? "direct" : "think"; }

const char* score_kind_name(ScoreKind kind) {
  return kind == ScoreKind::kPaper      ? "paper"
         : kind == ScoreKind::kExpected ? "expected"
                                        : "integer";
}

Mode parse_mode(const std::string& text, const std::string& where) {
  if (text == "think") return Mode::kThink;
  if (text == "direct") return Mode::kDirect;
  base::fail(ErrorKind::kInvalidInput, "mode", where, ": '", text, "', expected think or direct");
}

ScoreKind parse_score_kind(const std::string& text, const std::string& where) {
  if (text == "paper") return ScoreKind::kPaper;
  if (text == "expected") return ScoreKind::kExpected;
  if (text == "integer") return ScoreKind::kInteger;
  base::fail(ErrorKind::kInvalidInput, "score", where, ": '", text,
             "', expected paper, expected or integer");
}

Checkpoint find_checkpoint(const std::string& path) {
  if (path.empty()) {
    if (const std::string folder = base::find_installed(kDefaultModel); !folder.empty())
      return find_checkpoint(folder);
    base::fail(ErrorKind::kNotFound, "model", "the default model ", kDefaultModel,
               " is not beside this program; give --model DIR");
  }
  Checkpoint checkpoint;
  fs::path folder(path);
  checkpoint.name = (folder.has_filename() ? folder : folder.parent_path()).filename();
  if (base::file_exists(path)) {
    if (folder.extension() != ".gguf")
      base::fail(ErrorKind::kInvalidInput, "model", path,
                 ": a file that does not end in .gguf; expected a .gguf file or a folder");
    checkpoint.weights = path;
    return checkpoint;
  }
  if (!base::folder_exists(path))
    base::fail(ErrorKind::kNotFound, "model", path, ": no such file or folder", how_to_fetch(path));
  checkpoint.folder = path;
  const std::string where = folder / "erank.json";
  const bool described = base::file_exists(where);
  const Json json =
      described ? base::parse_json(base::read_file(where, 1 << 20), where) : Json::object();
  if (!json.is_object())
    base::fail(ErrorKind::kInvalidInput, "erank.json", where, ": expected an object");
  checkpoint.defaults = read_defaults(json, where);
  const auto has = [&](const char* name) { return base::file_exists(folder / name); };
  const bool adapter = has("adapter_config.json");
  // Trainers put the base's config.json beside an adapter.
  if (has("config.json") &&
      (!adapter || has("model.safetensors") || has("model.safetensors.index.json"))) {
    checkpoint.weights = path;
  } else if (described && json.contains("base")) {
    checkpoint.weights = find_base(json["base"], where);
    if (adapter) checkpoint.adapter = path;
  } else if (adapter) {
    refuse_bare_adapter(path);
  } else if (const auto files = ggufs_in(folder); !files.empty()) {
    name_gguf(folder, files);
  } else {
    base::fail(
        ErrorKind::kInvalidInput, "model", path,
        ": neither a model folder (config.json) nor an adapter folder (erank.json with base)");
  }
  return checkpoint;
}

}  // namespace erank::rank
