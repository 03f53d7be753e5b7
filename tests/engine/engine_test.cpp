// The engine's answers do not depend on how it computes them.
#include "erank/engine/engine.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "erank/engine/sampler.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "tests/engine/tiny_engine.h"

namespace erank::engine {
namespace {

constexpr double kFp32 = 1e-5, kBf16 = 0.02;

// Against passes of the reference over all ids.
void expect_full_passes(const TinyModel& model, const std::vector<Request>& requests,
                        const std::vector<Completion>& completions, double tolerance = kFp32) {
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(base::str("request ", i));
    ASSERT_EQ(fault_of(completions[i]), "");
    const auto expected = expected_choices(*model.reference, known_ids(requests[i], completions[i]),
                                           requests[i].choices);
    expect_near(completions[i].p_choices, expected.p, tolerance);
    if (tolerance < kBf16) {
      EXPECT_EQ(completions[i].last_is_argmax, expected.last_is_argmax);
    }
  }
}

// Every way to run the same requests that must not change what comes out.
std::vector<RunOptions> ways_to_run(const Network& network, int num_requests) {
  std::vector<int> backwards(num_requests), shuffled(num_requests);
  std::iota(backwards.rbegin(), backwards.rend(), 0);
  std::iota(shuffled.begin(), shuffled.end(), 0);
  base::Random random(5);
  for (size_t i = shuffled.size(); i-- > 1;) std::swap(shuffled[i], shuffled[random.below(i + 1)]);
  const int64_t few_pages = 9 * network.page_bytes();  // one request, or two that share
  return {
      {},
      {.engine = {.share_prefixes = false}},
      {.order = backwards},
      {.order = shuffled, .steps_between = 1},
      {.engine = {.max_sequences = 3}, .order = backwards, .steps_between = 2},
      {.engine = {.max_batch_tokens = 7}},
      {.engine = {.kv_cache_bytes = few_pages}, .order = shuffled},
      {.engine = {.kv_cache_bytes = few_pages, .max_batch_tokens = 50}, .steps_between = 1},
  };
}

TEST(TinyEngine, ProbabilitiesEqualAFullPass) {
  const TinyModel model;
  for (const bool think : {false, true}) {
    const auto requests = make_requests(16, think);
    expect_full_passes(model, requests, run_requests(*model.network, requests));
  }
}

TEST(TinyEngine, ProbabilitiesEqualAFullPassInBf16) {
  const TinyModel model(Precision::kBf16);
  for (const bool think : {false, true}) {
    const auto requests = make_requests(16, think);
    expect_full_passes(model, requests, run_requests(*model.network, requests), kBf16);
  }
}

TEST(TinyEngine, NoWayToRunChangesTheResult) {
  const auto network = tiny_network();
  for (const bool think : {false, true}) {
    const auto requests = make_requests(16, think);
    const auto alone = run_alone(*network, requests);
    std::set<Finish> seen;
    for (const auto& completion : alone) seen.insert(completion.finish);
    if (think) {
      EXPECT_GE(seen.size(), 2u) << "the requests should end in several ways";
    }
    for (const RunOptions& options : ways_to_run(*network, 16))
      expect_same(run_requests(*network, requests, options), alone, kSame);
  }
}

TEST(TinyEngine, NoWayToRunChangesTheResultInBf16) {
  const auto network = tiny_network(Precision::kBf16);
  const auto requests = make_requests(16, false);
  const auto alone = run_alone(*network, requests);
  for (const RunOptions& options : ways_to_run(*network, 16))
    expect_same(run_requests(*network, requests, options), alone, kExactBits ? 0 : kBf16);
}

TEST(TinyEngine, TheNumberOfThreadsChangesNoBit) {
  const TinyModel model;
  const auto two_threads = model::make_network(model::ParametersSource(model.parameters),
                                               {.precision = Precision::kFp32, .threads = 2});
  const auto requests = make_requests(4, true);
  expect_same(run_requests(*model.network, requests), run_requests(*two_threads, requests), kSame);
}

TEST(TinyEngine, ProbabilitiesDependOnThePrompt) {
  const auto network = tiny_network();
  const auto completions = run_requests(*network, make_requests(8, false));
  for (size_t i = 1; i < completions.size(); ++i) {
    double largest = 0;
    for (size_t c = 0; c < completions[i].p_choices.size(); ++c) {
      largest = std::max(largest,
                         std::abs(completions[i].p_choices[c] - completions[i - 1].p_choices[c]));
    }
    EXPECT_GT(largest, 1e-3) << "the tests of this file could not fail";
  }
}

TEST(TinyEngine, ComputesASharedPrefixOnce) {
  const auto network = tiny_network();
  Engine engine(*network, {});
  const Ids query(40, 300);
  int64_t cached = 0;
  for (int32_t i = 0; i < 10; ++i) {
    Request request{.prompt = query, .answer_prefix = {5}, .choices = digit_choices()};
    request.prompt.push_back(400 + i);
    engine.submit(request, [&](Completion c) { cached += c.cached_tokens; });
  }
  engine.run();
  EXPECT_EQ(engine.stats().steps, 1) << "one pass reads prompt, answer prefix and both positions";
  EXPECT_EQ(engine.stats().computed_tokens, 40 + 10 * 3);
  EXPECT_EQ(engine.stats().step_sequences, 10);
  EXPECT_EQ(engine.stats().steps_by_sequences[4], 1) << "9 to 16";
  EXPECT_EQ(engine.stats().steps_by_tokens[7], 1) << "65 to 128";
  EXPECT_EQ(cached, 9 * 40);
  EXPECT_EQ(engine.stats().cached_tokens, 9 * 40);
}

TEST(TinyEngine, GreedyEqualsANaiveLoopOfFullPasses) {
  const auto network = tiny_network();
  auto requests = make_requests(6, false);
  for (Request& request : requests) request.max_new_tokens = 15;
  const auto completions = run_requests(*network, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    Ids ids = requests[i].prompt, expected;
    for (int n = 0; n < 15; ++n) {
      const auto logits = logits_after(*network, ids);
      expected.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      ids.push_back(expected.back());
    }
    EXPECT_EQ(completions[i].new_tokens, expected);
    EXPECT_EQ(completions[i].finish, Finish::kBudget);
    EXPECT_TRUE(completions[i].forced);
  }
}

TEST(TinyEngine, DrawsDependOnTheSeedAlone) {
  const auto network = tiny_network();
  auto requests = make_requests(8, false);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = requests[0].prompt;
    requests[i].max_new_tokens = 12;
    requests[i].sampling = {.temperature = 1.2, .seed = i / 2};
  }
  const auto completions = run_requests(*network, requests);
  expect_same(completions, run_alone(*network, requests), kSame);
  std::set<Ids> distinct;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(completions[i].new_tokens, completions[i / 2 * 2].new_tokens);
    distinct.insert(completions[i].new_tokens);
  }
  EXPECT_EQ(distinct.size(), 4u);

  Ids ids = requests[0].prompt;
  for (uint64_t n = 0; n < 12; ++n) {
    const auto logits = logits_after(*network, ids);
    const float max = *std::max_element(logits.begin(), logits.end());
    ids.push_back(sample(logits, max, requests[0].sampling, n).token);
  }
  EXPECT_EQ(Ids(ids.end() - 12, ids.end()), completions[0].new_tokens);
}

