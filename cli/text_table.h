// Text laid out for people's eyes: columns, cut lines, bars.
#pragma once

#include <string>
#include <string_view>

#include "erank/text/score_distribution.h"

namespace erank::cli {

std::string formatted(const char* printf_format, double value);

// Number of characters of valid UTF-8 text.
size_t characters(std::string_view text);

// `text` on one line, white space folded, cut to `width` characters with an ellipsis.
std::string one_line(std::string_view text, size_t width);

// Filled with blanks to `width` characters, on the left when `right` aligned.
std::string padded(std::string text, size_t width, bool right = false);

// Eleven columns, one a possible answer from 0 to 10, as high as its probability.
std::string distribution_bar(const text::ScoreDistribution& distribution);

// Columns of the terminal, 100 when stdout is none.
size_t output_width();

}  // namespace erank::cli
