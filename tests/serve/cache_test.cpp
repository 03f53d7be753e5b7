#include "erank/serve/cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/rank/tiny_checkpoint.h"
#include "tests/test_folder.h"

namespace erank::serve {
namespace {

using rank::PassageResult;
using rank::ScoreOptions;
using ::testing::HasSubstr;

PassageResult result_of(double score, const std::string& reasoning = "") {
  PassageResult r;
  r.docid = "0";
  r.score = score;
  r.integer = 3;
  r.probability = 0.1 + 0.2;  // no short decimal
  r.distribution.p[3] = r.probability;
  r.distribution.p_other = 1 - r.probability;
  r.reasoning = reasoning;
  r.flags = {"document_truncated"};
  r.window = {2, 3, 10, 20};
  r.prompt_tokens = 50;
  r.new_tokens = 4;
  return r;
}

TEST(ResultCache, DropsWhatWasUsedLeastRecently) {
  ResultCache unlimited({});
  unlimited.insert("a", result_of(1));
  const int64_t one = unlimited.bytes();
  EXPECT_GT(one, 0);
  ResultCache cache({.max_bytes = 2 * one});
  cache.insert("a", result_of(1));
  cache.insert("b", result_of(2));
  EXPECT_EQ(cache.find("a")->score, 1);
  cache.insert("c", result_of(3));
  EXPECT_EQ(cache.size(), 2);
  EXPECT_LE(cache.bytes(), 2 * one);
  EXPECT_TRUE(cache.contains("a"));
  EXPECT_FALSE(cache.contains("b"));
  EXPECT_EQ(cache.find("b"), std::nullopt);
  cache.insert("a", result_of(4));  // replaces
  EXPECT_EQ(cache.find("a")->score, 4);
  EXPECT_EQ(cache.size(), 2);
  cache.insert("large", result_of(5, std::string(static_cast<size_t>(3 * one), 'x')));
  EXPECT_FALSE(cache.contains("large"));
  EXPECT_EQ(cache.size(), 2);
}

TEST(ResultCache, KeepsNothingWithoutRoom) {
  ResultCache cache({.max_bytes = 0});
  cache.insert("a", result_of(1));
  EXPECT_EQ(cache.size(), 0);
  EXPECT_EQ(cache.bytes(), 0);
}

TEST(ResultCache, FindsInItsFileWhatAnotherProcessLeft) {
  const TestFolder folder;
  const std::string file = folder.path("cache.db");
  {
    ResultCache cache({.file = file});
    cache.insert("a", result_of(1.0 / 3, "because"));
  }
  ResultCache cache({.max_bytes = 0, .file = file});
  EXPECT_TRUE(cache.contains("a"));
  const auto found = cache.find("a");
  ASSERT_TRUE(found);
  const PassageResult expected = result_of(1.0 / 3, "because");
  EXPECT_EQ(found->score, expected.score);
  EXPECT_EQ(found->probability, expected.probability);
  EXPECT_EQ(found->distribution.p, expected.distribution.p);
  EXPECT_EQ(found->reasoning, expected.reasoning);
  EXPECT_EQ(found->flags, expected.flags);
  EXPECT_EQ(found->window->end, expected.window->end);
  EXPECT_EQ(found->prompt_tokens, expected.prompt_tokens);
  EXPECT_FALSE(cache.contains("b"));
  EXPECT_EQ(cache.take_fault(), std::nullopt);
}

TEST(ResultCache, WritesNoMoreResultsThanItMay) {
  const TestFolder folder;
  const std::string file = folder.path("cache.db");
  {
    ResultCache cache({.file = file, .max_file_results = 2});
    for (const char* key : {"a", "b", "c"}) cache.insert(key, result_of(1));
    EXPECT_TRUE(cache.contains("c"));  // in memory
  }
  ResultCache cache({.file = file});
  EXPECT_TRUE(cache.contains("b"));
  EXPECT_FALSE(cache.contains("c"));
}

TEST(ResultCache, TouchesNoFileOfAnotherKind) {
  const TestFolder folder;
  const std::string file = folder.path("notes.txt");
  base::write_file_atomic(file, "my notes, which are long enough to look like something\n");
  EXPECT_THROW(ResultCache({.file = file}), base::Error);
  EXPECT_THAT(base::read_file(file), HasSubstr("my notes"));
  const std::string journal = folder.path("job.journal");
  data::Journal::open(journal, {{"model", "m"}}, data::Journal::Start::kNew);
  EXPECT_THROW(ResultCache({.file = journal}), base::Error);
  EXPECT_THROW(ResultCache({.file = folder.path("missing/cache.db")}), base::Error);
}

TEST(ResultCache, GoesOnWithoutAFileThatCannotBeRead) {
  const TestFolder folder;
  const std::string file = folder.path("cache.db");
  {
    auto journal =
        data::Journal::open(file, {{"kind", "results of erank serve"}}, data::Journal::Start::kNew);
    journal.append("a", "{\"score\": \"no number\"}");
  }
  ResultCache cache({.file = file});
  EXPECT_EQ(cache.find("a"), std::nullopt);
  const auto fault = cache.take_fault();
  ASSERT_TRUE(fault);
  EXPECT_THAT(*fault, HasSubstr("cache.db"));
  EXPECT_EQ(cache.take_fault(), std::nullopt);
  cache.insert("b", result_of(1));
  EXPECT_TRUE(cache.contains("b"));
}

TEST(PairKey, TellsApartWhatChangesAScore) {
  const ScoreOptions direct{.instruction = "i",
                            .mode = rank::Mode::kDirect,
                            .score = rank::ScoreKind::kPaper,
                            .max_think_tokens = 64};
  ScoreOptions think = direct;
  think.mode = rank::Mode::kThink;
  const auto changed = [](ScoreOptions options, auto change) {
    change(options);
    return pair_key("m", options, "q", "d");
  };
  std::set<std::string> keys = {
      pair_key("m", direct, "q", "d"),
      pair_key("n", direct, "q", "d"),
      pair_key("m", direct, "r", "d"),
      pair_key("m", direct, "q", "e"),
      pair_key("m", direct, "qd", ""),
      pair_key("m", think, "q", "d"),
      changed(direct, [](auto& o) { o.instruction = "j"; }),
      changed(direct, [](auto& o) { o.score = rank::ScoreKind::kExpected; }),
      changed(direct, [](auto& o) { o.long_documents = rank::LongDocuments::kCut; }),
      changed(direct, [](auto& o) { o.max_windows = 2; }),
      changed(think, [](auto& o) { o.max_think_tokens = 65; }),
      changed(think, [](auto& o) { o.temperature = 1; }),
      changed(think, [](auto& o) { o.temperature = 1.00000001; }),
      changed(think, [](auto& o) { o.seed = 9; }),
      changed(think, [](auto& o) { o.samples = 2; })};
  EXPECT_EQ(keys.size(), 15u);
  // What does not change a direct answer is no other pair.
  EXPECT_EQ(changed(direct, [](auto& o) { o.max_think_tokens = 65; }),
            pair_key("m", direct, "q", "d"));
  for (const std::string& key : keys) EXPECT_EQ(key.size(), 64u);
}

// A pool whose results wait until the test takes them.
struct Pool {
  std::mutex mutex;
  std::condition_variable news;
  std::deque<std::pair<uint64_t, PassageResult>> posted;
  bool sends = true;  // what is asked, at once
  PairPool pool;

