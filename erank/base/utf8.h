// UTF-8 at the edges: what comes in may be broken, what goes on is valid.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace erank::base {

bool is_valid_utf8(std::string_view text);

// `text` with each maximal ill-formed part replaced by U+FFFD (the practice of Unicode 15,
// section 3.9, and of WHATWG and Python's decoder); returns it unchanged when it is valid.
std::string sanitize_utf8(std::string_view text);

// Length in bytes of the longest prefix of `text` that is at most `max_bytes` long and does not end
// inside a character. REQUIRES: text is valid UTF-8.
size_t utf8_prefix(std::string_view text, size_t max_bytes);

// The code points `begin` to `end` of `text`, as Python slices a string; fewer when it is shorter.
// REQUIRES: text is valid UTF-8.
std::string_view utf8_slice(std::string_view text, int64_t begin, int64_t end);

// Appends the UTF-8 form of `code_point` (surrogates and values over U+10FFFF become U+FFFD).
void append_utf8(std::string& out, uint32_t code_point);

// `text` as one line that is safe to show: control characters and those that turn the direction of
// writing as \n, \t, \x1b or \u202e, bytes that are no UTF-8 as \xff. A backslash stays as it is.
std::string printable(std::string_view text);

// What a message quotes of a file: printable(text) in single quotes, after `max_bytes` an ellipsis.
std::string in_quotes(std::string_view text, size_t max_bytes = 80);

}  // namespace erank::base
