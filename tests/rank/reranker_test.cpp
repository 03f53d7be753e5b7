#include "erank/rank/reranker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/text/tokenizer.h"
#include "erank/text/windows.h"
#include "tests/exact_bits.h"
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

constexpr double kSame = kExactBits ? 0 : 1e-5;

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

TEST(TinyReranker, ScoresAPairTheSameAloneInABatchAndInAnyOrder) {
  const RerankerOptions options = tiny_options(random_checkpoint("company"));
  for (const Mode mode : {Mode::kDirect, Mode::kThink}) {
    const auto reranker = Reranker::load(options);
    const auto together = by_id(reranker->rank(request_of(kPassages, mode)));
    ASSERT_EQ(together.size(), kPassages.size());

    const auto reversed =
        by_id(reranker->rank(request_of({kPassages.rbegin(), kPassages.rend()}, mode)));
    for (const auto& [id, result] : together) expect_same(result, reversed.at(id), kSame);

    const auto fresh = Reranker::load(options);  // with a cold cache
    for (const auto& passage : kPassages) {
      const auto alone = fresh->rank(request_of({passage}, mode));
      ASSERT_EQ(alone.results.size(), 1u);
      expect_same(together.at(passage.id), alone.results[0], kSame);
    }
  }
}

TEST(TinyReranker, DrawsOfTheReasoningDependOnSeedAndIdsAlone) {
  RerankerOptions options = tiny_options(random_checkpoint("draws"));
  const auto reranker = Reranker::load(options);
  RankRequest request = request_of(kPassages, Mode::kThink);
  request.options.temperature = 1;
  request.options.seed = 5;
  const auto first = by_id(reranker->rank(request));
  std::reverse(request.passages.begin(), request.passages.end());
  for (const auto& [id, result] : by_id(reranker->rank(request)))
    expect_same(first.at(id), result, kSame);
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

TEST(TinyReranker, ReadsPromptsByTheAdaptersOwnTemplate) {
  RerankerOptions options = tiny_options(random_checkpoint("template"));
  const model::LoraConfig config{.rank = 1, .alpha = 1, .target_modules = {"q_proj"}};
  options.adapter = ::testing::TempDir() + "/erank_rank_template_adapter";
  std::filesystem::remove_all(options.adapter);
  model::save_adapter(model::make_adapter(model::config_of_shape("tiny"), config, 1),
                      options.adapter, options.model, at::kFloat);
  const RankRequest request = request_of({kPassages[0]}, Mode::kDirect);
  const auto usual = Reranker::load(options)->rank(request);
  base::write_file_atomic(options.adapter + "/chat_template.jinja",
                          "0123456789{{ messages[0].content }}!");
  const auto own = Reranker::load(options)->rank(request);
  // A marker is a token, else a byte is: "<|im_start|>user\n" and
  // "<|im_end|>\n<|im_start|>assistant\n" of the model's own.
  EXPECT_EQ(own.results.at(0).prompt_tokens - usual.results.at(0).prompt_tokens, 11 - (6 + 13));
}

PassageResult only_result(const std::string& model, int max_think_tokens, ScoreKind kind) {
  const auto reranker = Reranker::load(tiny_options(model));
  RankRequest request = request_of({{"d", "Some text.", {}}}, Mode::kThink);
  request.options.max_think_tokens = max_think_tokens;
  request.options.score = kind;
  return reranker->rank(request).results.at(0);
}

TEST(TinyReranker, StopsReasoningThatEndsWithAnAnswer) {
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

TEST(TinyReranker, ForcesAnAnswerAtTheBudget) {
  std::map<int, int> successors = {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}, {'>', '4'}};
  const PassageResult r =
      only_result(chain_checkpoint("budget", successors), 5, ScoreKind::kInteger);
  EXPECT_EQ(r.finish, Finish::kForced);
  EXPECT_EQ(r.reasoning, "ababa");
  EXPECT_EQ(r.new_tokens, 5);
  EXPECT_EQ(r.integer, 4);  // read after the forced answer's beginning
  EXPECT_THAT(r.flags, IsEmpty());
}

TEST(TinyReranker, ForcesAnAnswerWhereTheContextIsFull) {
  std::map<int, int> successors = {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}, {'>', '4'}};
  const PassageResult r =
      only_result(chain_checkpoint("context", successors), 1000000, ScoreKind::kInteger);
  EXPECT_EQ(r.finish, Finish::kClipped);
  EXPECT_EQ(r.integer, 4);
  EXPECT_LT(r.prompt_tokens + r.new_tokens, 2048);  // the tiny model's context
  EXPECT_GT(r.prompt_tokens + r.new_tokens, 2000);
}

