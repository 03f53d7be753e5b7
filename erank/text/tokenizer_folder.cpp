#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {

using base::ErrorKind;
using base::fail;
using base::Json;
using base::json_value;

namespace {

constexpr const char* kConfig = "/tokenizer_config.json";

Json read_json(const std::string& path) { return base::parse_json(base::read_file(path), path); }

// A special token's text: a string, or an added token's object.
std::string token_text(const Json& config, const char* key, const std::string& where) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  return read_added_token(*found, where).content;
}

void add(TokenizerSpec& spec, AddedToken token) {
  for (AddedToken& known : spec.added)
    if (known.content == token.content) {
      if (known.id != token.id)
        fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": added token '", token.content,
             "' has ids ", known.id, " and ", token.id);
      return;
    }
  spec.added.push_back(std::move(token));
}

void read_added_file(const std::string& path, TokenizerSpec& spec) {
  const Json object = read_json(path);
  if (!object.is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", path, ": expected an object {token: id}");
  for (const auto& [content, id] : object.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= kMaxVocabulary)
      fail(ErrorKind::kCorrupt, "Tokenizer", path, ": '", content, "': expected an id");
    // The file says no more. Markers (<|...|>) are special in every family that has such a file.
    const bool special = content.starts_with("<|") && content.ends_with("|>");
    add(spec,
        {.content = content, .id = id.get<int32_t>(), .special = special, .normalized = !special});
  }
}

std::string template_in(const Json& config, const std::string& where) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array())
    for (const Json& entry : *found)
      if (entry.is_object() && json_value<std::string>(entry, "name", "", where) == "default")
        return base::json_require<std::string>(entry, "template", where);
  fail(ErrorKind::kInvalidInput, "Tokenizer", where,
       ": 'chat_template': expected a text, or a list with one named 'default'");
}

void read_config(const Json& config, const std::string& where, TokenizerSpec& spec) {
  if (!config.is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": expected an object");
  if (const auto decoder = config.find("added_tokens_decoder");
      decoder != config.end() && decoder->is_object())
    for (const auto& [key, value] : decoder->items()) {
      AddedToken token = read_added_token(value, where);
      if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos)
        fail(ErrorKind::kCorrupt, "Tokenizer", where, ": added token '", token.content,
             "' has id '", key, "'");
      token.id = std::stoi(key);
      if (token.id >= kMaxVocabulary)
        fail(ErrorKind::kCorrupt, "Tokenizer", where, ": added token '", token.content, "' has id ",
             key);
      add(spec, std::move(token));
    }
  spec.bos = token_text(config, "bos_token", where);
  spec.eos = token_text(config, "eos_token", where);
}

// The pre-tokeniser and normaliser that belong to a folder without tokenizer.json.
void apply_class(const Json& config, const std::string& where, TokenizerSpec& spec) {
  auto name = json_value<std::string>(config, "tokenizer_class", "Qwen2Tokenizer", where);
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name != "Qwen2Tokenizer" && name != "GPT2Tokenizer")
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": tokenizer_class '", name,
         "' needs a tokenizer.json; only Qwen2Tokenizer and GPT2Tokenizer can do without");
  if (json_value<bool>(config, "add_prefix_space", false, where))
    spec.steps.push_back({.kind = SplitStep::Kind::kPrefixSpace});
  spec.nfc = name == "Qwen2Tokenizer";
  spec.steps.push_back({.kind = spec.nfc ? SplitStep::Kind::kQwen2 : SplitStep::Kind::kGpt2});
}

void read_merges(const std::string& path, TokenizerSpec& spec) {
  const std::string text = base::read_file(path);
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    spec.merges.push_back(split_merge(line, base::str(path, ":", number)));
  }
}

}  // namespace

bool has_tokenizer(const std::string& folder) {
  const auto has = [&](const char* name) { return base::file_exists(folder + "/" + name); };
  return has("tokenizer.json") || (has("vocab.json") && has("merges.txt"));
}

std::string chat_template_of(const std::string& folder) {
  const std::string path = folder + "/chat_template.jinja", config = folder + kConfig;
  if (base::file_exists(path)) return base::read_file(path);
  if (!base::file_exists(config)) return "";
  const Json json = read_json(config);
  if (!json.is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", config, ": expected an object");
  return template_in(json, config);
}

TokenizerSpec spec_from_folder(const std::string& folder) {
  const std::string config_path = folder + kConfig;
  const bool has_config = base::file_exists(config_path);
  const Json config = has_config ? read_json(config_path) : Json::object();
  TokenizerSpec spec;
  if (const std::string path = folder + "/tokenizer.json"; base::file_exists(path)) {
    spec = spec_from_json(base::read_file(path), path);
  } else if (has_tokenizer(folder)) {
    spec.where = folder;
    read_vocabulary(read_json(folder + "/vocab.json"), spec);
    read_merges(folder + "/merges.txt", spec);
    apply_class(config, config_path, spec);
  } else {
    fail(ErrorKind::kNotFound, "Tokenizer", folder,
         ": expected tokenizer.json, or vocab.json and merges.txt");
  }
  read_config(config, config_path, spec);
  if (const std::string path = folder + "/added_tokens.json";
      spec.where == folder && base::file_exists(path))
    read_added_file(path, spec);
  spec.chat_template = chat_template_of(folder);
  return spec;
}

}  // namespace erank::text
