#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/test_folder.h"

namespace erank::base {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using Existing = OutputFile::Existing;

class OutputFiles : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_.path(name); }
  std::string link(const std::string& target, const std::string& name) const {
    fs::create_symlink(target, path(name));
    return path(name);
  }
  std::vector<std::string> names(const std::string& folder = "") const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(path(folder)))
      out.push_back(entry.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }
  std::string refusal(const std::string& name, Existing existing = Existing::kReplace) const {
    try {
      OutputFile file(name, existing);
    } catch (const Error& e) {
      return e.what();
    }
    return "(no error)";
  }

  const TestFolder folder_;
};

unsigned mode_of(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 07777;
}

// All that comes until the writers have closed.
std::string read_all(int fd) {
  std::string out;
  char piece[4096];
  for (ssize_t n; (n = ::read(fd, piece, sizeof piece)) > 0;)
    out.append(piece, static_cast<size_t>(n));
  ::close(fd);
  return out;
}

TEST_F(OutputFiles, TheOldFileStaysUntilCommitAndNothingElseIsSeen) {
  write_file_atomic(path("f"), "old");
  {
    OutputFile file(path("f"));
    file.write("half");
    EXPECT_THAT(names(), ::testing::Contains("f"));
  }
  EXPECT_EQ(read_file(path("f")), "old");
  write_file_atomic(path("f"), "new");
  EXPECT_EQ(read_file(path("f")), "new");
  EXPECT_THAT(names(), ElementsAre("f"));
  EXPECT_THROW(read_file(path("f"), 2), Error);
  EXPECT_THROW(read_file(path("absent")), Error);
  EXPECT_THAT(refusal(path("no/f")), HasSubstr("there is no folder " + path("no/")));
  EXPECT_THAT(refusal(path("f/g")), HasSubstr("cannot write here"));
  EXPECT_THAT(refusal(path("")), HasSubstr("is a folder"));
  EXPECT_THAT(refusal(""), HasSubstr("expected a file's name"));
}

TEST_F(OutputFiles, LargePiecesAndSmallOnesComeInOrder) {
  std::string expected;
  OutputFile file(path("f"));
  for (int i = 0; i < 40; ++i) {
    const std::string piece(i % 7 == 3 ? 3 << 20 : 1000 * i, static_cast<char>('a' + i % 26));
    file.write(piece);
    expected += piece;
  }
  file.commit();
  EXPECT_EQ(read_file(path("f")), expected);
}

TEST_F(OutputFiles, TwoWritersOfOneNameAreToldApart) {
  ASSERT_EQ(::symlink("f", path("link").c_str()), 0);
  {
    OutputFile first(path("f"));
    first.write("first");
    for (const char* name : {"f", "link", "./f"})
      EXPECT_THAT(refusal(path(name)), HasSubstr(str("process ", ::getpid()))) << name;
    OutputFile other(path("g"));
    other.commit();
    first.commit();
    OutputFile(path("f")).commit();  // a name is free as soon as it is complete
  }
  EXPECT_THAT(names(), UnorderedElementsAre("f", "g", "link"));
}