TEST(TinyEngine, ReadsChoicesOfManyFirstIds) {
  const TinyModel model;
  Request request{.prompt = {300, 301, 302}, .answer_prefix = {7, 8}};
  request.choices = {{50}, {50, 60}, {51, 60}, {50, 61}, {52, 60}, {53}};
  // One choice of each kind is the most probable.
  Ids known = {300, 301, 302, 7, 8};
  const auto most_probable = [&](const Ids& ids) {
    const auto logits = logits_after(*model.network, ids);
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  };
  request.choices.push_back({most_probable(known)});
  known.push_back(52);
  request.choices.push_back({52, most_probable(known)});
  const auto completion = run_requests(*model.network, {request})[0];
  expect_full_passes(model, {request}, {completion});
  EXPECT_TRUE(completion.last_is_argmax[6]);
  EXPECT_TRUE(completion.last_is_argmax[7]);
  EXPECT_EQ(std::count(completion.last_is_argmax.begin(), completion.last_is_argmax.end(), true),
            2);
}

// The greedy continuation of a prompt, to place stop ids and verdicts in.
Ids greedy_tokens(Network& network, const Ids& prompt, int n) {
  return run_requests(network, {{.prompt = prompt, .max_new_tokens = n}})[0].new_tokens;
}

TEST(TinyEngine, AStopIdEndsAndIsNotKept) {
  const TinyModel model;
  const Ids prompt = make_requests(1, false)[0].prompt;
  const Ids tokens = greedy_tokens(*model.network, prompt, 8);
  const auto first = std::find(tokens.begin(), tokens.end(), tokens[5]);
  std::vector<Ids> watched;
  Request request{.prompt = prompt,
                  .max_new_tokens = 8,
                  .stop_ids = {tokens[5]},
                  .watch =
                      [&](int, std::span<const int32_t> ids) {
                        watched.emplace_back(ids.begin(), ids.end());
                        return Verdict{};
                      },
                  .answer_prefix = {9},
                  .choices = digit_choices()};
  const auto completion = run_requests(*model.network, {request})[0];
  EXPECT_EQ(completion.finish, Finish::kStopped);
  EXPECT_EQ(completion.new_tokens, Ids(tokens.begin(), first));
  EXPECT_TRUE(completion.forced);
  ASSERT_FALSE(watched.empty());
  EXPECT_EQ(watched.back(), completion.new_tokens) << "the watcher sees all tokens but the stop id";
  EXPECT_EQ(watched.size(), completion.new_tokens.size());
  expect_full_passes(model, {request}, {completion});
}

