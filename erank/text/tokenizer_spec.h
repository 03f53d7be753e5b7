// What every source of a tokenizer (tokenizer.json, vocab.json + merges.txt, GGUF header) says, in
// one form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "erank/base/json.h"
#include "erank/text/split_steps.h"

namespace erank::text {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool normalized = false;   // looked for in the normalised text, not in the raw one
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool single_word = false;  // only where no word character touches it
};

struct TokenizerSpec {
  std::string where;                // file or folder, for messages
  std::vector<std::string> pieces;  // by id, as the vocabulary spells them; "" where there is none
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added;                            // their pieces need not be in `pieces`
  std::vector<int32_t> unused;  // ids without text (padding of the vocabulary)
  bool ignore_merges = false;   // a word that is a piece is that piece, whatever the merges say
  bool nfc = false;
  std::vector<SplitStep> steps;
  std::string bos, eos;  // texts of these tokens, "" for none
  std::string chat_template;
};

// The largest vocabulary that is read; a larger id is a fault in the file.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;

// Each throws Error{kNotFound}, Error{kCorrupt}, or Error{kInvalidInput} that names what we do not
// know.
TokenizerSpec spec_from_json(std::string_view tokenizer_json, const std::string& where);
TokenizerSpec spec_from_folder(const std::string& folder);
TokenizerSpec spec_from_gguf(const std::string& path);

// Whether a folder has the files of a tokenizer.
bool has_tokenizer(const std::string& folder);
// That of tokenizer_config.json or chat_template.jinja in the folder, which goes first; "": none.
std::string chat_template_of(const std::string& folder);

// {piece: id} of vocab.json and of tokenizer.json's model into `pieces`.
void read_vocabulary(const base::Json& object, TokenizerSpec& spec);
// "left right", as merges are written in text. Throws Error{kCorrupt} unless there is exactly one
// space.
std::pair<std::string, std::string> split_merge(std::string_view line, std::string_view where);
// An added token's object, with or without "id".
AddedToken read_added_token(const base::Json& object, const std::string& where);

// GPT-2's printable form of bytes: printable Latin-1 bytes are themselves, the others for
// U+0100 and up. The text of `bytes` in that form.
std::string spell_bytes(std::string_view bytes);
// The bytes that `piece` spells, or nullopt when it holds another character.
std::optional<std::string> bytes_of_piece(std::string_view piece);

}  // namespace erank::text