TEST(TinyReranker, FlagsReasoningThatTheModelEndedWithoutAnAnswer) {
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
  RankRequest request = request_of({{"usual", "text", {}},
                                    {"empty", "", {}},
                                    {"long", std::string(100, 'x'), {}},
                                    {"binary", std::string("PK\3\4\0\0\1\2", 8), {}},
                                    {"broken", "\xef\xbf\xbd\xef\xbf\xbd ab", {}}},
                                   Mode::kDirect);
  request.query = "sky";
  request.options.long_documents = LongDocuments::kCut;
  auto results = by_id(reranker->rank(request));
  ASSERT_EQ(results.size(), 5u);
  for (auto& [id, result] : results) std::erase(result.flags, "low_answer_mass");  // random weights
  EXPECT_THAT(results["usual"].flags, IsEmpty());
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
    for (const auto& r : ranking.results) expect_same(expected.at(r.docid), r, kSame);
  }
}

TEST(TinyReranker, HandsOnEachPairAsItIsDone) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("on_result")));
  std::mutex mutex;
  std::vector<std::string> seen;
  Ranking done;
  auto ticket = reranker->submit(request_of(kPassages, Mode::kDirect),
                                 {.on_result =
                                      [&](const PassageResult& r) {
                                        const std::lock_guard lock(mutex);
                                        seen.push_back(r.docid);
                                      },
                                  .on_done = [&](const Ranking& ranking) { done = ranking; }});
  const Ranking ranking = ticket.get();
  ASSERT_EQ(done.results.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(done.results[i].docid, ranking.results[i].docid);
  EXPECT_THAT(seen, ::testing::UnorderedElementsAre("a", "b", "c", "d", "e"));
  const RerankerStats stats = reranker->stats();
  EXPECT_GT(stats.engine.cached_tokens, 0);
  EXPECT_GT(stats.engine.computed_tokens, 0);
  EXPECT_EQ(stats.engine.num_done, 5);
  EXPECT_EQ(stats.queued_pairs, 0);
}

TEST(TinyReranker, CutsToTheContextWhatIsLonger) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("long")));
  const auto flags = [&](const std::string& query, const std::string& text, Mode mode) {
    RankRequest request = request_of({{"d", text, {}}}, mode);
    request.query = query;
    request.options.max_think_tokens = 20;
    request.options.long_documents = LongDocuments::kCut;
    const Ranking ranking = reranker->rank(request);
    EXPECT_TRUE(ranking.failed.empty()) << ranking.failed[0].error->message;
    if (ranking.results.empty()) return std::vector<std::string>{"none"};
    const PassageResult& r = ranking.results[0];
    EXPECT_LE(r.prompt_tokens + r.new_tokens, 2048);
    EXPECT_NE(r.finish, Finish::kClipped) << "the reasoning has its room";
    auto out = r.flags;
    std::erase(out, "low_answer_mass");
    return out;
  };
  const std::string huge(3000, 'x');
  for (const Mode mode : {Mode::kDirect, Mode::kThink}) {
    EXPECT_THAT(flags("q", "short", mode), ElementsAre());
    EXPECT_THAT(flags("q", huge, mode), ElementsAre("document_truncated"));
    EXPECT_THAT(flags(huge, "short", mode), ElementsAre("query_truncated", "document_truncated"));
    EXPECT_THAT(flags(huge, huge, mode), ElementsAre("query_truncated", "document_truncated"));
  }
}

const std::string kLong =
    "Air scatters light. Short waves are scattered more. The sky is blue for that reason. Bread "
    "needs yeast. It rises then.";

