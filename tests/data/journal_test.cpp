#ifdef ERANK_WITH_SQLITE
#include "erank/data/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

using base::Error;
using base::ErrorKind;
using base::Json;
using Start = Journal::Start;
using ::testing::HasSubstr;

class JournalFile : public ::testing::Test {
 protected:
  std::string path() const { return folder_.path("out.journal"); }

  // The message of the Error that opening throws; its kind must be `kind`.
  std::string open_error(ErrorKind kind, const Json& header, Start start) const {
    try {
      Journal::open(path(), header, start);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no Error";
    return "";
  }

  const TestFolder folder_;
};

const Json kHeader = {{"model", "m"}, {"seed", 1}};

TEST_F(JournalFile, KeepsEntriesInOrderAndEachKeyOnce) {
  const std::string binary("v\0\xff", 3);
  {
    Journal journal = Journal::open(path(), kHeader, Start::kNew);
    EXPECT_TRUE(journal.append("b", "2"));
    EXPECT_TRUE(journal.append("a", binary));
    EXPECT_FALSE(journal.append("b", "other"));
    EXPECT_TRUE(journal.append("empty", ""));
    EXPECT_EQ(journal.find("b"), "2");
    EXPECT_EQ(journal.size(), 3);
  }
  const Journal journal = Journal::open(path(), kHeader, Start::kResume);
  EXPECT_EQ(journal.size(), 3);
  EXPECT_EQ(journal.find("a"), binary);
  EXPECT_EQ(journal.find("empty"), "");
  EXPECT_EQ(journal.find("c"), std::nullopt);
  std::vector<std::string> keys;
  journal.for_each([&](std::string_view key, std::string_view) { keys.emplace_back(key); });
  EXPECT_EQ(keys, (std::vector<std::string>{"b", "a", "empty"}));
}

TEST_F(JournalFile, IsNeverThrownAwayUnasked) {
  EXPECT_FALSE(Journal::exists(path()));
  Journal::open(path(), kHeader, Start::kResume).append("a", "1");
  EXPECT_TRUE(Journal::exists(path()));
  EXPECT_THAT(open_error(ErrorKind::kInvalidInput, kHeader, Start::kNew), HasSubstr("--resume"));
  EXPECT_EQ(Journal::open(path(), kHeader, Start::kResume).size(), 1);
  const Json other = {{"model", "n"}, {"seed", 2}};
  EXPECT_EQ(Journal::open(path(), other, Start::kAnew).size(), 0);
  Journal journal = Journal::open(path(), other, Start::kResume);
  EXPECT_TRUE(journal.append("b", "2"));
  journal.discard();
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(JournalFile, LeavesNothingWhenItIsDiscarded) {
  for (const Start start : {Start::kNew, Start::kAnew, Start::kResume}) {
    Journal journal = Journal::open(path(), kHeader, start);
    journal.append("a", "1");
    journal.discard();
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(JournalFile, OfAnotherJobNamesTheFirstKeyThatDiffers) {
  Journal::open(path(), kHeader, Start::kNew);
  EXPECT_THAT(open_error(ErrorKind::kInvalidInput, {{"model", "m"}, {"seed", 2}}, Start::kResume),
              HasSubstr("'seed' was 1, now it is 2"));
  EXPECT_THAT(open_error(ErrorKind::kInvalidInput, {{"model", "m"}}, Start::kResume),
              HasSubstr("'seed' was 1, now it is not given"));
  EXPECT_THAT(open_error(ErrorKind::kInvalidInput, {{"model", "m"}, {"new", "x"}, {"seed", 1}},
                         Start::kResume),
              HasSubstr("'new' was not given, now it is \"x\""));
  EXPECT_EQ(Journal::open(path(), {{"seed", 1}, {"model", "m"}}, Start::kResume).size(), 0);
}

TEST_F(JournalFile, OfAnotherKindIsRefusedAndLeftAlone) {
  const auto refused = [&](const std::string& name) {
    for (const Start start : {Start::kNew, Start::kResume, Start::kAnew})
      EXPECT_THAT(open_error(ErrorKind::kInvalidInput, kHeader, start),
                  HasSubstr(name + ": has the name of a job's journal, but is none"));
  };
  for (const std::string& text : {std::string(5000, 'x'), std::string("short"), std::string()}) {
    folder_.write("out.journal", text);
    refused("out.journal");
    EXPECT_EQ(base::read_file(path()), text);
  }
  // A database of another program, and one whose number is that of a later form.
  for (const int id : {0, 0x45524a32}) {
    std::filesystem::remove(path());
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &database), SQLITE_OK);
    const std::string sql = base::str("PRAGMA application_id = ", id, "; CREATE TABLE header(a);");
    ASSERT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(database);
    const std::string bytes = base::read_file(path());
    refused("out.journal");
    EXPECT_EQ(base::read_file(path()), bytes);
  }
  std::filesystem::remove(path());
  std::filesystem::create_directory(path());
  refused("out.journal");
  std::filesystem::remove(path());
  // A journal under another name is not ours to lock or remove under this one.
  Journal::open(folder_.path("other"), kHeader, Start::kNew);
  std::filesystem::create_symlink("other", path());
  refused("out.journal");
  std::filesystem::remove(path());
  for (const char* ending : {"-wal", "-shm", "-journal"}) {
    const std::string name = std::string("out.journal") + ending;
    folder_.write(name, "foreign");
    refused(name);
    EXPECT_EQ(base::read_file(folder_.path(name)), "foreign");
    EXPECT_FALSE(std::filesystem::exists(path()));
    std::filesystem::remove(folder_.path(name));
  }
}

TEST_F(JournalFile, InAMissingFolderIsAClearError) {
  std::filesystem::remove(folder_.path());
  EXPECT_THAT(open_error(ErrorKind::kNotFound, kHeader, Start::kNew),
              HasSubstr("there is no folder"));
}

TEST_F(JournalFile, TakesEntriesFromManyThreads) {
  Journal journal = Journal::open(path(), kHeader, Start::kNew);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&journal, t] {
      for (int i = 0; i < 1000; ++i) journal.append(base::str("k", (i + 250 * t) % 2000), "value");
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(journal.size(), 1750);
}

// Runs `work` in a child process that ends without destructors.
template <typename Work>
pid_t in_child(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (const std::exception&) {
      ::_exit(3);
    }
    ::_exit(0);
  }
  return child;
}

TEST_F(JournalFile, OpenInAnotherProcessIsRefused) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = in_child([&] {
    const Journal journal = Journal::open(path(), kHeader, Start::kResume);
    if (::write(ready[1], "x", 1) != 1) ::_exit(4);
    for (;;) ::pause();
  });
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(open_error(ErrorKind::kInvalidInput, kHeader, Start::kResume),
              HasSubstr("another process"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(Journal::open(path(), kHeader, Start::kResume).size(), 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(JournalFile, KilledAtAnyMomentLosesNothingThatWasCommitted) {
  base::Random random(5);
  int64_t known = 0;  // entries that a child said are committed
  for (int round = 0; round < 15; ++round) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = in_child([&] {
      Journal journal = Journal::open(path(), kHeader, Start::kResume);
      for (int64_t i = journal.size();; ++i) {
        journal.append(base::str("key ", i), base::str("value ", i, std::string(200, 'v')));
        if (i % 7 != 0) continue;
        journal.commit();
        if (::write(pipe[1], &i, sizeof i) != sizeof i) ::_exit(4);
      }
    });
    ::close(pipe[1]);
    // Every second one is killed after its first commit, however slow the disk is, the others
    // perhaps while they open the file.
    int64_t i = 0;
    if (round % 2 == 0 && ::read(pipe[0], &i, sizeof i) == sizeof i) known = i + 1;
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(30000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    while (::read(pipe[0], &i, sizeof i) == sizeof i) known = i + 1;
    ::close(pipe[0]);
    const Journal journal = Journal::open(path(), kHeader, Start::kResume);
    EXPECT_GE(journal.size(), known);
    int64_t number = 0;
    journal.for_each([&](std::string_view key, std::string_view value) {
      EXPECT_EQ(key, base::str("key ", number));
      EXPECT_EQ(value, base::str("value ", number, std::string(200, 'v')));
      ++number;
    });
    EXPECT_EQ(number, journal.size());
  }
  EXPECT_GT(known, 20);
}

TEST_F(JournalFile, CommitsByItselfWithinAboutASecond) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = in_child([&] {
    Journal journal = Journal::open(path(), kHeader, Start::kResume);
    journal.append("a", "1");
    if (::write(ready[1], "x", 1) != 1) ::_exit(4);
    for (;;) ::pause();
  });
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(1600));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(Journal::open(path(), kHeader, Start::kResume).find("a"), "1");
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace erank::data
#endif
