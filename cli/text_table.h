// Text laid out for people's eyes: columns, cut lines, bars.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/text/score_distribution.h"

namespace erank::cli {

std::string formatted(const char* printf_format, double value);

// Number of characters of valid UTF-8 text.
size_t characters(std::string_view text);

// `text` on one line, white space folded, cut to `width` characters with an ellipsis.
std::string one_line(std::string_view text, size_t width);

// A part of a text, in bytes.
struct Mark {
  size_t begin, end;
};

// `text` in lines of at most `width` characters, broken at white space where that is possible, at
// most `max_lines` of them, an ellipsis at the end of what was cut. Control characters become
// blanks. With `bold` the marks, in ascending order, are bold on a terminal. REQUIRES: width >= 1,
// max_lines >= 1.
std::vector<std::string> wrapped(std::string_view text, std::span<const Mark> marks, size_t width,
                                 size_t max_lines, bool bold);

// Filled with blanks to `width` characters, on the left when `right` aligned.
std::string padded(std::string text, size_t width, bool right = false);

// A column for each answer on the scale, eleven from 0 to 10, as high as its probability.
std::string distribution_bar(const text::ScoreDistribution& distribution);

// Columns of the terminal, 100 when stdout is none.
size_t output_width();

}  // namespace erank::cli