TEST(TinyReranker, ReadsALongDocumentInWindowsAndTakesTheBest) {
  RerankerOptions options = tiny_options(random_checkpoint("windows"));
  options.max_document_tokens = 50;
  const auto reranker = Reranker::load(options);
  const std::string& text = kLong;
  for (const Mode mode : {Mode::kDirect, Mode::kThink}) {
    const Ranking ranking =
        reranker->rank(request_of({{"long", text, {}}, {"short", "Bread rises.", {}}}, mode));
    auto results = by_id(ranking);
    ASSERT_EQ(results.size(), 2u);
    EXPECT_FALSE(results["short"].window);
    const PassageResult& r = results["long"];
    ASSERT_TRUE(r.window);
    EXPECT_THAT(r.flags, Not(Contains("document_truncated")));

    const auto tokenizer = text::Tokenizer::load(options.model);
    const auto windows = text::split_windows(tokenizer, text, 50, 8).windows;
    ASSERT_GE(windows.size(), 3u);
    std::vector<Passage> parts;
    for (const auto& window : windows) {
      EXPECT_TRUE(window.text.ends_with(text.substr(window.begin, window.end - window.begin)));
      parts.push_back({"part" + std::to_string(parts.size() + 1), window.text, {}});
    }
    const Ranking alone = reranker->rank(request_of(parts, mode));
    const PassageResult& best = alone.results[0];
    EXPECT_EQ("part" + std::to_string(r.window->number), best.docid);
    EXPECT_EQ(r.window->of, static_cast<int>(windows.size()));
    EXPECT_EQ(r.window->begin, windows[r.window->number - 1].begin);
    EXPECT_EQ(r.window->end, windows[r.window->number - 1].end);
    EXPECT_EQ(r.score, best.score);
    EXPECT_EQ(r.reasoning, best.reasoning);
    EXPECT_EQ(r.distribution.p, best.distribution.p);
    int64_t prompt_tokens = 0, new_tokens = 0;
    for (const auto& part : alone.results)
      prompt_tokens += part.prompt_tokens, new_tokens += part.new_tokens;
    EXPECT_EQ(r.prompt_tokens, prompt_tokens);
    EXPECT_EQ(r.new_tokens, new_tokens);
  }
}

TEST(TinyReranker, ReadsNoMoreWindowsThanAsked) {
  RerankerOptions options = tiny_options(random_checkpoint("max_windows"));
  options.max_document_tokens = 50;
  const auto reranker = Reranker::load(options);
  RankRequest request = request_of({{"long", kLong, {}}}, Mode::kDirect);
  request.options.max_windows = 2;
  const PassageResult r = reranker->rank(request).results.at(0);
  ASSERT_TRUE(r.window);
  EXPECT_EQ(r.window->of, 2);
  EXPECT_THAT(r.flags, Contains("document_truncated"));
  request.options.max_windows = 0;
  EXPECT_THROW(reranker->rank(request), base::Error);
}

TEST(TinyReranker, TiedWindowsGiveTheFirst) {
  RerankerOptions options = tiny_options(chain_checkpoint("tied_windows", {{'>', '5'}}));
  options.max_document_tokens = 50;
  const auto reranker = Reranker::load(options);
  RankRequest request = request_of({{"long", kLong, {}}}, Mode::kDirect);
  request.options.score = ScoreKind::kInteger;
  EXPECT_EQ(reranker->rank(request).results.at(0).window->number, 1);
}

TEST(TinyReranker, ADocumentWithOneFailedWindowFailsOnce) {
  RerankerOptions options = tiny_options(damaged_checkpoint("failed_window", 'x'));
  options.max_document_tokens = 50;
  const auto reranker = Reranker::load(options);
  int calls = 0;
  const Ranking ranking =
      reranker
          ->submit(request_of({{"short", "Bread.", {}}, {"long", kLong + " All six.", {}}},
                              Mode::kDirect),
                   {.on_result = [&](const PassageResult&) { ++calls; }})
          .get();
  EXPECT_EQ(calls, 2);
  ASSERT_EQ(ranking.failed.size(), 1u);
  EXPECT_EQ(ranking.failed[0].docid, "long");
  EXPECT_FALSE(ranking.failed[0].window);
  EXPECT_EQ(ranking.failed[0].error->kind, PassageError::Kind::kNotFinite);
  EXPECT_EQ(ranking.results.size(), 1u);
}

TEST(TinyReranker, AnInstructionThatLeavesNoRoomIsThePairsError) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("too_long")));
  RankRequest request = request_of(kPassages, Mode::kDirect);
  request.options.instruction = std::string(3000, 'x');
  const Ranking ranking = reranker->rank(request);
  EXPECT_TRUE(ranking.results.empty());
  ASSERT_EQ(ranking.failed.size(), kPassages.size());
  for (const auto& failed : ranking.failed) {
    EXPECT_EQ(failed.error->kind, PassageError::Kind::kTooLong);
    EXPECT_THAT(failed.error->message, HasSubstr("--instruction"));
  }
}

