// Several samples of one prompt, their log-probabilities, and cancelling.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "tests/engine/tiny_engine.h"

namespace erank::engine {
namespace {

std::map<int, Completion> run_samples(Engine& engine, const Request& request) {
  std::map<int, Completion> samples;
  engine.submit(request, [&](Completion c) {
    const int sample = c.sample;
    EXPECT_TRUE(samples.emplace(sample, std::move(c)).second) << "sample " << sample << " twice";
  });
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(std::ssize(samples), request.num_samples);
  return samples;
}

Request drawing(int num_samples) {
  return {.prompt = Ids(40, 300),
          .max_new_tokens = 6,
          .sampling = {.temperature = 1.3, .seed = 9},
          .answer_prefix = {5, 6},
          .choices = digit_choices(),
          .num_samples = num_samples};
}

TEST(TinySamples, ShareTheirPromptAndDrawEachForItself) {
  const auto network = tiny_network();
  Engine engine(*network, {});
  const auto samples = run_samples(engine, drawing(8));
  std::set<Ids> distinct;
  for (const auto& [i, c] : samples) {
    ASSERT_EQ(fault_of(c), "");
    distinct.insert(c.new_tokens);
    EXPECT_EQ(c.cached_tokens, i == 0 ? 0 : 39) << "all but the token whose logits are asked";
  }
  EXPECT_GE(distinct.size(), 6u);
  // The prompt once, its last token by each; then each one's tokens, answer prefix and the choice.
  EXPECT_EQ(engine.stats().computed_tokens, 39 + 8 * (1 + 6 + 2 + 1));
  EXPECT_EQ(engine.stats().num_done, 8);
  // Each is what a request of its own with that seed draws.
  for (const auto& [i, c] : samples) {
    Request alone = drawing(1);
    alone.sampling.seed = sample_seed(9, i);
    expect_same(run_requests(*network, {alone})[0], c, kSame);
  }
}

// The GPU's network, on the CPU.
TEST(TinySamples, RowsOfLogitsStayOnADeviceThatDraws) {
  const TinyModel model;
  WrappedNetwork counting(*model.reference);
  Request request{.prompt = {1, 2, 3}, .max_new_tokens = 10, .num_samples = 8, .log_probs = true};
  for (const Sampling& sampling :
       {Sampling{.temperature = 1.2, .seed = 4},
        Sampling{.temperature = 0.8, .top_p = 0.9, .top_k = 30, .seed = 5}}) {
    request.sampling = sampling;
    Engine engine(counting, {});
    std::set<Ids> distinct;
    for (const auto& [i, completion] : run_samples(engine, request)) {
      distinct.insert(completion.new_tokens);
      Sampling own = sampling;
      own.seed = sample_seed(sampling.seed, i);
      Ids ids = request.prompt;
      for (size_t n = 0; n < completion.new_tokens.size(); ++n) {
        const auto logits = logits_after(*model.reference, ids);
        const float max = *std::max_element(logits.begin(), logits.end());
        const Draw draw = sample(logits, max, own, n);
        ASSERT_EQ(completion.new_tokens[n], draw.token);
        EXPECT_NEAR(completion.log_probs[n].at_temperature, draw.log_p, 1e-4);
        ids.push_back(draw.token);
      }
    }
    EXPECT_GT(distinct.size(), 5u);
  }
  EXPECT_EQ(counting.num_whole_rows, 0);
}

TEST(TinySamples, LittleRoomChangesNone) {
  const auto network = tiny_network();
  Engine roomy(*network, {}), narrow(*network, {.kv_cache_bytes = 8 * network->page_bytes(),
                                                .max_batch_tokens = 11,
                                                .max_sequences = 3});
  const auto expected = run_samples(roomy, drawing(5));
  for (const auto& [i, c] : run_samples(narrow, drawing(5))) expect_same(c, expected.at(i), kSame);
}

TEST(TinySamples, ABadRequestFailsAllOfThem) {
  const auto network = tiny_network();
  Engine engine(*network, {});
  Request request = drawing(3);
  request.prompt[2] = -1;
  for (const auto& [i, c] : run_samples(engine, request)) EXPECT_TRUE(c.fault) << i;
  int refused = 0;
  engine.submit(drawing(0), [&](Completion c) { refused += c.fault != nullptr; });
  engine.run();
  EXPECT_EQ(refused, 1);
}

TEST(TinySamples, AWatcherKnowsWhoseTokensTheyAre) {
  const auto network = tiny_network();
  Engine engine(*network, {});
  Request request = drawing(4);
  request.watch = [](int sample, std::span<const int32_t> ids) {
    return Verdict{.stop = std::ssize(ids) == sample + 1};
  };
  for (const auto& [i, c] : run_samples(engine, request)) {
    EXPECT_EQ(std::ssize(c.new_tokens), i + 1);
    EXPECT_EQ(c.finish, Finish::kWatched);
  }
}

// log softmax of a row at `temperature`, in double.
double log_softmax(const std::vector<float>& logits, double temperature, int32_t id) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp((x - max) / temperature);
  return (logits[id] - max) / temperature - std::log(sum);
}

TEST(TinySamples, LogProbabilitiesEqualALogSoftmaxOfFullPasses) {
  const TinyModel model;
  for (const double temperature : {0.0, 0.7, 1.3}) {
    Request request = drawing(2);
    request.sampling.temperature = temperature;
    request.log_probs = true;
    Engine engine(*model.network, {});
    for (const auto& [i, c] : run_samples(engine, request)) {
      ASSERT_EQ(c.log_probs.size(), c.new_tokens.size());
      Ids ids = request.prompt;
      for (size_t n = 0; n < c.new_tokens.size(); ++n) {
        const auto logits = logits_after(*model.reference, ids);
        const int32_t id = c.new_tokens[n];
        EXPECT_NEAR(c.log_probs[n].at_one, log_softmax(logits, 1, id), 1e-4);
        EXPECT_NEAR(c.log_probs[n].at_temperature,
                    temperature > 0 ? log_softmax(logits, temperature, id) : 0, 1e-4);
        ids.push_back(id);
      }
    }
  }
  Engine engine(*model.network, {});
  EXPECT_TRUE(run_samples(engine, drawing(1)).at(0).log_probs.empty()) << "nobody asked";
}

TEST(TinySamples, LogProbabilitiesHoldTheStopIdAndWhatAWatcherKeeps) {
  const auto network = tiny_network();
  Request request = drawing(1);
  request.log_probs = true;
  Engine engine(*network, {});
  const auto all = run_samples(engine, request).at(0);
  request.stop_ids = {all.new_tokens[3]};
  const auto stopped = run_samples(engine, request).at(0);
  ASSERT_EQ(stopped.finish, Finish::kStopped);
  EXPECT_EQ(stopped.stop_id, all.new_tokens[3]);
  ASSERT_EQ(stopped.log_probs.size(), stopped.new_tokens.size() + 1);
  EXPECT_NEAR(stopped.log_probs.back().at_one, all.log_probs[stopped.new_tokens.size()].at_one,
              1e-4);
  request.stop_ids = {};
  request.watch = [](int, std::span<const int32_t> ids) { return Verdict{ids.size() == 4, 2}; };
  const auto watched = run_samples(engine, request).at(0);
  EXPECT_EQ(watched.new_tokens.size(), 2u);
  EXPECT_EQ(watched.log_probs.size(), 2u);
}

TEST(TinyCancel, EndsWhatRunsAndWhatWaits) {
  const auto network = tiny_network();
  const auto requests = make_requests(3, false);
  const auto good = run_requests(*network, {requests[0]})[0];
  Engine engine(*network, {.max_sequences = 2});
  std::vector<Completion> cancelled;
  Completion other;
  Request request = drawing(4);  // two run, two wait
  request.max_new_tokens = 50;
  const int64_t number =
      engine.submit(request, [&](Completion c) { cancelled.push_back(std::move(c)); });
  engine.submit(requests[0], [&](Completion c) { other = std::move(c); });
  for (int i = 0; i < 5; ++i) engine.step();
  EXPECT_EQ(engine.stats().num_running, 2);
  EXPECT_TRUE(cancelled.empty());
  engine.cancel(number);
  engine.cancel(number + 100);  // nobody
  EXPECT_TRUE(engine.step());
  engine.check_integrity();
  ASSERT_EQ(cancelled.size(), 4u);
  for (const auto& c : cancelled) {
    EXPECT_EQ(c.finish, Finish::kCancelled);
    EXPECT_EQ(fault_of(c), "");
    EXPECT_EQ(c.new_tokens.size(), c.sample < 2 ? 5u : 0u);
  }
  engine.run();
  expect_same(other, good, kSame);
  engine.cancel(number);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(engine.stats().num_cancelled, 4);
  EXPECT_EQ(engine.stats().num_done, 1);
  EXPECT_EQ(engine.stats().pages_used, 0);
}

TEST(TinyCancel, AWatcherMayCancelItsOwnRequestAndOthers) {
  const auto network = tiny_network();
  Engine engine(*network, {});
  int64_t first = -1, second = -1;
  int cancelled = 0;
  const auto count = [&](Completion c) { cancelled += c.finish == Finish::kCancelled; };
  Request request = drawing(2);
  request.max_new_tokens = 50;
  second = engine.submit(request, count);
  request.watch = [&](int, std::span<const int32_t> ids) {
    if (ids.size() == 3) engine.cancel(first), engine.cancel(second);
    return Verdict{};
  };
  first = engine.submit(request, count);
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(cancelled, 4);
  EXPECT_LE(engine.stats().steps, 4);
}

TEST(TinyQueues, AreServedSomeOfEachInTurn) {
  const auto network = tiny_network();
  Engine engine(*network, {.max_sequences = 1});
  std::string order;
  for (const char name : std::string(40, 'a') + "bb") {
    Request request{.prompt = {1, 2, 3}, .choices = digit_choices(), .queue = name};
    engine.submit(request, [&order, name](Completion) { order += name; });
  }
  while (engine.step()) engine.check_integrity();
  EXPECT_EQ(order, std::string(32, 'a') + "bb" + std::string(8, 'a'));
}

// Many queries one after another: memory stays that of a few, results are those of an engine that
// keeps all, and what is asked again soon is still there.
TEST(TinyCacheBound, ManyQueriesTouchFewPages) {
  const auto network = tiny_network();
  const int64_t page = network->page_bytes();
  Engine bounded(*network, {.unused_prefix_bytes = 64 * page}), whole(*network, {});
  base::Random random(4);
  const auto text = [&](int64_t length) {
    Ids ids(length);
    for (int32_t& id : ids) id = static_cast<int32_t>(random.below(500));
    return ids;
  };
  std::map<Engine*, std::vector<Completion>> completions;
  for (int query = 0; query < 60; ++query) {
    const Ids prefix = text(40);
    for (int i = 0; i < 6; ++i) {
      Request request{.prompt = prefix, .answer_prefix = {7}, .choices = digit_choices()};
      const Ids own = text(30);
      request.prompt.insert(request.prompt.end(), own.begin(), own.end());
      for (Engine* engine : {&bounded, &whole})
        engine->submit(request,
                       [&, engine](Completion c) { completions[engine].push_back(std::move(c)); });
    }
    bounded.run();
    whole.run();
    bounded.check_integrity();
  }
  expect_same(completions[&bounded], completions[&whole], kSame);
  EXPECT_GE(bounded.stats().cached_tokens, 60 * 5 * 40);
  // 64 unused ones and those of one query's six passages: 70 tokens and a few are five pages.
  EXPECT_LE(bounded.stats().pages_touched, 64 + 6 * 5);
  EXPECT_GT(bounded.stats().evictions, 500);
  EXPECT_GT(whole.stats().pages_touched, 800);
}

}  // namespace
}  // namespace erank::engine
