// Passes that fail, and those that find no memory and are made again with fewer tokens.
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "erank/engine/engine.h"
#include "tests/engine/tiny_engine.h"

namespace erank::engine {
namespace {

TEST(TinyEngine, AFailedPassFailsWhatRanAndNotWhatWaits) {
  const auto network = tiny_network();
  const auto requests = make_requests(2, false);
  const auto good = run_requests(*network, {requests[1]})[0];
  WrappedNetwork breaking(*network);
  Engine engine(breaking, {.max_sequences = 1});
  std::vector<Completion> completions;
  for (const Request& request : requests)
    engine.submit(request, [&](Completion c) { completions.push_back(std::move(c)); });
  breaking.breaks = true;
  EXPECT_TRUE(engine.step());
  engine.check_integrity();
  breaking.breaks = false;
  engine.run();
  ASSERT_EQ(completions.size(), 2u);
  EXPECT_EQ(fault_of(completions[0]), "the pass broke");
  expect_same(completions[1], good, kSame);
  EXPECT_EQ(engine.stats().num_failed, 1);
  EXPECT_EQ(engine.stats().num_done, 1);
}

TEST(TinyEngine, ComputesAgainInSmallerPassesWhatFoundNoMemory) {
  const auto network = tiny_network();
  for (const bool think : {false, true}) {
    const auto requests = make_requests(24, think);
    const auto good = run_requests(*network, requests);
    WrappedNetwork small(*network);
    small.most_tokens = 40;
    const auto found =
        run_requests(small, requests, {.engine = {.max_batch_tokens = 200, .max_sequences = 6}});
    EXPECT_EQ(small.num_exhausted, 3);  // of 200, 100 and 50 tokens
    expect_same(found, good, kSame);
  }
}

// What of a pass was read before is not read again.
TEST(TinyEngine, ComputesAgainWhatFoundNoMemoryForItsLogits) {
  auto config = model::config_of_shape("tiny");
  config.vocab_size = int64_t{1} << 19;  // 32 rows are read at a time
  config.hidden_size = 16;
  config.intermediate_size = 16;
  config.tie_word_embeddings = true;
  const TinyModel model(config, Precision::kFp32);
  std::vector<Request> requests;
  for (int32_t i = 0; i < 60; ++i)  // so that no pass is of the smallest
    requests.push_back({.prompt = {i, 2 * i, 1},
                        .max_new_tokens = i % 3,
                        .answer_prefix = {5},
                        .choices = {{7, 9}, {8}, {6, 4}, {6, 9}}});
  const auto good = run_requests(*model.network, requests);
  for (const int good_reads : {1, 2, 4, 7}) {
    SCOPED_TRACE(good_reads);
    WrappedNetwork small(*model.network);
    small.good_reads = good_reads;
    expect_same(run_requests(small, requests), good, kSame);
    EXPECT_EQ(small.num_exhausted, 1);
  }
}

TEST(TinyEngine, FailsWhatFindsNoMemoryInTheSmallestPasses) {
  const auto network = tiny_network();
  const Request large{.prompt = Ids(100, 1), .choices = digit_choices()};
  const Request little{.prompt = {1, 2, 3}, .choices = digit_choices()};
  const auto good = run_requests(*network, {little})[0];
  WrappedNetwork small(*network);
  small.most_tokens = 8;
  const auto found = run_requests(small, {large, little, little});
  EXPECT_EQ(fault_of(found[0]), "the pass found no memory");
  for (const size_t i : {1, 2}) expect_same(found[i], good, kSame);
}

TEST(TinyEngine, MakesLargerPassesAgainAfterMany) {
  const auto network = tiny_network();
  WrappedNetwork small(*network);
  small.most_tokens = 100;
  Engine engine(small, {.max_batch_tokens = 200});
  const auto ask = [&](int32_t first, int64_t prompt, int new_tokens) {
    Request request{.prompt = Ids(static_cast<size_t>(prompt), first),
                    .max_new_tokens = new_tokens};
    engine.submit(request, [](Completion) {});
    const int64_t before = engine.stats().steps;
    engine.run();
    return engine.stats().steps - before;
  };
  ask(1, 180, 1);  // its pass fails, and passes have 90 tokens
  small.most_tokens = SIZE_MAX;
  EXPECT_EQ(ask(2, 180, 1), 2);
  ask(3, 10, 300);
  EXPECT_EQ(ask(4, 180, 1), 1);
}

}  // namespace
}  // namespace erank::engine
