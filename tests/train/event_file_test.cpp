#include "erank/train/event_file.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::train {
namespace {

// The lines of JSON that a script of this folder prints about a file.
std::vector<base::Json> events_of(const std::string& path, const std::string& python = "python3",
                                  const std::string& script = "read_event_file.py") {
  const std::string command =
      "'" + python + "' " ERANK_SOURCE_DIR "/tests/train/" + script + " '" + path + "'";
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
  EXPECT_EQ(::pclose(pipe), 0);
  std::vector<base::Json> events;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
    events.push_back(base::parse_json(text.substr(begin, end - begin), "event"));
  return events;
}

TEST(EventFile, HasTheChecksumsOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, IsReadByTensorBoard) {
  const std::string python = erank::testing::test_python();
  if (python.empty()) GTEST_SKIP() << "needs TensorBoard of `tools/setup --tests`";
  const TestFolder folder;
  {
    EventFile file(folder.path(), 1, 1700000000.5);
    const std::vector<EventFile::Figure> figures = {{"reward", 0.25}, {"kl", 1e-4}};
    file.add(1, 1700000001, figures);
    file.add(2, 1700000002.5, std::span(figures).first(1));
  }
  // A run that went on after step 1: what the first wrote of step 2 does not count.
  EventFile resumed(folder.path(), 2, 1700000009);
  const std::vector<EventFile::Figure> figures = {{"reward", 0.75}};
  resumed.add(2, 1700000010, figures);
  const auto scalars = events_of(folder.path(), python, "read_tensorboard.py");
  const auto reward = base::Json{{"name", "reward"},
                                 {"steps", {1, 2}},
                                 {"values", {0.25, 0.75}},
                                 {"times", {1700000001.0, 1700000010.0}}};
  ASSERT_EQ(scalars.size(), 2u);
  EXPECT_EQ(scalars[0]["name"], "kl");
  EXPECT_EQ(scalars[0]["values"], base::Json({static_cast<double>(1e-4f)}));
  EXPECT_EQ(scalars[1], reward);
}

// By read_event_file.py, which knows nothing of our code.
TEST(EventFile, IsReadByAnother) {
  const TestFolder folder;
  EventFile file(folder.path(), 7, 1700000000.5);
  EXPECT_EQ(file.path(), folder.path("events.out.tfevents.1700000000.erank"));
  const std::string long_name(300, 'x');
  const std::vector<EventFile::Figure> figures = {
      {"reward", 0.25}, {"reward/above", -1}, {long_name, 1e30}};
  file.add(7, 1700000001, figures);
  file.add(int64_t{1} << 40, 1700000002.25, std::span(figures).first(1));

  const auto events = events_of(file.path());  // while the file is open
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0],
            base::Json({{"time", 1700000000.5}, {"step", 0}, {"version", "brain.Event:2"}}));
  EXPECT_EQ(events[1], base::Json({{"time", 1700000000.5}, {"step", 7}, {"session", 1}}));
  EXPECT_EQ(events[2]["step"], 7);
  EXPECT_EQ(events[2]["figures"].size(), 3u);
  EXPECT_EQ(events[2]["figures"]["reward"], 0.25);
  EXPECT_EQ(events[2]["figures"]["reward/above"], -1.0);
  EXPECT_EQ(events[2]["figures"][long_name], static_cast<double>(1e30f));
  EXPECT_EQ(events[3], base::Json({{"time", 1700000002.25},
                                   {"step", int64_t{1} << 40},
                                   {"figures", {{"reward", 0.25}}}}));
}

TEST(EventFile, SaysWhereItCannotBeWritten) {
  const TestFolder folder;
  try {
    EventFile(folder.path() + "/missing", 0, 1);
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kExhausted);
    EXPECT_NE(std::string(e.what()).find("/missing/events.out"), std::string::npos);
  }
}

}  // namespace
}  // namespace erank::train
