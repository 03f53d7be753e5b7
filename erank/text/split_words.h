// The split patterns that byte-level BPE models share, each as one hand-written scan (several times
// the speed of a regex engine, linear on every input, and with the reference's Unicode classes).
// Each pattern covers every text: pieces follow one another without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace erank::text {

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_numbers}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
// |\s+(?!\S)|\s+ : Qwen2 and later with max_numbers 1 (its \p{N}), Llama 3 with 3.
// Returns the end of the piece that starts at `begin`. REQUIRES: text is valid UTF-8, begin <
// text.size() is the start of a character, classes is code_classes(). Thread-safe.
size_t next_qwen2_piece(const uint8_t* classes, std::string_view text, size_t begin,
                        int max_numbers);

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ : GPT-2, and
// ByteLevel's use_regex.
size_t next_gpt2_piece(const uint8_t* classes, std::string_view text, size_t begin);

// `Digits`: each digit alone (`individual`) or each run of digits, and the text between them.
size_t next_digits_piece(const uint8_t* classes, std::string_view text, size_t begin,
                         bool individual);

}  // namespace erank::text
