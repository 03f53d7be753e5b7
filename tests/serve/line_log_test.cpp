#include "erank/serve/line_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>

namespace erank::serve {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

std::string dropped_line(int64_t count) { return "dropped " + std::to_string(count); }

class LineLogOnAPipe : public ::testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);
    ASSERT_EQ(::pipe2(ends_, O_CLOEXEC), 0);
  }
  // The pipe's bytes then: a page.
  size_t make_small() {
    const int size = ::fcntl(ends_[1], F_SETPIPE_SZ, 4096);
    EXPECT_GT(size, 0);
    return static_cast<size_t>(size);
  }
  void TearDown() override { close_reader(), ::close(ends_[1]); }
  void close_reader() {
    if (ends_[0] >= 0) ::close(std::exchange(ends_[0], -1));
  }
  int writer() const { return ends_[1]; }
  // Reads until so many lines have come, or the pipe's end.
  std::vector<std::string> read_lines(size_t count) {
    char bytes[1000];
    while (lines_.size() < count) {
      const ssize_t n = ::read(ends_[0], bytes, sizeof bytes);
      if (n <= 0) break;
      for (ssize_t i = 0; i < n; ++i)
        if (bytes[i] == '\n')
          lines_.push_back(std::exchange(line_, {}));
        else
          line_ += bytes[i];
    }
    return lines_;
  }

 private:
  int ends_[2] = {-1, -1};
  std::vector<std::string> lines_;
  std::string line_;
};

TEST_F(LineLogOnAPipe, WritesLinesInTheirOrder) {
  LineLog log(writer(), {.dropped_line = dropped_line});
  for (const char* line : {"a", "", "b"}) log.add(line);
  EXPECT_THAT(read_lines(3), ElementsAre("a", "", "b"));
}

TEST_F(LineLogOnAPipe, NeverWaitsAndTellsWhatItDropped) {
  const size_t in_pipe = make_small() / 90;
  auto log = std::make_unique<LineLog>(
      writer(), LineLogOptions{.max_waiting_bytes = 10000, .dropped_line = dropped_line});
  const size_t num_lines = 1000 + in_pipe;
  const std::string tail(90, 'x');
  for (size_t i = 0; i < num_lines; ++i) log->add(std::to_string(i) + tail);  // nobody reads
  // A busy machine may let the thread take lines after the first were dropped,
  // so there may be more than one such line; each names what is missing there.
  size_t told = 0, seen = 0, next = 0;
  for (; next < num_lines; ++seen) {
    const std::string line = read_lines(seen + 1).at(seen);
    if (line.starts_with("dropped ")) {
      const size_t count = std::stoul(line.substr(8));
      told += count;
      next += count;
    } else {
      ASSERT_EQ(line, std::to_string(next++) + tail);
    }
  }
  EXPECT_EQ(next, num_lines);
  EXPECT_GT(told, 700u);
  log->add("again");
  EXPECT_EQ(read_lines(seen + 1).back(), "again");
}

TEST_F(LineLogOnAPipe, EndsThoughNobodyReads) {
  make_small();
  const auto begin = std::chrono::steady_clock::now();
  {
    LineLog log(writer(), {.dropped_line = dropped_line});
    for (int i = 0; i < 1000; ++i) log.add(std::string(90, 'x'));
  }
  const auto time = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(time, std::chrono::milliseconds(900));  // it has tried
  EXPECT_LT(time, std::chrono::seconds(10));
}

TEST_F(LineLogOnAPipe, WritesWhatWaitsBeforeItEnds) {
  {
    LineLog log(writer(), {.dropped_line = dropped_line});
    for (int i = 0; i < 10; ++i) log.add(std::to_string(i));
  }
  EXPECT_EQ(read_lines(10).back(), "9");
}

TEST_F(LineLogOnAPipe, SaysOnceThatItCannotWrite) {
  close_reader();
  std::atomic<int> faults = 0;
  {
    LineLog log(writer(), {.dropped_line = dropped_line, .on_fault = [&] { ++faults; }});
    for (int i = 0; i < 10; ++i) log.add("x");
  }
  EXPECT_EQ(faults, 1);
}

// A device that is full, then a file with room: what was lost is told there.
TEST(LineLogFile, TellsWhatWasLostOnceItCanWriteAgain) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (full < 0) GTEST_SKIP() << "there is no /dev/full";
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  std::atomic<int> faults = 0;
  std::string text(100, '\0');
  {
    LineLog log(full, {.dropped_line = dropped_line, .on_fault = [&] { ++faults; }});
    log.add("one");
    while (faults == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_GE(::dup2(ends[1], full), 0);
    log.add("two");
    const ssize_t n = ::read(ends[0], text.data(), text.size());
    ASSERT_GT(n, 0);
    text.resize(static_cast<size_t>(n));
  }
  EXPECT_THAT(text, StartsWith("dropped 1\n"));
  for (const int descriptor : {full, ends[0], ends[1]}) ::close(descriptor);
}

}  // namespace
}  // namespace erank::serve
