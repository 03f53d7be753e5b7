#include "cli/text_table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace erank::cli {

std::string formatted(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

size_t characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string one_line(std::string_view text, size_t width) {
  std::string out;
  std::vector<size_t> starts;  // byte offset of each character of `out`
  for (size_t i = 0; i < text.size() && starts.size() <= width;) {
    size_t n = 1;
    while (i + n < text.size() && (text[i + n] & 0xc0) == 0x80) ++n;
    const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
    const bool blank = (n == 1 && (byte(i) <= ' ' || byte(i) == 0x7f)) ||
                       (n == 2 && byte(i) == 0xc2 && byte(i + 1) < 0xa0);  // control characters
    if (!blank || (!out.empty() && out.back() != ' ')) {
      starts.push_back(out.size());
      out += blank ? std::string_view(" ") : text.substr(i, n);
    }
    i += n;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back(), starts.pop_back();
  if (starts.size() <= width) return out;
  return out.substr(0, starts[width - 1]) + "…";
}

namespace {

struct Character {
  std::string_view bytes;
  bool is_blank, is_marked;
};

// White space folded, none at the beginning or the end.
std::vector<Character> characters_of(std::string_view text, std::span<const Mark> marks,
                                     size_t most) {
  std::vector<Character> out;
  size_t next_mark = 0;
  for (size_t i = 0; i < text.size() && out.size() <= most;) {
    size_t n = 1;
    while (i + n < text.size() && (text[i + n] & 0xc0) == 0x80) ++n;
    const auto lead = static_cast<unsigned char>(text[i]);
    const bool is_blank =
        lead <= ' ' || lead == 0x7f ||
        (n == 2 && lead == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0);
    while (next_mark < marks.size() && marks[next_mark].end <= i) ++next_mark;
    const bool is_marked = next_mark < marks.size() && marks[next_mark].begin <= i;
    if (!is_blank) out.push_back({text.substr(i, n), false, is_marked});
    if (is_blank && !out.empty() && !out.back().is_blank) out.push_back({" ", true, is_marked});
    i += n;
  }
  if (!out.empty() && out.back().is_blank) out.pop_back();
  return out;
}

}  // namespace

std::vector<std::string> wrapped(std::string_view text, std::span<const Mark> marks, size_t width,
                                 size_t max_lines, bool bold) {
  // A line may be broken early by nearly its width.
  const auto all = characters_of(text, marks, 2 * width * max_lines);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < all.size() && lines.size() < max_lines;) {
    size_t end = std::min(all.size(), begin + width), next = end;
    const bool is_cut = end < all.size() && lines.size() + 1 == max_lines;
    if (is_cut) {
      end = begin + width - 1;
    } else if (end < all.size()) {
      size_t blank = end;
      while (blank > begin && !all[blank].is_blank) --blank;
      if (blank > begin) end = blank, next = blank + 1;
    }
    std::string line;
    bool is_bold = false;
    for (size_t i = begin; i < end; ++i) {
      if (bold && all[i].is_marked != is_bold) line += is_bold ? "\x1b[0m" : "\x1b[1m";
      is_bold = all[i].is_marked;
      line += all[i].bytes;
    }
    if (bold && is_bold) line += "\x1b[0m";
    lines.push_back(line + (is_cut ? "…" : ""));
    begin = next;
  }
  return lines;
}

std::string padded(std::string text, size_t width, bool right) {
  const size_t n = characters(text);
  if (n >= width) return text;
  return right ? std::string(width - n, ' ') + text : text + std::string(width - n, ' ');
}

std::string distribution_bar(const text::ScoreDistribution& d) {
  static const char* kBlocks[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string bar;
  for (const double p : d.answers())
    bar += kBlocks[p < 0.005 ? 0 : std::clamp(static_cast<int>(std::ceil(p * 8)), 1, 8)];
  return bar;
}

size_t output_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return 100;
}

}  // namespace erank::cli
