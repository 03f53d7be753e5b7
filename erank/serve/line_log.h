// A log of lines that nobody has to wait for: a thread of its own writes them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace erank::serve {

struct LineLogOptions {
  size_t max_waiting_bytes = 1 << 20;  // of lines that are not written; what comes then is dropped
  // A line that takes the place of so many that were dropped, written once there is room again.
  std::function<std::string(int64_t dropped)> dropped_line;
  // The descriptor took an error in place of a line, the first time. Called on the log's thread.
  std::function<void()> on_fault = {};
};

// Each line, at most 4096 bytes (POSIX's PIPE_BUF) with its newline, is one write() at the end of
// `descriptor`, which must outlive the log. Thread-safe.
class LineLog {
 public:
  LineLog(int descriptor, LineLogOptions options);
  ~LineLog();  // writes what waits, for at most a second
  LineLog(const LineLog&) = delete;

  // Never waits for the descriptor, whatever it is: a full pipe, a slow disk. `line` without "\n".
  void add(std::string line);

 private:
  void run();
  bool put(const std::string& line);  // false: it is lost, or the time is over
  bool is_over();

  const int descriptor_;
  const LineLogOptions options_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<std::string> waiting_;
  size_t waiting_bytes_ = 0;
  int64_t dropped_ = 0;  // after the last of waiting_
  bool stop_ = false;
  std::chrono::steady_clock::time_point end_;  // with stop_

  // The thread's own.
  int64_t lost_ = 0;        // lines that were not written and are not told
  bool in_a_line_ = false;  // of the last line a part was written
  bool faulty_ = false;
  std::thread thread_;
};

}  // namespace erank::serve
