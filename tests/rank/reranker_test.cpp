#include "erank/rank/reranker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <thread>

#include "erank/base/error.h"
#include "tests/rank/tiny_checkpoint.h"

namespace erank::rank {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const std::vector<Passage> kPassages = {
    {"a", "Light is scattered by the molecules of the air.", 3.0},
    {"b", "Blue paint is made from lapis lazuli.", 2.5},
    {"c", "", 2.0},
    {"d", "Short waves are scattered far more than long ones, which is why the sky is blue.", 1.5},
    {"e", "Bread rises.", 1.0}};

RankRequest request_of(std::vector<Passage> passages, Mode mode) {
  RankRequest request;
  request.qid = "q1";
  request.query = "why is the sky blue";
  request.passages = std::move(passages);
  request.options.mode = mode;
  request.options.score = ScoreKind::kExpected;
  request.options.max_think_tokens = 6;
  return request;
}

std::map<std::string, PassageResult> by_id(const Ranking& ranking) {
  std::map<std::string, PassageResult> results;
  for (const auto& r : ranking.results) results[r.docid] = r;
  return results;
}

// The same answer, up to `tolerance` in every probability; 0: bit for bit.
void expect_same(const PassageResult& a, const PassageResult& b, double tolerance) {
  SCOPED_TRACE(a.docid);
  EXPECT_EQ(a.docid, b.docid);
  EXPECT_EQ(a.integer, b.integer);
  EXPECT_EQ(a.reasoning, b.reasoning);
  EXPECT_EQ(a.finish, b.finish);
  EXPECT_EQ(a.flags, b.flags);
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
  EXPECT_EQ(a.new_tokens, b.new_tokens);
  for (int i = 0; i <= 10; ++i) {
    if (tolerance == 0) {
      EXPECT_EQ(a.distribution.p[i], b.distribution.p[i]);
    } else {
      EXPECT_NEAR(a.distribution.p[i], b.distribution.p[i], tolerance);
    }
  }
  EXPECT_NEAR(a.score, b.score, tolerance * 100);
}

void expect_independent_of_company(bool deterministic, Mode mode) {
  RerankerOptions options = tiny_options(random_checkpoint("company"));
  options.deterministic = deterministic;
  const double tolerance = deterministic ? 0 : 1e-5;
  const auto reranker = Reranker::load(options);
  const auto together = by_id(reranker->rank(request_of(kPassages, mode)));
  ASSERT_EQ(together.size(), kPassages.size());

  const auto reversed =
      by_id(reranker->rank(request_of({kPassages.rbegin(), kPassages.rend()}, mode)));
  for (const auto& [id, result] : together) expect_same(result, reversed.at(id), tolerance);

  const auto fresh = Reranker::load(options);  // with a cold cache
  for (const auto& passage : kPassages) {
    const auto alone = fresh->rank(request_of({passage}, mode));
    ASSERT_EQ(alone.results.size(), 1u);
    expect_same(together.at(passage.id), alone.results[0], tolerance);
  }
}

TEST(TinyReranker, ScoresAPairTheSameAloneInABatchAndInAnyOrder) {
  expect_independent_of_company(false, Mode::kDirect);
  expect_independent_of_company(false, Mode::kThink);
}

TEST(TinyReranker, GivesTheSameBitsAloneInABatchAndInAnyOrderWhenDeterministic) {
  expect_independent_of_company(true, Mode::kDirect);
  expect_independent_of_company(true, Mode::kThink);
}

TEST(TinyReranker, DrawsOfAThoughtDependOnSeedAndIdsAlone) {
  RerankerOptions options = tiny_options(random_checkpoint("draws"));
  options.deterministic = true;
  const auto reranker = Reranker::load(options);
  RankRequest request = request_of(kPassages, Mode::kThink);
  request.options.temperature = 1;
  request.options.seed = 5;
  const auto first = by_id(reranker->rank(request));
  std::reverse(request.passages.begin(), request.passages.end());
  for (const auto& [id, result] : by_id(reranker->rank(request)))
    expect_same(first.at(id), result, 0);
  request.options.seed = 6;
  int changed = 0;
  for (const auto& [id, result] : by_id(reranker->rank(request)))
    changed += first.at(id).reasoning != result.reasoning;
  EXPECT_GT(changed, 0);
}

TEST(TinyReranker, ReadsTheAnswerAtOnceInDirectMode) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("direct")));
  for (const auto& r : reranker->rank(request_of(kPassages, Mode::kDirect)).results) {
    EXPECT_EQ(r.finish, Finish::kAnswered);
    EXPECT_EQ(r.reasoning, "");
    EXPECT_EQ(r.new_tokens, 0);
    EXPECT_GT(r.prompt_tokens, 0);
    EXPECT_EQ(r.probability, r.distribution.p[r.integer]);
    EXPECT_DOUBLE_EQ(r.score, r.distribution.expected());
  }
}

