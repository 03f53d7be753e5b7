#include "erank/serve/line_log.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace erank::serve {

using Clock = std::chrono::steady_clock;

LineLog::LineLog(int descriptor, LineLogOptions options)
    : descriptor_(descriptor), options_(std::move(options)), thread_([this] { run(); }) {}

LineLog::~LineLog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    end_ = Clock::now() + std::chrono::seconds(1);
  }
  news_.notify_one();
  thread_.join();
}

void LineLog::add(std::string line) {
  {
    const std::lock_guard lock(mutex_);
    if (dropped_ > 0 || waiting_bytes_ + line.size() > options_.max_waiting_bytes) {
      ++dropped_;
      return;
    }
    waiting_bytes_ += line.size();
    waiting_.push_back(std::move(line));
  }
  news_.notify_one();
}

void LineLog::run() {
  for (;;) {
    std::vector<std::string> lines;
    int64_t dropped = 0;
    {
      std::unique_lock lock(mutex_);
      news_.wait(lock, [this] { return stop_ || !waiting_.empty() || dropped_ > 0; });
      if (waiting_.empty() && dropped_ == 0) return;
      lines.swap(waiting_);
      waiting_bytes_ = 0;
      dropped = std::exchange(dropped_, 0);
    }
    for (const std::string& line : lines) {
      if (is_over()) return;
      if (lost_ > 0 && put(options_.dropped_line(lost_))) lost_ = 0;
      if (lost_ > 0 || !put(line)) ++lost_;
    }
    lost_ += dropped;
    if (lost_ > 0 && put(options_.dropped_line(lost_))) lost_ = 0;
    if (is_over()) return;
  }
}

bool LineLog::is_over() {
  const std::lock_guard lock(mutex_);
  return stop_ && Clock::now() >= end_;
}

bool LineLog::put(const std::string& line) {
  // After half a line the next one begins anew.
  const std::string text = (in_a_line_ ? "\n" : "") + line + "\n";
  constexpr int kLookMs = 50;
  for (size_t done = 0; done < text.size();) {
    // A pipe that poll() calls writable takes PIPE_BUF bytes without waiting.
    pollfd out{descriptor_, POLLOUT, 0};
    const int ready = ::poll(&out, 1, kLookMs);
    if (ready == 0) {
      if (is_over()) return false;
      continue;
    }
    const ssize_t n = ready < 0 ? -1 : ::write(descriptor_, text.data() + done, text.size() - done);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) {
      if (!std::exchange(faulty_, true) && options_.on_fault) options_.on_fault();
      return false;
    }
    done += static_cast<size_t>(n);
    in_a_line_ = done < text.size();
  }
  return true;
}

}  // namespace erank::serve