TEST(TinyEngine, AVerdictCutsForcesOrLeavesOpen) {
  const TinyModel model;
  const Ids prompt = make_requests(1, false)[0].prompt;
  const Ids tokens = greedy_tokens(*model.network, prompt, 8);
  for (const int keep : {-1, 0, 1, 4, 5}) {
    for (const bool force : {true, false}) {
      for (const Ids& prefix : {Ids{}, Ids{9, 10}}) {
        SCOPED_TRACE(base::str("keep ", keep, ", force ", force, ", prefix ", prefix.size()));
        Request request{.prompt = prompt,
                        .max_new_tokens = 8,
                        .watch =
                            [=](int, std::span<const int32_t> ids) {
                              return Verdict{ids.size() == 5, keep, force};
                            },
                        .answer_prefix = prefix,
                        .choices = digit_choices()};
        const auto completion = run_requests(*model.network, {request})[0];
        EXPECT_EQ(completion.finish, Finish::kWatched);
        EXPECT_EQ(completion.new_tokens,
                  Ids(tokens.begin(), tokens.begin() + (keep < 0 ? 5 : keep)));
        EXPECT_EQ(completion.forced, force && !prefix.empty());
        expect_full_passes(model, {request}, {completion});
      }
    }
  }
}

TEST(TinyEngine, CutsAtTheModelsContextAndSaysSo) {
  auto config = model::config_of_shape("tiny");
  config.max_position_embeddings = 50;
  const TinyModel model(config, Precision::kFp32);
  Request request{.prompt = Ids(40, 300),
                  .max_new_tokens = 100,
                  .answer_prefix = {5, 6, 7},
                  .choices = digit_choices()};
  auto completion = run_requests(*model.network, {request})[0];
  EXPECT_EQ(completion.finish, Finish::kContext);
  EXPECT_EQ(completion.new_tokens.size(), 50u - 40 - 3 - 1);
  EXPECT_TRUE(completion.forced);
  expect_full_passes(model, {request}, {completion});

  request.max_new_tokens = 6;
  EXPECT_EQ(run_requests(*model.network, {request})[0].finish, Finish::kBudget);

  request.prompt.resize(46, 301);  // room for the answer prefix and a choice alone
  completion = run_requests(*model.network, {request})[0];
  EXPECT_EQ(completion.finish, Finish::kContext);
  EXPECT_TRUE(completion.new_tokens.empty());
  expect_full_passes(model, {request}, {completion});

  request.prompt.resize(47, 301);
  EXPECT_NE(fault_of(run_requests(*model.network, {request})[0]).find("context of 50 tokens by 1"),
            std::string::npos);
}

