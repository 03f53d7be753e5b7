#include "erank/text/split_words.h"

#include <cstdint>

#include "erank/text/split_classes.h"

namespace erank::text {
namespace {

struct Character {
  uint8_t kind;  // kLetter, kNumber, kSpace or 0
  uint32_t length;
};

// The character at text[i]; length 0 at the end of the text.
inline Character character_at(const uint8_t* classes, std::string_view text, size_t i) {
  if (i >= text.size()) return {0, 0};
  const auto first = static_cast<uint8_t>(text[i]);
  if (first < 0x80) return {static_cast<uint8_t>(classes[first] & kSplitMask), 1};
  const CodePoint c = code_point_at(text, i);
  return {static_cast<uint8_t>(classes[c.value] & kSplitMask), c.length};
}

// The end of the run of characters of one kind that starts at i.
inline size_t skip(const uint8_t* classes, std::string_view text, size_t i, uint8_t kind) {
  for (;;) {
    const Character c = character_at(classes, text, i);
    if (c.length == 0 || c.kind != kind) return i;
    i += c.length;
  }
}

inline bool is_newline(char c) { return c == '\r' || c == '\n'; }

// The end of a contraction ('s 't 're 've 'm 'll 'd) whose apostrophe is at i, or i. With
// `fold`, upper-case letters match too, and so does U+017F, which folds to s.
size_t contraction_end(std::string_view text, size_t i, bool fold) {
  const auto letter = [&](size_t k) {
    if (k >= text.size()) return '\0';
    const char c = text[k];
    return fold && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  };
  const char second = letter(i + 2);
  switch (letter(i + 1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return i + 2;
    case 'r':
    case 'v':
      return second == 'e' ? i + 3 : i;
    case 'l':
      return second == 'l' ? i + 3 : i;
    case '\xc5':
      return fold && second == '\xbf' ? i + 3 : i;
    default:
      return i;
  }
}

// \s+(?!\S)|\s+ on the run of white space [begin, end): all of it at the end of the text, else all
// but its last character, unless that is the only one.
size_t space_piece(std::string_view text, size_t begin, size_t end) {
  if (end == text.size()) return end;
  size_t last = end - 1;
  while ((static_cast<uint8_t>(text[last]) & 0xc0) == 0x80) --last;
  return last > begin ? last : end;
}

}  // namespace

size_t next_qwen2_piece(const uint8_t* classes, std::string_view text, size_t begin,
                        int max_numbers) {
  const Character first = character_at(classes, text, begin);
  const size_t second_at = begin + first.length;
  if (first.kind == kLetter) return skip(classes, text, second_at, kLetter);
  if (first.kind == kNumber) {
    size_t end = second_at;
    for (int n = 1; n < max_numbers; ++n) {
      const Character c = character_at(classes, text, end);
      if (c.kind != kNumber) break;
      end += c.length;
    }
    return end;
  }
  const char byte = text[begin];
  if (byte == '\'') {
    const size_t end = contraction_end(text, begin, true);
    if (end != begin) return end;
  }
  const Character second = character_at(classes, text, second_at);
  if (second.kind == kLetter && !is_newline(byte))
    return skip(classes, text, second_at + second.length, kLetter);
  const bool space_then_other = byte == ' ' && second.length != 0 && second.kind == 0;
  if (first.kind == 0 || space_then_other) {
    size_t end = skip(classes, text, second_at, 0);
    while (end < text.size() && is_newline(text[end])) ++end;
    return end;
  }
  size_t end = begin, behind_newline = begin;
  for (;;) {
    const Character c = character_at(classes, text, end);
    if (c.kind != kSpace) break;
    end += c.length;
    if (is_newline(text[end - 1])) behind_newline = end;
  }
  return behind_newline != begin ? behind_newline : space_piece(text, begin, end);
}

size_t next_gpt2_piece(const uint8_t* classes, std::string_view text, size_t begin) {
  const char byte = text[begin];
  if (byte == '\'') {
    const size_t end = contraction_end(text, begin, false);
    if (end != begin) return end;
  }
  const Character first = character_at(classes, text, begin);
  size_t at = begin + first.length;
  if (first.kind != kSpace) return skip(classes, text, at, first.kind);
  if (byte == ' ') {
    const Character second = character_at(classes, text, at);
    if (second.length != 0 && second.kind != kSpace)
      return skip(classes, text, at + second.length, second.kind);
  }
  return space_piece(text, begin, skip(classes, text, at, kSpace));
}

size_t next_digits_piece(const uint8_t* classes, std::string_view text, size_t begin,
                         bool individual) {
  const auto is_digit = [&](size_t i, uint32_t& length) {
    const CodePoint c = code_point_at(text, i);
    length = c.length;
    return (classes[c.value] & kDigitSplit) != 0;
  };
  uint32_t length = 0;
  const bool digit = is_digit(begin, length);
  size_t end = begin + length;
  if (digit && individual) return end;
  while (end < text.size() && is_digit(end, length) == digit) end += length;
  return end;
}

}  // namespace erank::text