TEST_F(OutputFiles, AnotherProcessHoldsTheLockUntilItsEnd) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    WriteLock lock(path("f"));
    ::write(pipe[1], "x", 1);
    for (;;) ::pause();
  }
  char ready = 0;
  ASSERT_EQ(::read(pipe[0], &ready, 1), 1);
  EXPECT_THAT(refusal(path("f")), HasSubstr(str("process ", child, " on ")));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  write_file_atomic(path("f"), "mine");  // what was killed holds nothing
  EXPECT_EQ(read_file(path("f")), "mine");
  EXPECT_THAT(names(), ElementsAre("f"));
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST_F(OutputFiles, AKilledWriterLeavesTheOldFileAlone) {
  write_file_atomic(path("f"), "old");
  const pid_t child = ::fork();
  if (child == 0) {
    OutputFile file(path("f"));
    file.write(std::string(5 << 20, 'x'));
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(read_file(path("f")), "old");
  for (const auto& name : names())
    EXPECT_TRUE(name == "f" || name.starts_with(".f.erank-tmp-")) << name;
}

TEST_F(OutputFiles, ANewFileHasTheUsualModeAndAReplacedOneKeepsItsOwn) {
  const mode_t before = ::umask(027);
  write_file_atomic(path("new"), "x");
  EXPECT_EQ(mode_of(path("new")), 0640u);
  fs::permissions(path("new"), fs::perms(0604));
  write_file_atomic(path("new"), "y");
  EXPECT_EQ(mode_of(path("new")), 0604u);
  ::umask(before);
}

TEST_F(OutputFiles, AFileThatMustBeNewIsNeverReplaced) {
  write_file_atomic(path("f"), "old");
  EXPECT_THAT(refusal(path("f"), Existing::kKeep), HasSubstr("exists"));
  {
    OutputFile file(path("g"), Existing::kKeep);
    file.write("mine");
    std::ofstream(path("g")) << "came meanwhile";  // by a program that knows no lock
    EXPECT_THROW(file.commit(), Error);
  }
  EXPECT_EQ(read_file(path("g")), "came meanwhile");
  EXPECT_THAT(names(), ElementsAre("f", "g"));
}

TEST_F(OutputFiles, ForeignFilesWithNamesLikeOursStay) {
  for (const char* name : {"f.part-00", "f.part-12", ".f.erank-tmp-1-2", "f~"})
    folder_.write(name, "foreign");
  write_file_atomic(path("f"), "x");
  EXPECT_THAT(names(), ElementsAre(".f.erank-tmp-1-2", "f", "f.part-00", "f.part-12", "f~"));
}

TEST_F(OutputFiles, LinksAreFollowed) {
  fs::create_directory(path("d"));
  folder_.write("d/f", "old");
  link("d/f", "direct");
  link("direct", "twice");
  link(path("d/new"), "dangling");
  write_file_atomic(path("twice"), "1");
  EXPECT_EQ(read_file(path("d/f")), "1");
  write_file_atomic(path("dangling"), "2");
  EXPECT_EQ(read_file(path("d/new")), "2");
  for (const char* name : {"direct", "twice", "dangling"})
    EXPECT_TRUE(fs::is_symlink(path(name))) << name;
  EXPECT_THAT(names("d"), ElementsAre("f", "new"));
  link("d", "folder");
  write_file_atomic(path("folder/f"), "3");
  EXPECT_EQ(read_file(path("d/f")), "3");

  EXPECT_THAT(refusal(path("folder")), HasSubstr("is a folder"));
  EXPECT_THAT(refusal(link("no/such", "nowhere")), HasSubstr("there is no folder"));
  link("b", "a");
  EXPECT_THAT(refusal(link("a", "b")), HasSubstr("in a circle"));
  EXPECT_TRUE(fs::is_symlink(path("a")));
  EXPECT_EQ(output_target(path("twice")).kind, OutputTarget::kFile);
  EXPECT_EQ(output_target(path("twice")).path, path("d/f"));
}

TEST_F(OutputFiles, AFifoIsWrittenInto) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  link("fifo", "link");
  for (const char* name : {"fifo", "link"}) {
    std::string got;
    std::thread reader([&] { got = read_all(::open(path("fifo").c_str(), O_RDONLY)); });
    {
      OutputFile file(path(name), Existing::kKeep);
      EXPECT_TRUE(file.is_stream());
      file.write("some");
      file.flush();
      file.write(std::string(200000, 'x'));
      file.commit();
    }
    reader.join();
    EXPECT_EQ(got, "some" + std::string(200000, 'x'));
  }
  EXPECT_TRUE(fs::is_fifo(path("fifo")));
  EXPECT_THAT(names(), ElementsAre("fifo", "link"));
  // Without a reader it waits until it is told to stop.
  int asked = 0;
  EXPECT_THROW(OutputFile(path("fifo"), Existing::kReplace, [&] { return ++asked == 3; }), Error);
  EXPECT_EQ(asked, 3);
}

TEST_F(OutputFiles, DevicesStayDevicesAndAFullOneIsAnError) {
  if (!fs::is_character_file("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  write_file_atomic("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  OutputFile full("/dev/full");
  full.write("x");
  EXPECT_THROW(full.commit(), Error);
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  OutputFile twice("/dev/full");
  EXPECT_THROW(twice.write(std::string(3 << 20, 'x')), Error);
}

TEST_F(OutputFiles, OwnDescriptorsAreWrittenWhereTheyAre) {
  folder_.write("f", "first\n");
  const int fd = ::open(path("f").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  const std::string number = std::to_string(fd);
  for (const std::string name : {"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"})
    write_file_atomic(name + number, name + "\n");
  write_file_atomic(link("/dev/fd/" + number, "link"), "link\n");
  EXPECT_EQ(read_file(path("f")), "first\n/dev/fd/\n/proc/self/fd/\n/proc/thread-self/fd/\nlink\n");
  ::close(fd);
  EXPECT_THAT(refusal("/dev/fd/" + number), HasSubstr("Bad file descriptor"));

  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  write_file_atomic("/dev/fd/" + std::to_string(ends[1]), "piped");
  ::close(ends[1]);
  EXPECT_EQ(read_all(ends[0]), "piped");
  EXPECT_EQ(output_target("-").descriptor, 1);
  EXPECT_EQ(output_target("/dev/stdout").descriptor, 1);
}

TEST_F(OutputFiles, TheSameFileIsKnownUnderEveryName) {
  folder_.write("f", "x");
  folder_.write("g", "x");
  fs::create_hard_link(path("f"), path("hard"));
  link("f", "soft");
  for (const char* name : {"f", "hard", "soft"})
    EXPECT_TRUE(is_same_file(path("f"), path(name))) << name;
  EXPECT_FALSE(is_same_file(path("f"), path("g")));
  EXPECT_FALSE(is_same_file(path("none"), path("none")));
  EXPECT_FALSE(is_same_file("/dev/null", "/dev/null"));
}

TEST_F(OutputFiles, OnlyFilesOfTheGivenNamesAreRemoved) {
  const char* names_of[] = {"a", "b"};
  for (const char* name : {"own/a", "own/b", "own/.b.erank-tmp-3-f", "kept/a", "kept/notes",
                           "kept/.c.erank-tmp-3-f", "target/a"})
    folder_.write(name, "x");
  fs::create_directory(path("kept/b"));
  link("target", "linked");
  for (const char* folder : {"own", "kept", "linked", "none"})
    remove_files_of(path(folder), names_of);
  EXPECT_FALSE(fs::exists(path("own")));
  EXPECT_THAT(names("kept"), ElementsAre(".c.erank-tmp-3-f", "b", "notes"));
  EXPECT_THAT(names("target"), ElementsAre("a"));
}

}  // namespace
}  // namespace erank::base