TEST(TinyEngine, AnswersWithoutComputingWhatNobodyAsked) {
  const auto network = tiny_network();
  Engine engine(*network, {});
  bool done = false;
  engine.submit({.prompt = {1, 2}, .answer_prefix = {3}}, [&](Completion c) {
    done = true;
    EXPECT_TRUE(c.forced);
    EXPECT_EQ(c.prompt_tokens, 2);
  });
  EXPECT_FALSE(done) << "only step() hands on";
  EXPECT_TRUE(engine.step());
  EXPECT_TRUE(done);
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(engine.stats().computed_tokens, 0);
}

TEST(TinyEngine, KeepsWithinItsMemoryAndLetsTheRestWait) {
  const auto network = tiny_network();
  const int64_t page = network->page_bytes();
  Engine engine(*network, {.kv_cache_bytes = 10 * page + page / 2});
  EXPECT_EQ(engine.stats().pages, 10);
  int done = 0;
  for (const Request& request : make_requests(10, false)) {
    engine.submit(request, [&](Completion c) { done += c.fault == nullptr; });
  }
  EXPECT_TRUE(engine.step());
  EXPECT_GT(engine.stats().num_waiting, 0);
  engine.run();
  EXPECT_EQ(done, 10);

  Engine large(*network, {.kv_cache_bytes = int64_t{1} << 40, .max_sequences = 2});
  EXPECT_EQ(large.stats().pages, 2 * 2048 / 16) << "no more than can be used";
  try {
    Engine none(*network, {.kv_cache_bytes = page - 1});
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kExhausted);
    EXPECT_NE(std::string(e.what()).find("--kv-cache-bytes"), std::string::npos);
  }
}

TEST(TinyEngine, TakesTheNetworksUsualCacheWhereNothingElseIsAsked) {
  const auto network = tiny_network();
  WrappedNetwork wrapped(*network);
  wrapped.cache_bytes = 7 * network->page_bytes();
  EXPECT_EQ(Engine(wrapped, {}).stats().pages, 7);
  EXPECT_EQ(Engine(wrapped, {.kv_cache_bytes = 3 * network->page_bytes()}).stats().pages, 3);
}

