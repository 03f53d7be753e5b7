#include <algorithm>

#include "erank/base/error.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {

using base::ErrorKind;
using base::fail;
using base::Json;
using base::json_require;
using base::json_value;

namespace {

std::string type_of(const Json& object, const std::string& where, std::string_view part) {
  if (!object.is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": ", part, ": expected an object");
  return json_require<std::string>(object, "type", base::str(where, ": ", part));
}

const Json& list_in(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array())
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": '", key, "': expected a list");
  return *found;
}

const Json* member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void read_normalizer(const Json& object, TokenizerSpec& spec) {
  const std::string type = type_of(object, spec.where, "normalizer");
  if (type == "NFC") {
    spec.nfc = true;
  } else if (type == "Sequence") {
    for (const Json& part : list_in(object, "normalizers", spec.where)) read_normalizer(part, spec);
  } else {
    fail(ErrorKind::kInvalidInput, "Tokenizer", spec.where, ": normalizer '", type,
         "' is not supported; expected NFC or none");
  }
}

void read_split(const Json& object, TokenizerSpec& spec) {
  const std::string where = spec.where + ": pre_tokenizer Split";
  base::refuse_unknown_keys(object, {"type", "pattern", "behavior", "invert"}, where);
  const Json* pattern = member(object, "pattern");
  if (pattern == nullptr || !pattern->is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": expected a 'pattern'");
  base::refuse_unknown_keys(*pattern, {"Regex", "String"}, where);
  const bool literal = pattern->contains("String");
  const auto text = json_require<std::string>(*pattern, literal ? "String" : "Regex", where);
  SplitStep step = literal
                       ? SplitStep{.kind = SplitStep::Kind::kRegex,
                                   .regex = std::make_shared<const SplitRegex>(text, true, where)}
                       : split_step_for(text, where);
  const auto behavior = json_require<std::string>(object, "behavior", where);
  const bool invert = json_value<bool>(object, "invert", false, where);
  if (behavior == "Removed") {
    // The hand-written patterns cover every text, so only a regex can leave something out.
    if (step.kind != SplitStep::Kind::kRegex && !invert)
      fail(ErrorKind::kInvalidInput, "Tokenizer", where,
           ": behavior 'Removed' would drop all text");
    (invert ? step.keep_gaps : step.keep_matches) = false;
  } else if (behavior != "Isolated") {
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": behavior '", behavior,
         "' is not supported; expected Isolated or Removed");
  }
  spec.steps.push_back(std::move(step));
}

// Sets `byte_level` when it meets the step that makes a tokenizer byte-level; nothing may
// follow it.
void read_pre_tokenizer(const Json& object, TokenizerSpec& spec, bool& byte_level) {
  const std::string type = type_of(object, spec.where, "pre_tokenizer");
  const std::string where = base::str(spec.where, ": pre_tokenizer ", type);
  if (byte_level)
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, " after ByteLevel is not supported");
  if (type == "Sequence") {
    for (const Json& part : list_in(object, "pretokenizers", where))
      read_pre_tokenizer(part, spec, byte_level);
  } else if (type == "Split") {
    read_split(object, spec);
  } else if (type == "Digits") {
    base::refuse_unknown_keys(object, {"type", "individual_digits"}, where);
    spec.steps.push_back({.kind = json_value<bool>(object, "individual_digits", false, where)
                                      ? SplitStep::Kind::kDigits
                                      : SplitStep::Kind::kDigitRuns});
  } else if (type == "ByteLevel") {
    base::refuse_unknown_keys(object, {"type", "add_prefix_space", "trim_offsets", "use_regex"},
                              where);
    if (json_value<bool>(object, "add_prefix_space", true, where))
      spec.steps.push_back({.kind = SplitStep::Kind::kPrefixSpace});
    if (json_value<bool>(object, "use_regex", true, where))
      spec.steps.push_back({.kind = SplitStep::Kind::kGpt2});
    byte_level = true;
  } else {
    fail(ErrorKind::kInvalidInput, "Tokenizer", spec.where, ": pre_tokenizer '", type,
         "' is not supported; expected Sequence, Split, Digits or ByteLevel");
  }
}

// Post-processors only add special tokens; we add none, and the prompt's template writes the
// leading one.
void check_post_processor(const Json& object, const std::string& file) {
  const std::string type = type_of(object, file, "post_processor");
  const std::string where = base::str(file, ": post_processor ", type);
  if (type == "ByteLevel") return;
  if (type == "Sequence") {
    for (const Json& part : list_in(object, "processors", where)) check_post_processor(part, file);
    return;
  }
  if (type != "TemplateProcessing")
    fail(ErrorKind::kInvalidInput, "Tokenizer", file, ": post_processor '", type,
         "' is not supported; expected ByteLevel, TemplateProcessing or Sequence");
  bool text_seen = false;
  for (const Json& part : list_in(object, "single", where)) {
    if (part.is_object() && part.contains("Sequence")) {
      text_seen = true;
    } else if (text_seen) {
      fail(ErrorKind::kInvalidInput, "Tokenizer", where,
           ": adds a token after the text, which would change ids; expected none, or one before "
           "it");
    }
  }
}

bool has_byte_level_decoder(const Json& object, const std::string& where) {
  const std::string type = type_of(object, where, "decoder");
  if (type == "ByteLevel") return true;
  if (type != "Sequence")
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": decoder '", type,
         "' is not supported; expected ByteLevel");
  bool found = false;
  for (const Json& part : list_in(object, "decoders", where))
    found = has_byte_level_decoder(part, where) || found;
  return found;
}

