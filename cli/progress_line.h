// The progress line on stderr: what, how far, rate, time left. At most ten times a second; silent
// when stderr is not a terminal.
#pragma once

#include <chrono>
#include <string>

#include "erank/base/progress.h"

namespace erank::cli {

class ProgressLine : public base::ProgressSink {
 public:
  ProgressLine();
  ~ProgressLine() override;
  void update(const base::Progress& progress) override;
  void finish() override;

  // A whole line on stderr, above the progress line if there is one. Thread-safe.
  static void print_above(const std::string& line);
  // Goes before each of them from now on.
  static void set_prefix(const std::string& prefix);

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  std::string what_;
  Clock::time_point start_, shown_;
  int64_t first_done_ = 0;
};

// "1:02:03" or "4:05" or "12 s".
std::string duration_text(double seconds);

}  // namespace erank::cli
