#include "erank/train/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "erank/base/random.h"
#include "tests/train/thread_ranks.h"

namespace erank::train {
namespace {

using ::testing::ElementsAre;

TEST(ShareOut, TheMostCostlyFirstEachToTheRankWithLeast) {
  EXPECT_THAT(share_out({3, 5, 2, 4, 4}, 2), ElementsAre(0, 0, 0, 1, 1));
  EXPECT_THAT(share_out({1, 1, 1}, 5), ElementsAre(0, 1, 2));
  EXPECT_THAT(share_out({}, 3), ElementsAre());
}

// List scheduling: no rank has more than the mean and the largest part.
TEST(ShareOut, IsNearlyEven) {
  base::Random random(3);
  for (int trial = 0; trial < 200; ++trial) {
    const auto ranks = 1 + static_cast<int>(random.below(9));
    std::vector<int64_t> costs(random.below(40) + 1);
    for (auto& cost : costs) cost = 1 + static_cast<int64_t>(random.below(1000));
    const auto shares = share_out(costs, ranks);
    std::vector<int64_t> load(static_cast<size_t>(ranks), 0);
    for (size_t i = 0; i < costs.size(); ++i) load[static_cast<size_t>(shares[i])] += costs[i];
    const double mean = static_cast<double>(std::accumulate(costs.begin(), costs.end(), 0)) / ranks;
    const auto largest = static_cast<double>(*std::max_element(costs.begin(), costs.end()));
    EXPECT_LE(static_cast<double>(*std::max_element(load.begin(), load.end())), mean + largest);
  }
}

TEST(Communicator, SumsAndGathersPlainNumbers) {
  run_ranks(3, [](Communicator& ranks) {
    double a = ranks.rank(), b = 0.5;
    int64_t n = int64_t{1} << 40;
    all_sum(ranks, {&a, &b});
    all_sum(ranks, {&n});
    EXPECT_EQ(a, 3);
    EXPECT_EQ(b, 1.5);
    EXPECT_EQ(n, int64_t{3} << 40);
    std::vector<float> values = {1, static_cast<float>(ranks.rank())};
    all_sum(ranks, values);
    EXPECT_THAT(values, ElementsAre(3, 3));
    EXPECT_TRUE(any(ranks, ranks.rank() == 2));
    EXPECT_FALSE(any(ranks, false));
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    EXPECT_THAT(gather(ranks, ranks.rank() == 1 ? kInfinity : ranks.rank()),
                ElementsAre(0, kInfinity, 2));
    const auto own = own_share({4, 4, 4, 1}, ranks);
    if (ranks.rank() == 0)
      EXPECT_THAT(own, ElementsAre(0, 3));
    else
      EXPECT_THAT(own, ElementsAre(ranks.rank()));
    const Seat seat = find_seat(ranks);  // all on this machine, on the same processors
    EXPECT_EQ(seat.local_rank, ranks.rank());
    EXPECT_GE(seat.num_threads, 1);
  });
}

TEST(Communicator, KnowsWhetherALauncherStartedSeveral) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    for (const auto& [text, number] :
         std::vector<std::pair<const char*, int>>{{"4", 4}, {"1", 1}, {"", 1}, {"x", 1}}) {
      ::setenv(name, text, 1);
      EXPECT_EQ(num_launched(), number) << name << text;
    }
    ::unsetenv(name);
  }
  EXPECT_EQ(num_launched(), 1);
}

}  // namespace
}  // namespace erank::train
