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

std::string padded(std::string text, size_t width, bool right) {
  const size_t n = characters(text);
  if (n >= width) return text;
  return right ? std::string(width - n, ' ') + text : text + std::string(width - n, ' ');
}

std::string distribution_bar(const text::ScoreDistribution& d) {
  static const char* kBlocks[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string bar;
  for (const double p : d.p)
    bar += kBlocks[p < 0.005 ? 0 : std::clamp(static_cast<int>(std::ceil(p * 8)), 1, 8)];
  return bar;
}

size_t output_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return 100;
}

}  // namespace erank::cli
