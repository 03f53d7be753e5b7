// White space as Unicode's White_Space property and Python's str.isspace() see it: what chat
// templates strip and what may surround an answer's integer.
#pragma once

#include <cstddef>
#include <string_view>

namespace erank::text {

// Length in bytes of the white-space character at text[pos], 0 when there is none. Broken UTF-8
// is no white space. REQUIRES: pos <= text.size().
size_t white_space_at(std::string_view text, size_t pos);

// The position of the first character at or after `pos` that is no white space (text.size() when
// all are).
size_t skip_white_space(std::string_view text, size_t pos);

// `text` without the white space at its ends.
std::string_view trim_white_space(std::string_view text);
std::string_view trim_white_space_right(std::string_view text);

}  // namespace erank::text
