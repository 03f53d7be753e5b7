#include "erank/base/memory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "tests/test_folder.h"

namespace erank::base {
namespace {

// A system of a few files: 8 GB of memory of which 6 GB are available.
class MemoryTest : public ::testing::Test {
 protected:
  MemoryTest() {
    put("/proc/meminfo",
        "MemTotal:       8000000 kB\nMemFree:  1 kB\nMemAvailable:   6000000 kB\n"
        "SwapTotal:  2000000 kB\nSwapFree:   0 kB\n");
  }
  void put(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = folder_.path("root") + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  AvailableMemory found() const { return available_memory(folder_.path("root")).value(); }

  TestFolder folder_;
};

TEST_F(MemoryTest, IsWhatTheSystemHasAvailable) {
  EXPECT_EQ(found().bytes, int64_t{6000000} << 10);
  EXPECT_EQ(found().what, "free memory");
}

TEST_F(MemoryTest, FreeSwapCounts) {
  put("/proc/meminfo", "MemAvailable:   6000000 kB\nSwapFree:   1500000 kB\n");
  EXPECT_EQ(found().bytes, int64_t{7500000} << 10);
  EXPECT_EQ(found().what, "free memory and swap");
}

TEST_F(MemoryTest, TheLeastOfAllCgroupsAboveCounts) {
  put("/proc/self/cgroup", "0::/user/job\n");
  put("/sys/fs/cgroup/user/job/memory.max", "max\n");
  put("/sys/fs/cgroup/user/job/memory.current", "900\n");
  EXPECT_EQ(found().what, "free memory");
  put("/sys/fs/cgroup/user/memory.max", "5000\n");
  put("/sys/fs/cgroup/user/memory.current", "1200\n");
  EXPECT_EQ(found().bytes, 3800);
  EXPECT_EQ(found().what, "the memory limit of the cgroup");
  // Pages of files are given up when memory is short.
  put("/sys/fs/cgroup/user/memory.stat", "anon 100\nfile 999\ninactive_file 200\nactive_file 30\n");
  EXPECT_EQ(found().bytes, 4030);
  put("/sys/fs/cgroup/user/job/memory.max", "1000\n");
  EXPECT_EQ(found().bytes, 100);
  put("/sys/fs/cgroup/user/job/memory.current", "1001\n");
  EXPECT_EQ(found().bytes, 0);
}

TEST_F(MemoryTest, SwapCountsAsFarAsTheCgroupLetsIt) {
  put("/proc/meminfo", "MemAvailable:   6000000 kB\nSwapFree:   1000 kB\n");
  put("/proc/self/cgroup", "0::/\n");
  put("/sys/fs/cgroup/memory.max", "5000\n");
  put("/sys/fs/cgroup/memory.current", "1000\n");
  EXPECT_EQ(found().bytes, 4000 + (1000 << 10));
  put("/sys/fs/cgroup/memory.swap.max", "300\n");
  put("/sys/fs/cgroup/memory.swap.current", "100\n");
  EXPECT_EQ(found().bytes, 4200);
}

TEST_F(MemoryTest, VersionOneIsReadToo) {
  put("/proc/self/cgroup", "9:name=systemd:/\n4:cpuset,memory:/host/path\n0::/\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
  EXPECT_EQ(found().what, "free memory") << "that number is no limit";
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n");
  put("/sys/fs/cgroup/memory/memory.stat",
      "inactive_file 1\ntotal_inactive_file 40\ntotal_active_file 2\n");
  EXPECT_EQ(found().bytes, 2042);
}

TEST_F(MemoryTest, NothingIsSaidOfOtherSystems) {
  EXPECT_FALSE(available_memory(folder_.path("nowhere")).has_value());
}

TEST(Memory, PeakGrowsWithWhatIsTouched) {
  // In a process of its own, whose peak is not that of what ran before or of who started this one.
  const pid_t child = ::fork();
  if (child == 0) {
    const int64_t before = peak_memory();
    const std::vector<char> block(64 << 20, 1);
    ::_exit(peak_memory() > before + block[0] * (40 << 20) ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Memory, TextHasThreeDigits) {
  const std::pair<int64_t, const char*> cases[] = {
      {0, "0 bytes"},          {999, "999 bytes"},        {1000, "1.00 kB"},
      {12345, "12.3 kB"},      {999499, "999 kB"},        {999500, "1.00 MB"},
      {99949999, "99.9 MB"},   {99950000, "100 MB"},      {8044900000, "8.04 GB"},
      {9995000000, "10.0 GB"}, {4000000000000, "4.00 TB"}};
  for (const auto& [bytes, text] : cases) EXPECT_EQ(memory_text(bytes), text);
}

}  // namespace
}  // namespace erank::base
