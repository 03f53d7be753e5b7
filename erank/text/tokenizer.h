// Byte-level BPE as Qwen2/2.5/3, SmolLM2, Llama-3 and GPT-2 use it; equal, id for id, to Hugging
// Face's `tokenizers`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "erank/base/ids.h"

namespace erank::text {

using base::Ids;

struct EncodeOptions {
  // true: added tokens in the text become their ids. Only PromptFormat asks for it,
  // around text that it wrote itself; text of users never yields a special id.
  bool parse_specials = false;
};

// Immutable after load; every method is thread-safe.
class Tokenizer {
 public:
  // `path`: a folder with tokenizer.json, or with vocab.json + merges.txt (+ added_tokens.json /
  // tokenizer_config.json, whose tokenizer_class chooses Qwen2's rules, also where it is missing,
  // or GPT-2's), or a .gguf file. Throws Error{kNotFound}, Error{kCorrupt}, or Error{kInvalidInput}
  // that names a normaliser, pre-tokeniser or model type that we do not know.
  // `adapter`: a PEFT folder on that model, "" for none: a tokenizer of its own takes the place of
  // the model's, else a chat template of its own that of the model's.
  static Tokenizer load(const std::string& path, const std::string& adapter = "");
  // The text of a tokenizer.json alone: no eos, bos or chat template.
  static Tokenizer from_json(std::string_view tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Invalid UTF-8 is read as U+FFFD. Time is O(n log n), also for one word of many megabytes (a
  // split pattern that is run as a regex may take longer, and throws Error{kExhausted} at PCRE2's
  // limits, as does a text over 2 GB). Truncation, padding and post-processors of a tokenizer.json
  // are not applied: no token is added. A byte without a piece in the vocabulary vanishes, as it
  // does in `tokenizers`.
  Ids encode(std::string_view text, EncodeOptions options = {}) const;

  // The ids' bytes joined, made valid UTF-8 (U+FFFD for parts of characters). Special ids are
  // written as their text. Throws Error{kInvalidInput} for an id outside the vocabulary.
  std::string decode(const Ids& ids) const;
  // Whether decode() knows the id: a network may have more rows than its tokenizer has tokens.
  bool has(int32_t id) const;
  // One id's raw bytes (may be a part of a character): what incremental decoding joins.
  const std::string& bytes_of(int32_t id) const;
  // One id as the vocabulary spells it, each byte one printable character.
  const std::string& piece_of(int32_t id) const;

  // The id of an added token by its text, or nullopt.
  std::optional<int32_t> special(std::string_view token) const;
  // The id of a vocabulary entry whose bytes are exactly `bytes` (added tokens excluded), or
  // nullopt.
  std::optional<int32_t> token_for(std::string_view bytes) const;

  const std::string& where() const;       // the file or folder that it was read from
  int32_t vocab_size() const;             // largest id + 1
  std::optional<int32_t> eos_id() const;  // from tokenizer_config.json or the GGUF header
  std::optional<int32_t> bos_id() const;
  // The chat template (tokenizer_config.json `chat_template`, chat_template.jinja or the GGUF
  // header), or "".
  const std::string& chat_template() const;
  // Text of the bos and eos tokens, for templates that name them; "" when there is none.
  std::string bos_token() const;
  std::string eos_token() const;

 private:
  struct Tables;
  explicit Tokenizer(std::unique_ptr<const Tables> tables);
  std::unique_ptr<const Tables> tables_;
};

}  // namespace erank::text