TEST(TinyReranker, ListsApartThePairThatCannotFitAndRanksTheOthers) {
  RerankerOptions options = tiny_options(random_checkpoint("no_room"));
  options.kv_cache_bytes = 1'000'000;  // less than a whole context takes
  const auto reranker = Reranker::load(options);
  const auto expected = by_id(reranker->rank(request_of(kPassages, Mode::kDirect)));
  auto passages = kPassages;
  passages.insert(passages.begin() + 2, {"huge", std::string(2048, 'x'), 0.5});
  RankRequest request = request_of(passages, Mode::kDirect);
  request.options.long_documents = LongDocuments::kCut;
  std::vector<std::string> failed_results;
  const Ranking ranking = reranker
                              ->submit(request, {.on_result =
                                                     [&](const PassageResult& r) {
                                                       if (r.error)
                                                         failed_results.push_back(r.docid);
                                                     }})
                              .get();
  ASSERT_EQ(ranking.results.size(), kPassages.size());
  for (const auto& [id, result] : by_id(ranking)) expect_same(expected.at(id), result, kSame);
  ASSERT_EQ(ranking.failed.size(), 1u);
  const PassageResult& failed = ranking.failed[0];
  EXPECT_EQ(failed.docid, "huge");
  EXPECT_EQ(failed.index, 2u);
  EXPECT_EQ(failed.first_stage_score, 0.5);
  ASSERT_TRUE(failed.error);
  EXPECT_EQ(failed.error->kind, PassageError::Kind::kNoRoom);
  for (const char* part : {"q1", "huge", "--kv-cache-bytes"})
    EXPECT_THAT(failed.error->message, HasSubstr(part));
  EXPECT_THAT(failed.error->message, Not(HasSubstr("\n")));
  EXPECT_THAT(failed_results, ElementsAre("huge"));
  EXPECT_EQ(reranker->stats().engine.num_failed, 1);

  // The blend is over those that have a score.
  request.options.hybrid_weight = 1;
  const Ranking blended = reranker->rank(request);
  ASSERT_EQ(blended.results.size(), kPassages.size());
  for (size_t i = 0; i < kPassages.size(); ++i)
    EXPECT_EQ(blended.results[i].docid, kPassages[i].id);
}

TEST(TinyReranker, NamesTheCacheThatIsTooSmall) {
  RerankerOptions options = tiny_options(random_checkpoint("small_cache"));
  options.kv_cache_bytes = 1 << 15;
  const auto reranker = Reranker::load(options);
  const Ranking ranking = reranker->rank(request_of(kPassages, Mode::kDirect));
  EXPECT_THAT(ranking.results, IsEmpty());
  ASSERT_EQ(ranking.failed.size(), kPassages.size());
  EXPECT_EQ(ranking.failed[0].error->kind, PassageError::Kind::kNoRoom);
  EXPECT_THAT(ranking.failed[0].error->message, HasSubstr("--kv-cache-bytes"));
}

TEST(TinyReranker, NamesWeightsThatGiveNoNumbers) {
  const auto reranker = Reranker::load(tiny_options(damaged_checkpoint("damaged", 'x')));
  auto passages = kPassages;
  passages.push_back({"x", "x", 0.5});
  const Ranking ranking = reranker->rank(request_of(passages, Mode::kDirect));
  ASSERT_EQ(ranking.failed.size(), 1u);
  EXPECT_EQ(ranking.failed[0].docid, "x");
  EXPECT_EQ(ranking.failed[0].error->kind, PassageError::Kind::kNotFinite);
  EXPECT_EQ(ranking.results.size(), kPassages.size());
}

TEST(TinyReranker, RefusesMoreThanItsQueueHolds) {
  RerankerOptions options = tiny_options(random_checkpoint("queue"));
  options.max_queued_pairs = 7;
  const auto reranker = Reranker::load(options);
  RankRequest slow = request_of(kPassages, Mode::kThink);
  slow.options.max_think_tokens = 1500;
  Ticket first = reranker->submit(slow);
  try {
    reranker->submit(request_of(kPassages, Mode::kDirect));
    FAIL() << "no error";
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kExhausted);
    EXPECT_THAT(e.what(), HasSubstr("at most 7"));
  }
  EXPECT_EQ(reranker->submit(request_of({kPassages[0]}, Mode::kDirect)).get().results.size(), 1u);
  first.cancel();
  first.get();
  EXPECT_EQ(reranker->rank(request_of(kPassages, Mode::kDirect)).results.size(), kPassages.size());
}

