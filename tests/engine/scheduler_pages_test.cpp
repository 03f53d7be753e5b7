// The scheduler's own work does not grow with the cache.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "erank/base/random.h"
#include "erank/engine/scheduler.h"

namespace erank::engine {
namespace {

// Seconds to run 3000 sequences, one a step, through a cache that is full of old prefixes: passages
// of three pages after queries of one.
double seconds_with(int64_t num_pages) {
  Scheduler scheduler({.num_pages = num_pages, .max_batch_tokens = 64});
  base::Random random(1);
  const auto run = [&](int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      Ids ids(65, static_cast<int32_t>(random.below(300)));
      for (size_t k = 16; k < ids.size(); ++k) ids[k] = static_cast<int32_t>(random.below(1000));
      const int64_t sequence = scheduler.add(std::move(ids), 65, 64);
      while (scheduler.num_computed(sequence) < 65) scheduler.next();
      scheduler.finish(sequence);
    }
  };
  run(num_pages / 3 + 100);
  const auto begin = std::chrono::steady_clock::now();
  run(3000);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(Scheduler, DoesNotGetSlowerWithThePages) {
  const double few = seconds_with(1000);
  const double many = seconds_with(200000);
  RecordProperty("few_ms", std::to_string(few * 1e3));
  RecordProperty("many_ms", std::to_string(many * 1e3));
  EXPECT_LT(many, 10 * few + 0.05) << "a look at every page in every step costs far more";
}

}  // namespace
}  // namespace erank::engine