  explicit Pool(std::shared_ptr<rank::Reranker> reranker)
      : pool(std::move(reranker), "files", ResultCache({}),
             [this](uint64_t job, PassageResult result) {
               const std::lock_guard lock(mutex);
               posted.emplace_back(job, std::move(result));
               news.notify_all();
             }) {}

  std::vector<PairPool::Answer> ask(uint64_t caller, const std::vector<std::string>& texts,
                                    const ScoreOptions& options = {.mode = rank::Mode::kDirect}) {
    const QueryCall query{
        "why is the sky blue", std::make_shared<std::vector<std::string>>(texts), {}, {}};
    std::vector<size_t> all;
    for (size_t i = 0; i < texts.size(); ++i) all.push_back(i);
    auto known = pool.ask(caller, 0, query, all, options, pool.keys(query, all, options));
    if (sends) pool.send();
    return known;
  }
  size_t num_posted() {
    const std::lock_guard lock(mutex);
    return posted.size();
  }
  std::vector<PairPool::Answer> take() {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(news.wait_for(lock, std::chrono::seconds(60), [&] { return !posted.empty(); }));
    auto [job, result] = std::move(posted.front());
    posted.pop_front();
    lock.unlock();
    return pool.take(job, std::move(result));
  }
};

TEST(TinyPairPool, GivesOnePairToAllWhoWaitForIt) {
  Pool pool(rank::Reranker::load(rank::tiny_options(rank::random_checkpoint("pool"))));
  EXPECT_TRUE(pool.ask(1, {"a", "b", "a"}).empty());
  EXPECT_EQ(pool.pool.num_computing(), 2);
  EXPECT_TRUE(pool.ask(2, {"b", "c"}).empty());
  EXPECT_EQ(pool.pool.num_computing(), 3);
  EXPECT_EQ(pool.pool.num_hits(), 2);
  std::map<std::pair<uint64_t, size_t>, double> scores;
  for (int i = 0; i < 3; ++i)
    for (const auto& answer : pool.take())
      EXPECT_TRUE(scores.emplace(std::pair(answer.caller, answer.result.index), answer.result.score)
                      .second);
  ASSERT_EQ(scores.size(), 5u);
  EXPECT_EQ(scores.at({1, 0}), scores.at({1, 2}));
  EXPECT_EQ(scores.at({1, 1}), scores.at({2, 0}));
  EXPECT_EQ(pool.pool.num_computing(), 0);
  const auto known = pool.ask(3, {"c", "a"});
  ASSERT_EQ(known.size(), 2u);
  EXPECT_TRUE(known[0].cached);
  EXPECT_EQ(known[0].result.score, scores.at({2, 1}));
  EXPECT_EQ(known[1].result.index, 1u);
}

TEST(TinyPairPool, AnswersNobodyWhoHasLeft) {
  Pool pool(rank::Reranker::load(rank::tiny_options(rank::random_checkpoint("pool2"))));
  pool.ask(1, {"a", "b"});
  pool.ask(2, {"b"});
  pool.pool.leave(1);
  int answers = 0;
  for (int i = 0; i < 2; ++i)
    for (const auto& answer : pool.take()) {
      ++answers;
      EXPECT_EQ(answer.caller, 2u);
      EXPECT_FALSE(answer.result.error);
    }
  EXPECT_EQ(answers, 1);
  // Asked again while a job that nobody wants is on its way out.
  pool.ask(3, {"d"});
  pool.pool.leave(3);
  pool.ask(4, {"d"});
  int right = 0;
  for (int i = 0; i < 2; ++i)
    for (const auto& answer : pool.take()) right += answer.caller == 4 && !answer.result.error;
  EXPECT_EQ(right, 1);
  EXPECT_EQ(pool.pool.num_computing(), 0);
}

// Of pairs that were sent together, and of some that were not sent yet.
TEST(TinyPairPool, CancelsEachPairThatNobodyWaitsFor) {
  const std::shared_ptr<rank::Reranker> reranker = rank::Reranker::load(rank::tiny_options(
      rank::chain_checkpoint("pool_cancel", {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}})));
  Pool pool(reranker);
  const ScoreOptions endless{.mode = rank::Mode::kThink, .max_think_tokens = 500};
  pool.ask(1, {"a", "b", "c"}, endless);
  pool.ask(2, {"b"}, endless);
  pool.pool.leave(1);
  std::vector<std::pair<uint64_t, int64_t>> got;  // caller and new tokens
  const auto take = [&](int count) {
    for (int i = 0; i < count; ++i)
      for (const auto& answer : pool.take())
        got.emplace_back(answer.caller, answer.result.new_tokens);
  };
  take(3);
  using ::testing::ElementsAre;
  using ::testing::Pair;
  EXPECT_THAT(got, ElementsAre(Pair(2, 500)));
  EXPECT_EQ(reranker->stats().engine.num_cancelled, 2);
  pool.sends = false;
  pool.ask(3, {"d", "e", "f"}, endless);
  pool.ask(4, {"f", "d"}, endless);
  pool.pool.leave(3);
  EXPECT_EQ(pool.pool.num_computing(), 2);
  pool.pool.send();
  got.clear();
  take(2);
  EXPECT_THAT(got, ElementsAre(Pair(4, 500), Pair(4, 500)));
  EXPECT_EQ(pool.pool.num_computing(), 0);
  EXPECT_EQ(reranker->stats().engine.num_done, 3);
}

TEST(TinyPairPool, CountsEachSample) {
  Pool pool(rank::Reranker::load(rank::tiny_options(rank::random_checkpoint("pool4"))));
  const ScoreOptions three{
      .mode = rank::Mode::kThink, .max_think_tokens = 5, .temperature = 1, .samples = 3};
  pool.ask(1, {"a", "b"}, three);
  EXPECT_EQ(pool.pool.num_computing(), 6);
  pool.ask(2, {"b"}, three);
  EXPECT_EQ(pool.pool.num_computing(), 6);
  EXPECT_EQ(pool.pool.num_hits(), 1);
  for (int i = 0; i < 2; ++i)
    for (const auto& answer : pool.take()) EXPECT_FALSE(answer.result.error);
  EXPECT_EQ(pool.pool.num_computing(), 0);
  EXPECT_EQ(pool.pool.take_num_done(), 6);
  EXPECT_EQ(pool.pool.take_num_done(), 0);
}

TEST(TinyPairPool, TellsNoSeedsApartWhereNothingIsDrawn) {
  Pool pool(rank::Reranker::load(rank::tiny_options(rank::random_checkpoint("pool5"))));
  pool.ask(3, {"c"}, {.mode = rank::Mode::kDirect, .temperature = 1, .seed = 1, .samples = 3});
  EXPECT_EQ(pool.pool.num_computing(), 1);
  EXPECT_FALSE(pool.take().at(0).result.error);
  EXPECT_EQ(pool.ask(4, {"c"}).size(), 1u);
  pool.ask(5, {"c"}, {.mode = rank::Mode::kThink, .max_think_tokens = 5, .seed = 1});
  pool.take();
  EXPECT_EQ(
      pool.ask(6, {"c"}, {.mode = rank::Mode::kThink, .max_think_tokens = 5, .seed = 2}).size(),
      1u);
}

// Of texts of which each is more than is sent at a time.
TEST(TinyPairPool, SendsAPartOfEachCallersPairsInTurn) {
  const std::shared_ptr<rank::Reranker> reranker =
      rank::Reranker::load(rank::tiny_options(rank::random_checkpoint("pool3")));
  Pool pool(reranker);
  pool.sends = false;
  const auto text = [](char c) { return std::string(200000, c); };
  pool.ask(1, {text('a'), text('b'), text('c')});
  pool.ask(2, {text('c'), text('d')});
  pool.ask(3, {"short", "also short"});
  EXPECT_EQ(pool.pool.num_computing(), 6);
  EXPECT_EQ(reranker->stats().queued_pairs, 0);
  const auto sends = [&](int64_t in_all) {
    pool.pool.send();
    for (int i = 0; i < 2000; ++i) {
      const auto stats = reranker->stats();
      if (stats.queued_pairs + static_cast<int64_t>(pool.num_posted()) == in_all) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  };
  EXPECT_TRUE(sends(1));  // a
  EXPECT_TRUE(sends(2));  // d
  EXPECT_TRUE(sends(4));  // both short ones
  pool.pool.leave(1);     // b is not wanted any more, c still is
  EXPECT_EQ(pool.pool.num_computing(), 5);
  EXPECT_TRUE(sends(5));  // c
  EXPECT_FALSE(pool.pool.has_unsent());
  int answers[4] = {};
  for (int i = 0; i < 5; ++i)
    for (const auto& answer : pool.take()) ++answers[answer.caller];
  EXPECT_THAT(answers, ::testing::ElementsAre(0, 0, 2, 2));
  EXPECT_EQ(pool.pool.num_computing(), 0);
}

}  // namespace
}  // namespace erank::serve