void refuse_when_set(const Json& model, const char* key, const std::string& where) {
  const Json* value = member(model, key);
  if (value == nullptr || (value->is_string() && value->get_ref<const std::string&>().empty()) ||
      (value->is_boolean() && !value->get<bool>()) || (value->is_number() && *value == 0))
    return;
  fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": model: '", key,
       "' = ", base::dump_json(*value), " is not supported; expected none");
}

void read_model(const Json& model, TokenizerSpec& spec) {
  const std::string where = spec.where + ": model";
  const auto type = json_value<std::string>(model, "type", "BPE", where);
  if (type != "BPE")
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, " type '", type,
         "' is not supported; expected BPE");
  base::refuse_unknown_keys(
      model,
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"},
      where);
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
    refuse_when_set(model, key, spec.where);
  spec.ignore_merges = json_value<bool>(model, "ignore_merges", false, where);
  const Json* vocabulary = member(model, "vocab");
  if (vocabulary == nullptr)
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": expected a 'vocab'");
  read_vocabulary(*vocabulary, spec);
  for (const Json& merge : list_in(model, "merges", where)) {
    if (merge.is_string()) {
      spec.merges.push_back(split_merge(merge.get_ref<const std::string&>(), where));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      fail(ErrorKind::kCorrupt, "Tokenizer", where, ": merge ", base::dump_json(merge),
           ": expected \"left right\" or [left, right]");
    }
  }
  // A byte without a piece would become the unknown token, whose runs the reference may fuse.
  if (const Json* unknown = member(model, "unk_token"); unknown != nullptr)
    for (int b = 0; b < 0xf5; ++b) {
      const std::string piece = spell_bytes(std::string(1, static_cast<char>(b)));
      if (b != 0xc0 && b != 0xc1 && !vocabulary->contains(piece))
        fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": 'unk_token' is set and byte ", b,
             " has no piece; expected a vocabulary with every byte, or no unknown token");
    }
}

}  // namespace

void read_vocabulary(const Json& object, TokenizerSpec& spec) {
  if (!object.is_object() || object.empty())
    fail(ErrorKind::kInvalidInput, "Tokenizer", spec.where,
         ": vocabulary: expected an object {piece: id}");
  spec.pieces.reserve(object.size());
  for (const auto& [piece, id] : object.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= kMaxVocabulary)
      fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": vocabulary: piece '", piece,
           "' has id ", base::dump_json(id), ", expected an integer from 0 to ",
           kMaxVocabulary - 1);
    const auto at = id.get<size_t>();
    if (at >= spec.pieces.size()) spec.pieces.resize(at + 1);
    if (!spec.pieces[at].empty())
      fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": vocabulary: id ", at,
           " has two pieces, '", spec.pieces[at], "' and '", piece, "'");
    spec.pieces[at] = piece;
  }
}

AddedToken read_added_token(const Json& object, const std::string& where) {
  if (!object.is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": added token: expected an object");
  const std::string here = where + ": added token";
  base::refuse_unknown_keys(
      object,
      {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", "__type"},
      here);
  AddedToken token;
  token.content = json_require<std::string>(object, "content", here);
  const auto id = json_value<int64_t>(object, "id", 0, here);
  if (id < 0 || id >= kMaxVocabulary)
    fail(ErrorKind::kCorrupt, "Tokenizer", here, " '", token.content, "' has id ", id);
  token.id = static_cast<int32_t>(id);
  token.special = json_value<bool>(object, "special", false, here);
  token.normalized = json_value<bool>(object, "normalized", !token.special, here);
  token.lstrip = json_value<bool>(object, "lstrip", false, here);
  token.rstrip = json_value<bool>(object, "rstrip", false, here);
  token.single_word = json_value<bool>(object, "single_word", false, here);
  return token;
}

TokenizerSpec spec_from_json(std::string_view text, const std::string& where) {
  TokenizerSpec spec;
  spec.where = where;
  const Json root = base::parse_json(text, where);
  if (!root.is_object()) fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": expected an object");
  base::refuse_unknown_keys(root,
                            {"version", "truncation", "padding", "added_tokens", "normalizer",
                             "pre_tokenizer", "post_processor", "decoder", "model"},
                            where);
  const Json* model = member(root, "model");
  if (model == nullptr || !model->is_object())
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": expected a 'model'");
  if (const Json* normalizer = member(root, "normalizer")) read_normalizer(*normalizer, spec);
  bool byte_level = false;
  if (const Json* steps = member(root, "pre_tokenizer"))
    read_pre_tokenizer(*steps, spec, byte_level);
  const auto type = json_value<std::string>(*model, "type", "BPE", where);
  if (type == "BPE" && !byte_level)
    fail(ErrorKind::kInvalidInput, "Tokenizer", where,
         ": expected a byte-level tokenizer: no pre_tokenizer ByteLevel");
  if (const Json* post = member(root, "post_processor")) check_post_processor(*post, where);
  read_model(*model, spec);
  const Json* decoder = member(root, "decoder");
  if (decoder == nullptr || !has_byte_level_decoder(*decoder, where))
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": expected a decoder ByteLevel");
  if (const Json* added = member(root, "added_tokens")) {
    if (!added->is_array())
      fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": 'added_tokens': expected a list");
    for (const Json& token : *added) {
      json_require<int64_t>(token.is_object() ? token : Json::object(), "id",
                            where + ": added token");
      spec.added.push_back(read_added_token(token, where));
    }
  }
  return spec;
}

}  // namespace erank::text
