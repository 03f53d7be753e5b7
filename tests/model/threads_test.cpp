#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>

namespace erank::model {
namespace {

TEST(TinyThreads, OneOpenMpRuntimeAndAParallelLoopThatIsParallel) {
  std::ifstream maps("/proc/self/maps");
  std::set<std::string> runtimes;
  for (std::string line; std::getline(maps, line);)
    for (const char* name : {"libgomp", "libiomp", "libomp.so"})
      if (line.find(name) != std::string::npos) runtimes.insert(line.substr(line.find('/')));
  EXPECT_EQ(runtimes.size(), 1u);
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::atomic<int> arrived{0};
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    ++arrived;
    for (int i = 0; i < 1000 && arrived < 2; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
}  // namespace erank::model
