// Data parallelism for the rooms without libtorch (those with it use at::parallel_for).
#pragma once

#include <cstddef>
#include <functional>

namespace erank::base {

// The number of processors this process may run on, at least 1.
int num_processors();

// Calls body(begin, end) on disjoint ranges that cover [0, n), on up to `num_threads` threads, and
// waits. The first exception that a body throws is rethrown here after all have ended.
void parallel_ranges(size_t n, int num_threads, const std::function<void(size_t, size_t)>& body);

}  // namespace erank::base