PassageResult only_result(const std::string& model, int max_think_tokens, ScoreKind kind) {
  const auto reranker = Reranker::load(tiny_options(model));
  RankRequest request = request_of({{"d", "Some text.", {}}}, Mode::kThink);
  request.options.max_think_tokens = max_think_tokens;
  request.options.score = kind;
  return reranker->rank(request).results.at(0);
}

TEST(TinyReranker, StopsAThoughtThatEndsWithAnAnswer) {
  auto successors = spelled("ok", kThinkClose);
  successors[kThinkClose] = '<';
  for (const auto& [from, to] : spelled("<answer>7", 'z'))
    if (from != '\n') successors[from] = to;
  const PassageResult r =
      only_result(chain_checkpoint("answers", successors), 100, ScoreKind::kPaper);
  EXPECT_EQ(r.finish, Finish::kAnswered);
  EXPECT_EQ(r.reasoning, "ok");
  EXPECT_EQ(r.integer, 7);
  EXPECT_GT(r.probability, 0.99);
  EXPECT_DOUBLE_EQ(r.score, 7 * r.probability);
  EXPECT_THAT(r.flags, IsEmpty());
  EXPECT_EQ(r.new_tokens, 11);  // "ok</think><answer>"
}

TEST(TinyReranker, ReadsTenAsOneThenNought) {
  auto successors = spelled("ok", kThinkClose);
  successors[kThinkClose] = '<';
  for (const auto& [from, to] : spelled("<answer>10", 'z'))
    if (from != '\n') successors[from] = to;
  const std::string model = chain_checkpoint("ten", successors);
  const PassageResult r = only_result(model, 100, ScoreKind::kInteger);
  EXPECT_EQ(r.integer, 10);
  EXPECT_EQ(r.score, 10);
  EXPECT_GT(r.probability, 0.99);
  EXPECT_LT(r.distribution.p[1], 0.01);
}

TEST(TinyReranker, ClosesAThoughtAtItsBudget) {
  std::map<int, int> successors = {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}, {'>', '4'}};
  const PassageResult r =
      only_result(chain_checkpoint("budget", successors), 5, ScoreKind::kInteger);
  EXPECT_EQ(r.finish, Finish::kForced);
  EXPECT_EQ(r.reasoning, "ababa");
  EXPECT_EQ(r.new_tokens, 5);
  EXPECT_EQ(r.integer, 4);  // read behind the closing
  EXPECT_THAT(r.flags, IsEmpty());
}

TEST(TinyReranker, ClosesAThoughtWhereTheContextIsFull) {
  std::map<int, int> successors = {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}, {'>', '4'}};
  const PassageResult r =
      only_result(chain_checkpoint("context", successors), 1000000, ScoreKind::kInteger);
  EXPECT_EQ(r.finish, Finish::kClipped);
  EXPECT_EQ(r.integer, 4);
  EXPECT_LT(r.prompt_tokens + r.new_tokens, 2048);  // the tiny model's context
  EXPECT_GT(r.prompt_tokens + r.new_tokens, 2000);
}

TEST(TinyReranker, FlagsAThoughtThatTheModelEndedWithoutAnAnswer) {
  auto successors = spelled("no", kEndOfTurn);
  successors['>'] = '2';
  const PassageResult r =
      only_result(chain_checkpoint("unformatted", successors), 100, ScoreKind::kInteger);
  EXPECT_EQ(r.finish, Finish::kForced);
  EXPECT_EQ(r.reasoning, "no");
  EXPECT_EQ(r.integer, 2);
  EXPECT_THAT(r.flags, ElementsAre("unformatted"));
}

TEST(TinyReranker, FlagsWhatIsOddAboutAPairAndScoresItAllTheSame) {
  RerankerOptions options = tiny_options(random_checkpoint("flags"));
  options.max_document_tokens = 50;
  options.max_query_tokens = 10;
  const auto reranker = Reranker::load(options);
  RankRequest request = request_of({{"plain", "text", {}},
                                    {"empty", "", {}},
                                    {"long", std::string(100, 'x'), {}},
                                    {"binary", std::string("PK\3\4\0\0\1\2", 8), {}},
                                    {"broken", "\xef\xbf\xbd\xef\xbf\xbd ab", {}}},
                                   Mode::kDirect);
  request.query = "sky";
  auto results = by_id(reranker->rank(request));
  ASSERT_EQ(results.size(), 5u);
  EXPECT_THAT(results["plain"].flags, IsEmpty());
  EXPECT_THAT(results["empty"].flags, ElementsAre("empty_document"));
  EXPECT_THAT(results["long"].flags, ElementsAre("document_truncated"));
  EXPECT_THAT(results["binary"].flags, ElementsAre("binary_document"));
  EXPECT_THAT(results["broken"].flags, ElementsAre("binary_document"));
  request.query = "why is the sky blue";
  for (const auto& [id, r] : by_id(reranker->rank(request)))
    EXPECT_THAT(r.flags, Contains("query_truncated")) << id;
}