TEST(TinyReranker, CancelsWhatIsNotScoredYet) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("cancel")));
  RankRequest slow = request_of(kPassages, Mode::kThink);
  slow.options.max_think_tokens = 1500;
  for (int i = 0; i < 8; ++i) slow.passages.push_back({base::str("more", i), "text", 0.0});
  std::atomic<int> outcomes = 0;
  Ticket ticket = reranker->submit(slow, {.on_result = [&](const PassageResult&) { ++outcomes; }});
  const Ranking quick = reranker->rank(request_of(kPassages, Mode::kDirect));
  EXPECT_EQ(quick.results.size(), kPassages.size());
  EXPECT_FALSE(ticket.wait_for(std::chrono::milliseconds(0)));
  ticket.cancel();
  const Ranking ranking = ticket.get();
  ticket.cancel();  // does nothing more
  EXPECT_EQ(ranking.results.size() + ranking.failed.size(), slow.passages.size());
  EXPECT_EQ(outcomes, std::ssize(slow.passages));
  ASSERT_FALSE(ranking.failed.empty());
  EXPECT_EQ(ranking.failed[0].error->kind, PassageError::Kind::kCancelled);
  EXPECT_EQ(reranker->rank(request_of(kPassages, Mode::kDirect)).results.size(), kPassages.size());
  const auto stats = reranker->stats();
  EXPECT_EQ(stats.engine.num_cancelled, std::ssize(ranking.failed));
  EXPECT_EQ(stats.queued_pairs, 0);
  EXPECT_EQ(stats.engine.pages_used, 0);
}

TEST(TinyReranker, CancelsOnePassageAlone) {
  const auto reranker = Reranker::load(
      tiny_options(chain_checkpoint("cancel_one", {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}})));
  RankRequest slow = request_of(kPassages, Mode::kThink);
  slow.options.max_think_tokens = 1000;
  slow.options.temperature = 0.01;  // draws what is most probable
  slow.options.samples = 2;
  Ticket ticket = reranker->submit(slow);
  ticket.cancel(1);
  ticket.cancel(3);
  ticket.cancel(99);  // nobody
  const Ranking ranking = ticket.get();
  ASSERT_EQ(ranking.failed.size(), 2u);
  EXPECT_EQ(ranking.failed[0].index, 1u);
  EXPECT_EQ(ranking.failed[1].index, 3u);
  for (const auto& failed : ranking.failed)
    EXPECT_EQ(failed.error->kind, PassageError::Kind::kCancelled);
  for (const auto& result : ranking.results) EXPECT_EQ(result.new_tokens, 2000);
  ticket.cancel(0);  // does nothing more
  EXPECT_EQ(reranker->rank(request_of(kPassages, Mode::kDirect)).results.size(), kPassages.size());
  EXPECT_EQ(reranker->stats().engine.num_cancelled, 4);
  EXPECT_EQ(reranker->stats().queued_pairs, 0);
}

TEST(TinyReranker, WhatACallbackThrowsEndsItsRequestAlone) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("throws")));
  Ticket bad = reranker->submit(
      request_of(kPassages, Mode::kThink),
      {.on_result = [](const PassageResult&) { throw std::runtime_error("disk full"); }});
  Ticket good = reranker->submit(request_of(kPassages, Mode::kThink));
  EXPECT_EQ(good.get().results.size(), kPassages.size());
  try {
    bad.get();
    FAIL() << "no error";
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "disk full");
  }
  EXPECT_EQ(reranker->rank(request_of(kPassages, Mode::kDirect)).results.size(), kPassages.size());
}

TEST(TinyReranker, RefusesOptionsOutsideTheirRange) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("options")));
  RankRequest request = request_of(kPassages, Mode::kThink);
  request.options.temperature = -1;
  EXPECT_THROW(reranker->submit(request), base::Error);
  request.options.temperature = 0;
  request.options.max_think_tokens = 0;
  EXPECT_THROW(reranker->submit(request), base::Error);
  EXPECT_EQ(reranker->stats().queued_pairs, 0);
}

TEST(TinyReranker, RanksNothingWithoutPassages) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("nothing")));
  const Ranking ranking = reranker->rank(request_of({}, Mode::kDirect));
  EXPECT_EQ(ranking.qid, "q1");
  EXPECT_TRUE(ranking.results.empty());
}

TEST(TinyReranker, AnswersWhatWasAskedWhenItIsDestroyedEarly) {
  Ticket ticket;
  {
    const auto reranker = Reranker::load(tiny_options(random_checkpoint("destroyed")));
    ticket = reranker->submit(request_of(kPassages, Mode::kThink));
  }
  ASSERT_TRUE(ticket.wait_for(std::chrono::seconds(0)));
  ticket.cancel();  // nobody is there any more
  const Ranking ranking = ticket.get();
  EXPECT_EQ(ranking.results.size() + ranking.failed.size(), kPassages.size());
  for (const auto& r : ranking.failed) EXPECT_THAT(r.error->message, HasSubstr("stopped"));
}

}  // namespace
}  // namespace erank::rank