TEST(TinyEngine, OneBadRequestNeverTakesDownTheOthers) {
  const auto network = tiny_network();
  const int64_t page = network->page_bytes();
  auto requests = make_requests(4, false);
  const auto good = run_requests(*network, requests);
  const auto add = [&](const auto& change) {
    Request request = requests[0];
    change(request);
    requests.insert(requests.begin() + 1, request);
  };
  add([](Request& r) { r.prompt.clear(); });
  add([](Request& r) { r.prompt[3] = 512; });
  add([](Request& r) { r.answer_prefix[0] = -1; });
  add([](Request& r) { r.choices[0] = {1, 2, 3}; });
  add([](Request& r) { r.choices[0] = {}; });
  add([](Request& r) { r.sampling.top_p = 0; });
  add([](Request& r) { r.max_new_tokens = -1; });
  add([](Request& r) { r.prompt.resize(3000, 7); });
  add([](Request& r) { r.max_new_tokens = 500; });
  const auto completions =
      run_requests(*network, requests, {.engine = {.kv_cache_bytes = 10 * page}});
  expect_same(completions[0], good[0], kSame);
  for (int i = 1; i < 4; ++i) expect_same(completions[i + 9], good[i], kSame);
  for (int i = 1; i <= 9; ++i) {
    try {
      ASSERT_TRUE(completions[i].fault) << i;
      EXPECT_TRUE(completions[i].p_choices.empty());
      std::rethrow_exception(completions[i].fault);
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), i == 1 ? base::ErrorKind::kExhausted : base::ErrorKind::kInvalidInput);
    }
  }
  const std::string exhausted = fault_of(completions[1]);
  const int64_t tokens = std::ssize(requests[0].prompt) + 500 + 4 + 1;
  EXPECT_NE(exhausted.find(std::to_string((tokens + 15) / 16 * page)), std::string::npos)
      << exhausted;
  EXPECT_NE(exhausted.find(std::to_string(10 * page)), std::string::npos) << exhausted;
  EXPECT_NE(exhausted.find("--kv-cache-bytes"), std::string::npos) << exhausted;
}

TEST(TinyEngine, AThrowingWatcherFailsItsRequestAlone) {
  const auto network = tiny_network();
  auto requests = make_requests(6, true);
  requests[2].stop_ids = {};
  requests[2].watch = {};
  const auto good = run_requests(*network, requests);
  requests[2].watch = [](int, std::span<const int32_t>) -> Verdict {
    throw std::runtime_error("watcher broke");
  };
  const auto completions = run_requests(*network, requests);
  EXPECT_EQ(fault_of(completions[2]), "watcher broke");
  for (const int i : {0, 1, 3, 4, 5}) expect_same(completions[i], good[i], kSame);
}

TEST(TinyEngine, DamagedLogitsFailOnlyWhoMeetsThem) {
  TinyModel model;
  for (auto& [name, tensor] : model.parameters.named())
    if (name == "model.embed_tokens.weight") tensor.select(0, 250).fill_(NAN);
  model.network->load(model::ParametersSource(model.parameters));
  Network* const network = model.network.get();
  auto requests = make_requests(6, true);
  const auto good = run_requests(*network, requests);
  requests[1].prompt = Ids(60, 250);
  // With little room the others take over the pages that the damaged one has left.
  for (const RunOptions& options : ways_to_run(*network, 6)) {
    const auto completions = run_requests(*network, requests, options);
    EXPECT_NE(fault_of(completions[1]).find("not finite"), std::string::npos);
    for (const int i : {0, 2, 3, 4, 5}) expect_same(completions[i], good[i], kSame);
  }
}

TEST(TinyEngine, CallbacksMaySubmitAndThrow) {
  const auto network = tiny_network();
  const auto requests = make_requests(3, false);
  Engine engine(*network, {});
  int done = 0;
  for (const Request& request : requests) {
    engine.submit(request, [&](Completion) {
      ++done;
      engine.submit(requests[0], [&](Completion) { ++done; });
      engine.submit({}, [&](Completion c) { done += c.fault != nullptr; });
      throw std::runtime_error("no");
    });
  }
  int thrown = 0;
  for (;;) {
    try {
      if (!engine.step()) break;
    } catch (const std::runtime_error&) {
      ++thrown;
    }
    engine.check_integrity();
  }
  EXPECT_EQ(thrown, 3);
  EXPECT_EQ(done, 9);
}

