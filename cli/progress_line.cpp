#include "cli/progress_line.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <mutex>

#include "erank/base/utf8.h"

namespace erank::cli {
namespace {

std::mutex g_mutex;
std::string g_standing;  // the progress line now on the terminal
std::string g_prefix;

void put(const std::string& text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string duration_text(double seconds) {
  const int64_t s = std::llround(std::max(0.0, seconds));
  char text[32];
  if (s < 60)
    std::snprintf(text, sizeof text, "%lld s", static_cast<long long>(s));
  else if (s < 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(s / 60),
                  static_cast<long long>(s % 60));
  else
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(s / 3600),
                  static_cast<long long>(s / 60 % 60), static_cast<long long>(s % 60));
  return text;
}

ProgressLine::ProgressLine() : terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::update(const base::Progress& p) {
  if (!terminal_) return;
  const std::lock_guard lock(g_mutex);
  const auto now = Clock::now();
  if (p.what != what_) {
    if (!g_standing.empty()) put("\n");
    g_standing.clear();
    what_ = p.what, start_ = now, first_done_ = p.done, shown_ = {};
  }
  const bool last = p.total > 0 && p.done >= p.total;
  if (now - shown_ < std::chrono::milliseconds(100) && !last) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(p.done - first_done_) / seconds : 0;
  char text[64];
  std::string line = p.what + "  " + std::to_string(p.done);
  if (p.total > 0) line += "/" + std::to_string(p.total);
  line += " " + p.unit;
  if (rate > 0) {
    std::snprintf(text, sizeof text, rate < 10 ? "  %.2f/s" : "  %.0f/s", rate);
    line += text;
    if (p.total > 0 && !last)
      line += "  " + duration_text(static_cast<double>(p.total - p.done) / rate) + " left";
  }
  if (last) line += "  in " + duration_text(seconds);
  if (!p.detail.empty()) line += "  " + p.detail;
  line.resize(std::min(line.size(), terminal_width() - 1));
  put("\r\x1b[K" + line);
  g_standing = line;
}

void ProgressLine::finish() {
  const std::lock_guard lock(g_mutex);
  if (!g_standing.empty()) put("\n");
  g_standing.clear();
  what_.clear();
}

void ProgressLine::print_above(const std::string& line) {
  const std::lock_guard lock(g_mutex);
  const std::string whole = g_prefix + base::printable(line) + "\n";
  put(g_standing.empty() ? whole : "\r\x1b[K" + whole + g_standing);
}

void ProgressLine::set_prefix(const std::string& prefix) {
  const std::lock_guard lock(g_mutex);
  g_prefix = prefix;
}

}  // namespace erank::cli
