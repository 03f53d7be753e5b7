// Tokenizers written as Hugging Face files, so that a model folder made by this program is whole.
#pragma once

#include <cstdint>
#include <string>

namespace erank::text {

// Puts the tokenizer of `source` into `folder`, which must exist. A folder's tokenizer files are
// copied as they are; a .gguf header is written as tokenizer.json and tokenizer_config.json (chat
// template included). `adapter`: as Tokenizer::load takes it. Throws as Tokenizer::load does for a
// `source` that it cannot read. Each file is written atomically.
void copy_tokenizer(const std::string& source, const std::string& folder,
                    const std::string& adapter = "");
// Those of its files that a PEFT folder has, as they are.
void copy_own_tokenizer(const std::string& adapter, const std::string& folder);

// A tokenizer of `vocab_size` ids for models without one: ids 0 to 255 are the bytes, then
// <|endoftext|>, the turn markers and the reasoning markers, then pieces that no text is encoded
// to; a minimal ChatML template. REQUIRES: vocab_size >= kMinByteVocabulary.
void write_byte_tokenizer(int64_t vocab_size, const std::string& folder);
inline constexpr int64_t kMinByteVocabulary = 261;

}  // namespace erank::text
