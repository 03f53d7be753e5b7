// Several replicas of a model, as several GPUs have them, on the CPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "erank/base/error.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "erank/rank/replica.h"
#include "erank/rank/reranker.h"
#include "tests/rank/tiny_checkpoint.h"

namespace erank::rank {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Reranker> load(const std::string& model, size_t replicas) {
  RerankerOptions options = tiny_options(model);
  options.devices = std::vector<Device>(replicas);
  options.max_document_tokens = 50;  // some are read in windows
  return Reranker::load(options);
}

std::vector<RankRequest> requests(Mode mode) {
  std::vector<RankRequest> all;
  for (int q = 0; q < 7; ++q) {
    std::vector<Passage> passages;
    for (int d = 0; d <= q; ++d)
      passages.push_back(
          {base::str("d", d), std::string(20 + 17 * d, static_cast<char>('a' + q)), {}});
    all.push_back(request_of(std::move(passages), mode));
    all.back().qid = base::str("q", q);
    all.back().query = base::str("query ", q);
    all.back().options.temperature = mode == Mode::kThink ? 1 : 0;
  }
  return all;
}

// All of them at once.
std::vector<Ranking> rank_all(Reranker& reranker, Mode mode) {
  std::vector<Ticket> tickets;
  for (RankRequest& request : requests(mode)) tickets.push_back(reranker.submit(request));
  std::vector<Ranking> rankings;
  for (Ticket& ticket : tickets) rankings.push_back(ticket.get());
  return rankings;
}

TEST(TinyReplicas, GiveTheSameBitsHoweverManyTheyAre) {
  const std::string model = random_checkpoint("replicas");
  const auto one = load(model, 1);
  for (const size_t replicas : {2, 3}) {
    const auto several = load(model, replicas);
    for (const Mode mode : {Mode::kDirect, Mode::kThink}) {
      const auto expected = rank_all(*one, mode), found = rank_all(*several, mode);
      ASSERT_EQ(found.size(), expected.size());
      for (size_t q = 0; q < found.size(); ++q) {
        EXPECT_EQ(found[q].qid, expected[q].qid);
        ASSERT_EQ(found[q].results.size(), q + 1);
        for (size_t d = 0; d <= q; ++d) {
          const PassageResult &a = found[q].results[d], &b = expected[q].results[d];
          EXPECT_EQ(a.docid, b.docid);
          EXPECT_EQ(a.score, b.score);
          EXPECT_EQ(a.reasoning, b.reasoning);
          EXPECT_EQ(a.distribution.p, b.distribution.p);
        }
      }
    }
  }
}

TEST(TinyReplicas, TakeWholeRequestsEachTheOneWithTheFewestPairs) {
  const auto reranker = load(random_checkpoint("shared_out"), 2);
  std::map<std::string, std::set<std::thread::id>> threads;  // by query; calls are one at a time
  std::atomic<int> calls_now = 0, most_calls = 0;
  const auto submit = [&](const std::string& qid, int pairs, int think_tokens) {
    std::vector<Passage> passages;
    for (int i = 0; i < pairs; ++i) passages.push_back({base::str(i), "text", {}});
    RankRequest request = request_of(std::move(passages), Mode::kThink);
    request.qid = qid;
    request.options.max_think_tokens = think_tokens;
    return reranker->submit(request, {.on_result = [&, qid](const PassageResult&) {
                              most_calls = std::max<int>(most_calls, ++calls_now);
                              threads[qid].insert(std::this_thread::get_id());
                              std::this_thread::yield();
                              --calls_now;
                            }});
  };
  std::vector<Ticket> tickets;
  tickets.push_back(submit("large", 6, 1500));
  tickets.push_back(submit("small", 2, 3));
  tickets.push_back(submit("other", 1, 3));  // with "small": at most 3 pairs against 6
  tickets[1].get();
  tickets[2].get();
  EXPECT_FALSE(tickets[0].wait_for(std::chrono::milliseconds(0)));
  tickets[0].cancel();
  EXPECT_EQ(tickets[0].get().failed.size(), 6u);
  EXPECT_EQ(most_calls, 1);
  for (const auto& [qid, ids] : threads) EXPECT_EQ(ids.size(), 1u) << qid;
  EXPECT_NE(threads["large"], threads["small"]);
  EXPECT_EQ(threads["other"], threads["small"]);
  EXPECT_EQ(reranker->stats().queued_pairs, 0);
}

TEST(TinyReplicas, CountTogether) {
  const std::string model = random_checkpoint("counts");
  const auto one = load(model, 1), two = load(model, 2);
  rank_all(*one, Mode::kDirect);
  rank_all(*two, Mode::kDirect);
  const auto a = one->stats().engine, b = two->stats().engine;
  EXPECT_EQ(b.num_done, a.num_done);
  EXPECT_GE(b.computed_tokens, a.computed_tokens);  // less is shared
  EXPECT_EQ(b.pages, 2 * a.pages);
  EXPECT_EQ(b.page_bytes, a.page_bytes);
  EXPECT_EQ(b.pages_used, 0);
}

TEST(TinyReplicas, AnswerWhatWasAskedWhenTheyAreDestroyedEarly) {
  std::vector<Ticket> tickets;
  {
    const auto reranker = load(random_checkpoint("going"), 2);
    for (RankRequest& request : requests(Mode::kThink))
      tickets.push_back(reranker->submit(request));
  }
  for (size_t q = 0; q < tickets.size(); ++q) {
    tickets[q].cancel();  // nobody is there any more
    const Ranking ranking = tickets[q].get();
    EXPECT_EQ(ranking.results.size() + ranking.failed.size(), q + 1);
    for (const auto& r : ranking.failed) EXPECT_THAT(r.error->message, HasSubstr("stopped"));
  }
}

TEST(TinyReplicas, AreOnDifferentDevicesOfOneKind) {
  const auto refused = [](std::vector<Device> devices) -> std::string {
    RerankerOptions options = tiny_options(random_checkpoint("devices"));
    options.devices = std::move(devices);
    try {
      Reranker::load(options);
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(refused({}), HasSubstr("no device"));
  EXPECT_THAT(refused({Device{}, Device{0}}), HasSubstr("both the CPU and a GPU"));
  EXPECT_THAT(refused({Device{1}, Device{0}, Device{1}}), HasSubstr("GPU 1 twice"));
}

// One that contradicts itself: what it has computed is not what its job asks for.
TEST(TinyReplicas, StopAllWhenOneHasMadeAMistake) {
  const std::string model = random_checkpoint("mistake");
  const auto tokenizer = text::Tokenizer::load(model);
  const ScoreReader reader(tokenizer, text::Scale::kZeroToTen);
  const auto source = model::CheckpointSource::open(model);
  ReplicaGroup group;
  Replica bad(group, reader), good(group, reader);
  for (Replica* replica : {&bad, &good})
    replica
        ->start(
            [&] {
              return model::make_network(source,
                                         {.precision = model::Precision::kFp32, .threads = 1});
            },
            {.kv_cache_bytes = int64_t{16} << 20})
        .get();
  const auto job_of = [](std::vector<text::Ids> choices, int new_tokens) {
    auto job = std::make_shared<Ticket::Job>();
    job->request = request_of({{"d", "text", {}}}, Mode::kDirect);
    job->results.resize(1);
    job->pairs_left = {1};
    job->num_left = 1;
    job->pairs.emplace_back().request = {
        .prompt = {1, 2}, .max_new_tokens = new_tokens, .choices = std::move(choices)};
    return job;
  };
  const auto slow = job_of(reader.choices(), 2000), wrong = job_of({{1}}, 0);
  Ticket slow_ticket(slow), wrong_ticket(wrong);
  {
    const std::lock_guard lock(group.mutex);
    group.num_pending = 2;
    good.add(slow);
    bad.add(wrong);
  }
  group.work.notify_all();
  for (Ticket* ticket : {&slow_ticket, &wrong_ticket}) {
    const Ranking ranking = ticket->get();
    ASSERT_EQ(ranking.failed.size(), 1u);
    EXPECT_THAT(ranking.failed[0].error->message, HasSubstr("the reranker has stopped: "));
  }
  const std::lock_guard lock(group.mutex);
  EXPECT_TRUE(group.stopping);
  EXPECT_THAT(group.fault, HasSubstr("check failed"));
  EXPECT_EQ(group.num_pending, 0);
}

}  // namespace
}  // namespace erank::rank