TEST(TinyEngine, ForgetsWhatOtherWeightsComputed) {
  TinyModel model(Precision::kFp32, 1);
  const TinyModel other(Precision::kFp32, 2);
  const model::ParametersSource source(model.parameters);
  const auto requests = make_requests(3, false);
  Engine engine(*model.network, {});
  std::vector<Completion> completions;
  const auto submit_all = [&] {
    completions.clear();
    for (const Request& request : requests) {
      engine.submit(request, [&](Completion c) { completions.push_back(std::move(c)); });
    }
  };
  submit_all();
  EXPECT_THROW(engine.weights_changed(source), base::InternalError) << "requests are in flight";
  engine.run();
  submit_all();
  engine.run();
  EXPECT_GT(completions[0].cached_tokens, 0);
  model.parameters.init_random(2, kTinyScale);
  engine.weights_changed(source);
  submit_all();
  engine.run();
  EXPECT_EQ(completions[0].cached_tokens, 0);
  expect_same(completions, run_requests(*other.network, requests), kSame);
}

TEST(TinyEngine, AsksForWholeRowsOfLogitsWhereItDrawsAlone) {
  const auto network = tiny_network();
  WrappedNetwork counting(*network);
  Request request{.prompt = {1, 2, 3}, .max_new_tokens = 4, .choices = digit_choices()};
  run_requests(counting, {request});
  EXPECT_EQ(counting.num_rows, 4 + 2);
  EXPECT_EQ(counting.num_whole_rows, 0);
  EXPECT_EQ(counting.num_sums, 2);
  request.sampling.temperature = 1;
  run_requests(counting, {request});
  EXPECT_EQ(counting.num_whole_rows, 4);
}

TEST(TinyEngine, SlicesTheLogitsOfALargeVocabulary) {
  auto config = model::config_of_shape("tiny");
  config.vocab_size = int64_t{1} << 19;
  config.hidden_size = 16;
  config.intermediate_size = 16;
  config.tie_word_embeddings = true;
  const TinyModel model(config, Precision::kFp32);
  std::vector<Request> requests;
  for (int32_t i = 0; i < 20; ++i) {
    requests.push_back({.prompt = {i, 2 * i}, .answer_prefix = {5}, .choices = {{7, 9}}});
  }
  expect_full_passes(model, requests, run_requests(*model.network, requests));
}

TEST(TinyEngine, RandomSchedulesEndWithTheSameResults) {
  const auto network = tiny_network();
  auto requests = make_requests(24, true, 11);
  const auto direct = make_requests(24, false, 11);
  for (size_t i = 0; i < requests.size(); i += 4) requests[i] = direct[i];
  const auto good = run_requests(*network, requests);
  int num_exhausted = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    base::Random random(seed);
    WrappedNetwork small(*network);
    Engine engine(small, {.kv_cache_bytes =
                              static_cast<int64_t>(8 + random.below(20)) * network->page_bytes(),
                          .max_batch_tokens = static_cast<int64_t>(1 + random.below(200)),
                          .max_sequences = static_cast<int64_t>(1 + random.below(10)),
                          .share_prefixes = random.below(4) > 0});
    int done = 0;
    for (int submitted = 0; submitted < 40 || done < submitted;) {
      if (submitted < 40 && random.below(3) == 0) {
        const size_t i = random.below(requests.size());
        const bool breaks = random.below(6) == 0;
        Request request = requests[i];
        if (breaks) request.prompt[0] = -5;
        engine.submit(request, [&, i, breaks](Completion completion) {
          ++done;
          if (breaks) {
            EXPECT_TRUE(completion.fault);
          } else {
            expect_same(completion, good[i], kSame);
          }
        });
        ++submitted;
      } else {
        small.most_tokens = random.below(8) == 0 ? 16 + random.below(100) : SIZE_MAX;
        engine.step();
        engine.check_integrity();
      }
    }
    small.most_tokens = SIZE_MAX;
    EXPECT_FALSE(engine.step());
    num_exhausted += small.num_exhausted;
    if (HasFailure()) return;
  }
  EXPECT_GT(num_exhausted, 12);
}

}  // namespace
}  // namespace erank::engine
