#include "erank/serve/running_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/serve/test_client.h"

namespace erank::serve {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

TEST(TinyCall, StreamsResultsThenTheRanking) {
  Service service({});
  service.set_reranker(tiny(), "files");
  Json body = direct();
  body["stream"] = true;
  const Asked asked = post(service, body);
  const auto events = asked->events();
  ASSERT_GE(events.size(), 6u);
  EXPECT_EQ(events.front().first, "start");
  EXPECT_EQ(events.front().second["total"], 4);
  EXPECT_EQ(events.front().second["mode"], "direct");
  EXPECT_EQ(events.back().first, "ranking");
  std::set<size_t> seen;
  for (const auto& [name, data] : events)
    if (name == "result") {
      seen.insert(data["index"].get<size_t>());
      EXPECT_FALSE(data.contains("document"));
      EXPECT_FALSE(data.contains("provisional"));
    }
  EXPECT_EQ(seen.size(), 4u);
  body["stream"] = false;
  Json ranking = events.back().second, whole = post(service, body)->json();
  ranking.erase("created"), whole.erase("created");
  EXPECT_EQ(ranking, whole);
}

TEST(TinyCall, EndsAStreamWithItsError) {
  Service service({});
  service.set_reranker(
      rank::Reranker::load(rank::tiny_options(rank::damaged_checkpoint("serve_stream", 'x'))),
      "files");
  Json body = direct({"x"});
  body["stream"] = true;
  const Asked asked = post(service, body);
  const auto events = asked->events();
  EXPECT_EQ(events.back().first, "error");
  EXPECT_EQ(events.back().second["error"]["code"], 500);
  EXPECT_EQ(asked->reply().status, 500);  // as the log has it
  // What is wrong from the start is an ordinary answer.
  body["top_n"] = -1;
  EXPECT_EQ(post(service, body)->reply().status, 400);
}

TEST(TinyCall, TellsOfProgressWhileTheModelThinks) {
  Service service({});
  service.set_reranker(endless(), "files");
  Json body = slow();
  body["stream"] = true;
  body["deadline_ms"] = 3200;
  const auto began = std::chrono::steady_clock::now();
  const auto events = post(service, body)->events();
  const auto time = std::chrono::steady_clock::now() - began;
  int progress = 0;
  for (const auto& [name, data] : events)
    if (name == "progress") {
      ++progress;
      EXPECT_EQ(data["total"], 800);  // each directly, then with reasoning
      EXPECT_LE(data["done"], 800);
    }
  EXPECT_GE(progress, 2);
  EXPECT_LE(progress, time / milliseconds(200));
}

TEST(TinyCall, ExplainsTheBestAlone) {
  Service service({});
  service.set_reranker(endless(), "files");
  Json body = direct({"alpha", "beta", "gamma delta", "epsilon"});
  const Json before = post(service, body)->json();
  body["explain_top"] = 2;
  body["max_think_tokens"] = 20;
  body["stream"] = true;
  const auto events = post(service, body)->events();
  EXPECT_EQ(events.front().second["total"], 6);
  EXPECT_EQ(events.front().second["mode"], "think");
  int provisional = 0;
  for (const auto& [name, data] : events)
    provisional += name == "result" && data.value("provisional", false);
  EXPECT_EQ(provisional, 4);
  std::set<size_t> best, explained;
  for (int i = 0; i < 2; ++i) best.insert(before["results"][i]["index"].get<size_t>());
  for (const Json& item : events.back().second["results"])
    if (item["new_tokens"] == 20) {
      explained.insert(item["index"].get<size_t>());
      EXPECT_NE(item["reasoning"], "");
    } else {
      EXPECT_EQ(item["reasoning"], "");
    }
  EXPECT_EQ(explained, best);
}

// A calibration is for one way to score: a call has as many probabilities as it has such scores.
TEST(TinyCall, TellsProbabilitiesOfTheScoresThatTheCalibrationIsFor) {
  const auto of = [](rank::Mode mode) {
    ServiceCalibration calibration;
    calibration.relevance = [mode](double score,
                                   const rank::ScoreOptions& options) -> std::optional<double> {
      return options.mode == mode ? std::optional(score / 20) : std::nullopt;
    };
    return calibration;
  };
  const auto known = [](const Json& results) {
    size_t count = 0;
    for (const Json& result : results)
      if (result.contains("relevance")) {
        EXPECT_EQ(result["relevance"], result["score"].get<double>() / 20);
        ++count;
      }
    return count;
  };
  Json explained = direct();
  explained["explain_top"] = 1, explained["max_think_tokens"] = 4, explained["stream"] = true;
  for (const rank::Mode mode : {rank::Mode::kDirect, rank::Mode::kThink}) {
    const size_t first = mode == rank::Mode::kDirect ? 1 : 0;
    Service service({});
    service.set_reranker(tiny(), "files", of(mode));
    for (int again = 0; again < 2; ++again)  // computed, then from what is kept
      EXPECT_EQ(known(post(service, direct())->json()["results"]), first * kTexts.size());
    Json results = Json::array();
    const auto events = post(service, explained)->events();
    for (const auto& [name, data] : events)
      if (name == "result") results.push_back(data);
    ASSERT_EQ(results.size(), kTexts.size() + 1);
    EXPECT_EQ(known(results), first * kTexts.size() + (1 - first));
    EXPECT_EQ(known(events.back().second["results"]), first * (kTexts.size() - 1) + (1 - first));
  }
}

TEST(TinyCall, KnowsTheDirectScoresAtTheDeadline) {
  Service service({.max_cache_bytes = 0});
  const auto reranker = endless();
  service.set_reranker(reranker, "files");
  Json body = slow(4000, "late");
  body["mode"] = "direct";
  auto began = std::chrono::steady_clock::now();
  const Json direct_scores = post(service, body)->json();
  const std::chrono::duration<double, std::milli> direct_ms =
      std::chrono::steady_clock::now() - began;
  body["mode"] = "think";
  body["deadline_ms"] = std::max<int64_t>(1200, static_cast<int64_t>(4 * direct_ms.count()));
  began = std::chrono::steady_clock::now();
  const Json late = post(service, body)->json();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
  ASSERT_EQ(late["results"].size(), 400u);
  std::vector<double> known(400);
  for (const Json& item : direct_scores["results"])
    known[item["index"].get<size_t>()] = item["score"].get<double>();
  int flagged = 0;
  for (const Json& item : late["results"]) {
    const auto flags = item["flags"].get<std::vector<std::string>>();
    if (std::find(flags.begin(), flags.end(), "deadline") == flags.end()) continue;
    ++flagged;
    EXPECT_EQ(item["score"], known[item["index"].get<size_t>()]);
    EXPECT_EQ(item["new_tokens"], 0);
  }
  EXPECT_GT(flagged, 0);
}

TEST(TinyCall, ReturnsEveryIndexWhenNothingIsKnownAtTheDeadline) {
  Service service({});
  service.set_reranker(endless(), "files");
  const Asked first = post(service, slow());
  first->wait_for_start();
  Json body = direct(std::vector<std::string>(200, std::string(2000, 'x')));
  for (size_t i = 0; i < 200; ++i)
    body["documents"][i] = std::to_string(i) + std::string(2000, 'x');
  body["deadline_ms"] = 1;
  const Json json = post(service, body)->json();
  ASSERT_EQ(json["results"].size(), 200u);
  int late = 0;
  for (const Json& item : json["results"])
    if (item.contains("error")) {
      ++late;
      EXPECT_EQ(item["relevance_score"], 0.0);
      EXPECT_THAT(item["flags"].get<std::vector<std::string>>(), ElementsAre("deadline"));
    }
  EXPECT_GT(late, 0);
  first->leave();
}

TEST(TinyCall, KeepsNoDeadlineFlagWhereThereWasTime) {
  Service service({});
  service.set_reranker(endless(), "files");
  Json body = slow(5, "short", 2);
  body["deadline_ms"] = 50000;
  const Json in_time = post(service, body)->json();
  ASSERT_EQ(in_time["results"].size(), 2u);
  for (const Json& item : in_time["results"]) {
    EXPECT_EQ(item["new_tokens"], 5);
    EXPECT_EQ(item["flags"].dump().find("deadline"), std::string::npos) << item;
  }
}
}  // namespace
}  // namespace erank::serve
