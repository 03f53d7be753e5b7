#include "erank/base/threads.h"

#include <sched.h>

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

namespace erank::base {

int num_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

void parallel_ranges(size_t n, int num_threads, const std::function<void(size_t, size_t)>& body) {
  const size_t parts = std::min<size_t>(n, static_cast<size_t>(std::max(1, num_threads)));
  if (parts == 0) return;
  std::vector<std::exception_ptr> faults(parts);
  const auto run = [&](size_t part) {
    try {
      body(n * part / parts, n * (part + 1) / parts);
    } catch (...) {
      faults[part] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t part = 1; part < parts; ++part) threads.emplace_back(run, part);
    run(0);
  }
  for (const auto& fault : faults)
    if (fault) std::rethrow_exception(fault);
}

}  // namespace erank::base