TEST(TinyReranker, KeepsTheFirstStagesOrderOfEqualScores) {
  RankRequest tied =
      request_of({{"z", "one", {}}, {"y", "two", {}}, {"x", "three", {}}}, Mode::kDirect);
  tied.options.score = ScoreKind::kInteger;
  const auto chain = Reranker::load(tiny_options(chain_checkpoint("tie", {{'>', '5'}})));
  const Ranking equal = chain->rank(tied);
  EXPECT_EQ(equal.results[0].docid, "z");
  EXPECT_EQ(equal.results[1].docid, "y");
  EXPECT_EQ(equal.results[2].docid, "x");
  EXPECT_EQ(equal.results[2].score, 5);
}

TEST(TinyReranker, BlendsWithTheFirstStage) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("hybrid")));
  RankRequest request = request_of(kPassages, Mode::kDirect);
  request.options.hybrid_weight = 1;
  const Ranking ranking = reranker->rank(request);
  for (size_t i = 0; i < kPassages.size(); ++i)
    EXPECT_EQ(ranking.results[i].docid, kPassages[i].id);
  request.passages[2].first_stage_score.reset();
  EXPECT_THROW(reranker->rank(request), base::Error);
}

TEST(TinyReranker, TakesRequestsFromManyThreadsAtOnce) {
  RerankerOptions options = tiny_options(random_checkpoint("threads"));
  options.deterministic = true;
  const auto reranker = Reranker::load(options);
  const auto expected = by_id(reranker->rank(request_of(kPassages, Mode::kThink)));
  std::vector<std::thread> threads;
  std::vector<Ranking> rankings(6);
  for (size_t t = 0; t < rankings.size(); ++t)
    threads.emplace_back([&, t] {
      auto passages = kPassages;
      std::rotate(passages.begin(), passages.begin() + t % passages.size(), passages.end());
      rankings[t] = reranker->rank(request_of(std::move(passages), Mode::kThink));
    });
  for (auto& thread : threads) thread.join();
  for (const auto& ranking : rankings) {
    ASSERT_EQ(ranking.results.size(), kPassages.size());
    for (const auto& r : ranking.results) expect_same(expected.at(r.docid), r, 0);
  }
}

TEST(TinyReranker, HandsOnEachPairAsItIsDone) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("on_result")));
  std::mutex mutex;
  std::vector<std::string> seen;
  auto future = reranker->submit(request_of(kPassages, Mode::kDirect), [&](const PassageResult& r) {
    const std::lock_guard lock(mutex);
    seen.push_back(r.docid);
  });
  future.get();
  EXPECT_THAT(seen, ::testing::UnorderedElementsAre("a", "b", "c", "d", "e"));
  EXPECT_GT(reranker->stats().cached_tokens, 0);
  EXPECT_GT(reranker->stats().computed_tokens, 0);
}

TEST(TinyReranker, FailsTheRequestThatCannotFitAndServesTheOthers) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("too_long")));
  auto passages = kPassages;
  passages.push_back({"huge", std::string(2048, 'x'), 0.5});
  auto bad = reranker->submit(request_of(passages, Mode::kDirect));
  auto good = reranker->submit(request_of(kPassages, Mode::kDirect));
  EXPECT_EQ(good.get().results.size(), kPassages.size());
  try {
    bad.get();
    FAIL() << "no error";
  } catch (const base::Error& e) {
    for (const char* part : {"q1", "huge", "2048", "--max-doc-tokens", "--max-query-tokens"})
      EXPECT_THAT(e.what(), HasSubstr(part));
    EXPECT_THAT(e.what(), Not(HasSubstr("\n")));
  }
  EXPECT_EQ(reranker->rank(request_of(kPassages, Mode::kDirect)).results.size(), kPassages.size());
}

TEST(TinyReranker, NamesTheCacheThatIsTooSmall) {
  RerankerOptions options = tiny_options(random_checkpoint("small_cache"));
  options.kv_cache_bytes = 1 << 15;
  const auto reranker = Reranker::load(options);
  try {
    reranker->rank(request_of(kPassages, Mode::kDirect));
    FAIL() << "no error";
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("--kv-cache-bytes"));
  }
}

TEST(TinyReranker, RanksNothingWithoutPassages) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("nothing")));
  const Ranking ranking = reranker->rank(request_of({}, Mode::kDirect));
  EXPECT_EQ(ranking.qid, "q1");
  EXPECT_TRUE(ranking.results.empty());
}

TEST(TinyReranker, AnswersWhatWasAskedWhenItIsDestroyedEarly) {
  std::future<Ranking> future;
  {
    const auto reranker = Reranker::load(tiny_options(random_checkpoint("destroyed")));
    future = reranker->submit(request_of(kPassages, Mode::kThink));
  }
  ASSERT_EQ(future.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  try {
    EXPECT_EQ(future.get().results.size(), kPassages.size());
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("stopped"));
  }
}

}  // namespace
}  // namespace erank::rank
