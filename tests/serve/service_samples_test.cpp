// Several samples of reasoning, asked of the service.
#include <gtest/gtest.h>

#include <map>

#include "tests/serve/test_client.h"

namespace erank::serve {
namespace {

Json drawn(const std::vector<std::string>& texts = kTexts) {
  return {{"query", "why is the sky blue"}, {"documents", texts}, {"mode", "think"},
          {"max_think_tokens", 12},         {"temperature", 1},   {"samples", 3},
          {"return_reasoning", true}};
}

// Results by document.
std::map<std::string, Json> by_text(const Json& reply) {
  std::map<std::string, Json> found;
  for (Json item : reply["results"]) {
    item.erase("index");
    found[item["document"]["text"].get<std::string>()] = item;
  }
  return found;
}

TEST(TinyServiceSamples, DrawsTheSameSamplesAloneInABatchAndFromWhatIsKept) {
  const auto reranker = tiny();
  Service service({});
  service.set_reranker(reranker, "files");
  const auto together = by_text(post(service, drawn())->json());
  ASSERT_EQ(together.size(), kTexts.size());
  const auto computed = reranker->stats().engine.num_done;
  EXPECT_EQ(computed, 3 * std::ssize(kTexts));
  EXPECT_EQ(by_text(post(service, drawn())->json()), together);
  EXPECT_EQ(reranker->stats().engine.num_done, computed);
  Service fresh({.max_cache_bytes = 0});
  fresh.set_reranker(tiny(), "files");
  for (const auto& [text, item] : together) {
    EXPECT_EQ(by_text(post(fresh, drawn({text}))->json()).at(text), item);
    Json many = drawn({"another", text, "one more"});
    many["query"] = {"another query", "why is the sky blue"};
    Json second = post(fresh, many)->json()["rankings"][1];
    EXPECT_EQ(by_text(second).at(text), item);
  }
  // They are draws, by their seed, and the mean of as many as were asked for.
  Json other = drawn();
  other["seed"] = 1;
  EXPECT_NE(by_text(post(service, other)->json()), together);
  Json one = drawn();
  one["samples"] = 1;
  int fewer = 0;
  for (const auto& [text, item] : by_text(post(service, one)->json()))
    fewer += item["new_tokens"] < together.at(text)["new_tokens"];
  EXPECT_EQ(fewer, std::ssize(kTexts));
}

TEST(TinyServiceSamples, DrawsByItsOwnDefaultsOfWhatReasons) {
  const auto reranker = tiny();
  Service service({.defaults = {.samples = 3, .temperature = 1}});
  service.set_reranker(reranker, "files");
  EXPECT_EQ(get(service, "/info")["default_samples"], 3);
  EXPECT_EQ(get(service, "/info")["default_temperature"], 1.0);
  Json body = drawn();
  const Json said = post(service, body)->json()["results"];
  body.erase("samples"), body.erase("temperature");
  EXPECT_EQ(post(service, body)->json()["results"], said);
  const auto before = reranker->stats().engine.num_done;
  EXPECT_EQ(post(service, direct())->reply().status, 200);
  EXPECT_EQ(reranker->stats().engine.num_done, before + std::ssize(kTexts));
  body = direct({"new", "other", "third"});
  body["explain_top"] = 1;
  body["max_think_tokens"] = 12;
  EXPECT_EQ(post(service, body)->reply().status, 200);
  EXPECT_EQ(reranker->stats().engine.num_done, before + std::ssize(kTexts) + 3 + 3);
  body["mode"] = "direct", body["explain_top"] = 0, body["samples"] = 2;
  EXPECT_EQ(post(service, body)->json()["error"]["param"], "samples");
}

TEST(TinyServiceSamples, CountEachWhenACallIsLetIn) {
  Service service({.max_queued_pairs = 66});
  service.set_reranker(endless(), "files");
  const Asked running = post(service, slow(4000, "slow", 64));
  running->wait_for_start();
  Json one = slow(5, "short", 1);
  one["temperature"] = 1;
  one["samples"] = 3;
  EXPECT_EQ(post(service, one)->reply().status, 429);
  one["samples"] = 2;
  EXPECT_EQ(post(service, one)->reply().status, 200);
  running->leave();
}

}  // namespace
}  // namespace erank::serve
