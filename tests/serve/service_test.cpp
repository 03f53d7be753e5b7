#include "erank/serve/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "tests/serve/test_client.h"
#include "tests/test_folder.h"

namespace erank::serve {
namespace {

using rank::Mode;
using ::testing::Contains;
using ::testing::HasSubstr;

TEST(TinyService, AnswersWhatTheRerankerSays) {
  const auto reranker = tiny();
  std::vector<rank::Passage> passages;
  for (const auto& text : kTexts) passages.push_back({text, text, std::nullopt});
  const rank::Ranking expected = reranker->rank(
      {.query = "why is the sky blue", .passages = passages, .options = {.mode = Mode::kDirect}});
  Service service({});
  service.set_reranker(reranker, "files");
  const Json json = post(service, direct())->json();
  ASSERT_EQ(json["results"].size(), kTexts.size());
  for (size_t i = 0; i < kTexts.size(); ++i) {
    const Json& item = json["results"][i];
    EXPECT_EQ(item["index"], expected.results[i].index);
    EXPECT_EQ(item["score"], expected.results[i].score);
    EXPECT_EQ(item["relevance_score"], expected.results[i].score / 10);
    EXPECT_EQ(item["document"]["text"], kTexts[expected.results[i].index]);
    EXPECT_EQ(item["probability"], expected.results[i].probability);
  }
  EXPECT_EQ(json["id"], "r-1");
  EXPECT_EQ(json["model"], reranker->model_name());
}

TEST(TinyService, BlendsLikeTheReranker) {
  const auto reranker = tiny();
  std::vector<rank::Passage> passages;
  const std::vector<double> first = {3, 9, 1, 2};
  for (size_t i = 0; i < kTexts.size(); ++i) passages.push_back({"", kTexts[i], first[i]});
  const rank::Ranking expected =
      reranker->rank({.query = "why is the sky blue",
                      .passages = passages,
                      .options = {.mode = Mode::kDirect, .hybrid_weight = 0.4}});
  Service service({});
  service.set_reranker(reranker, "files");
  Json body = direct();
  body["hybrid"] = {{"scores", first}, {"weight", 0.4}};
  const Json list = post(service, body)->json()["results"];
  for (size_t i = 0; i < kTexts.size(); ++i) {
    EXPECT_EQ(list[i]["index"], expected.results[i].index);
    EXPECT_EQ(list[i]["score"], expected.results[i].score);
    EXPECT_EQ(list[i]["first_stage_score"], first[expected.results[i].index]);
  }
}

TEST(TinyService, AnswersSeveralQueriesAndPairs) {
  Service service({});
  service.set_reranker(tiny(), "files");
  Json body = direct();
  body["query"] = {"why is the sky blue", "how does bread rise"};
  const Json several = post(service, body)->json();
  ASSERT_EQ(several["rankings"].size(), 2u);
  const Json single = post(service, direct())->json();
  EXPECT_EQ(several["rankings"][0]["results"], single["results"]);
  const Json pairs = post(service,
                          {{"text_1", {"how does bread rise", "why is the sky blue"}},
                           {"text_2", {kTexts[0], kTexts[3]}},
                           {"mode", "direct"}},
                          "/score")
                         ->json();
  std::vector<double> by_index(kTexts.size());
  for (const Json& item : several["rankings"][0]["results"])
    by_index[item["index"].get<size_t>()] = item["relevance_score"].get<double>();
  EXPECT_EQ(pairs["data"][1]["score"], by_index[3]);
  EXPECT_EQ(pairs["data"][0]["index"], 0);
}

TEST(TinyService, IsNotReadyBeforeThereIsAModel) {
  Service service({.version = "1.2.3"});
  EXPECT_EQ(get(service, "/health")["status"], "ok");
  EXPECT_EQ(get(service, "/version")["version"], "1.2.3");
  EXPECT_EQ(ask(service, "GET", "/ready")->reply().status, 503);
  EXPECT_EQ(ask(service, "GET", "/info")->reply().status, 503);
  EXPECT_EQ(ask(service, "GET", "/v1/models")->reply().status, 503);
  EXPECT_FALSE(service.stats().ready);
  const Asked early = post(service, direct());
  EXPECT_EQ(early->reply().status, 503);
  EXPECT_THAT(early->reply().headers, Contains(Headers::value_type{"Retry-After", "5"}));
  service.set_reranker(tiny(), "files");
  EXPECT_EQ(ask(service, "GET", "/ready")->reply().status, 200);
  EXPECT_TRUE(service.stats().ready);
  EXPECT_EQ(post(service, direct())->reply().status, 200);
}

TEST(TinyService, TellsOfItself) {
  Service service({.limits = {.max_documents = 77},
                   .max_queued_pairs = 99,
                   .max_body_bytes = 1234,
                   .version = "1.2.3",
                   .instructions = {{"plain", "Given a query."}}});
  const auto reranker = tiny();
  service.set_reranker(reranker, "files");
  const Json info = get(service, "/info");
  EXPECT_EQ(info["model_id"], reranker->model_name());
  EXPECT_TRUE(info["model_type"].contains("reranker"));
  EXPECT_EQ(info["max_input_length"], 4096);
  EXPECT_EQ(info["max_client_batch_size"], 77);
  EXPECT_EQ(info["max_documents"], 77);
  EXPECT_EQ(info["max_queued_pairs"], 99);
  EXPECT_EQ(info["max_body_bytes"], 1234);
  EXPECT_EQ(info["max_samples"], 64);
  EXPECT_EQ(info["default_samples"], 1);
  EXPECT_EQ(info["default_temperature"], 0.0);
  EXPECT_EQ(info["default_seed"], 0);
  EXPECT_EQ(info["scale"], "0-10");
  EXPECT_EQ(info["modes"], Json({"direct", "think"}));
  EXPECT_EQ(info["instructions"], Json::parse(R"([{"name": "plain", "text": "Given a query."}])"));
  EXPECT_EQ(info["version"], "1.2.3");
  EXPECT_EQ(info.at("calibration"), nullptr);
  Service calibrated({});
  calibrated.set_reranker(reranker, "files", {.info = {{"scored_by", nullptr}}});
  EXPECT_EQ(get(calibrated, "/info")["calibration"], Json({{"scored_by", nullptr}}));
  const Json models = get(service, "/v1/models");
  EXPECT_EQ(models["data"][0]["id"], reranker->model_name());
  EXPECT_EQ(models["data"][0]["object"], "model");
  post(service, direct())->reply();
  settled(service);
  const Json live = get(service, "/live");
  EXPECT_EQ(live["pairs"], 4);
  EXPECT_EQ(live["queued_pairs"], 0);
  EXPECT_EQ(live["cache_hits"], 0);
  EXPECT_GT(live["prefix_reuse"], 0.0);
  EXPECT_GE(live["uptime_s"], 0.0);
  EXPECT_TRUE(live.contains("tokens_per_s"));
}

TEST(TinyService, KnowsItsRoutesAndMethods) {
  Service service({});
  service.add_route("/metrics", [](const HttpRequest&) {
    return HttpReply{.body = "m 1\n", .type = "text/plain"};
  });
  EXPECT_EQ(ask(service, "GET", "/metrics")->reply().body, "m 1\n");
  EXPECT_EQ(ask(service, "GET", "/health/")->reply().status, 200);
  const Asked head = ask(service, "HEAD", "/health");
  EXPECT_EQ(head->reply().status, 200);
  EXPECT_EQ(head->reply().body, "");
  const Asked missing = ask(service, "GET", "/nothing\n");
  EXPECT_EQ(missing->reply().status, 404);
  EXPECT_THAT(missing->json()["message"].get<std::string>(), HasSubstr("'/nothing\\n'"));
  EXPECT_EQ(ask(service, "POST", "/nothing")->reply().status, 404);
  const Asked wrong = ask(service, "GET", "/v1/rerank");
  EXPECT_EQ(wrong->reply().status, 405);
  EXPECT_THAT(wrong->reply().headers, Contains(Headers::value_type{"Allow", "POST, OPTIONS"}));
  const Asked also_wrong = ask(service, "POST", "/health");
  EXPECT_EQ(also_wrong->reply().status, 405);
  EXPECT_THAT(also_wrong->reply().headers,
              Contains(Headers::value_type{"Allow", "GET, HEAD, OPTIONS"}));
}

TEST(TinyService, RefusesBadCallsInTheirShape) {
  Service service({.limits = {.max_documents = 2}});
  service.set_reranker(tiny(), "files");
  const Asked broken = ask(service, "POST", "/rerank", "{");
  EXPECT_EQ(broken->reply().status, 400);
  EXPECT_EQ(broken->json()["id"], "r-1");
  EXPECT_EQ(post(service, direct())->reply().status, 413);
  const Asked tei = post(service, {{"query", "q"}, {"texts", {"a"}}, {"raw_scores", "maybe"}});
  EXPECT_EQ(tei->reply().status, 422);
  EXPECT_EQ(tei->json()["error_type"], "Validation");
}

TEST(TinyService, RanksTheRestWhenADocumentFails) {
  Service service({});
  service.set_reranker(
      rank::Reranker::load(rank::tiny_options(rank::damaged_checkpoint("serve_damaged", 'x'))),
      "files");
  // The first one's pass computes what all have in common too, which its NaN must not reach.
  for (const int damaged : {0, 1, 2}) {
    std::vector<std::string> texts = {"b", "c"};
    texts.insert(texts.begin() + damaged, "a x");
    Json call = direct(texts);
    call["query"] = "why " + std::to_string(damaged);  // nothing of it is there yet
    const Json json = post(service, call)->json();
    const Json list = json["results"];
    ASSERT_EQ(list.size(), 3u) << json;
    EXPECT_EQ(list[2]["index"], damaged);
    EXPECT_EQ(list[2]["relevance_score"], 0.0);
    EXPECT_EQ(list[2]["error"]["kind"], "not_finite");
    EXPECT_THAT(list[2]["error"]["message"].get<std::string>(),
                HasSubstr("document " + std::to_string(damaged) + ": "));
    EXPECT_FALSE(list[0].contains("error"));
    EXPECT_FALSE(list[1].contains("error"));
  }
  // When nothing is left to rank, that is told.
  const Asked all = post(service, direct({"x"}));
  EXPECT_EQ(all->reply().status, 500);
  EXPECT_THAT(all->json()["message"].get<std::string>(), HasSubstr("document 0: "));
}

TEST(TinyService, TellsOfAnInstructionWithoutRoom) {
  Service service({});
  service.set_reranker(tiny(), "files");
  Json body = direct();
  body["instruction"] = std::string(100000, 'x');
  const Asked asked = post(service, body);
  EXPECT_EQ(asked->reply().status, 422);
  EXPECT_EQ(asked->json()["error"]["type"], "invalid_request_error");
}

TEST(TinyService, HasDefaultsOfItsOwnWhichACallOverrides) {
  rank::RerankerOptions options = rank::tiny_options(rank::chain_checkpoint(
      "serve_defaults", {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}}));  // reasons without an end
  options.mode = Mode::kThink;
  options.max_think_tokens = 7;
  options.score = rank::ScoreKind::kExpected;
  options.instruction = "Given an order, the part.";
  Service service({.default_deadline_ms = 50000});
  service.set_reranker(rank::Reranker::load(options), "files");
  const Json info = get(service, "/info");
  EXPECT_EQ(info["default_mode"], "think");
  EXPECT_EQ(info["default_max_think_tokens"], 7);
  EXPECT_EQ(info["default_score"], "expected");
  EXPECT_EQ(info["default_instruction"], "Given an order, the part.");
  EXPECT_EQ(info["default_deadline_ms"], 50000);
  Json body = {{"query", "q"}, {"documents", {"a"}}, {"stream", true}};
  const auto events = [&] { return post(service, body)->events(); };
  EXPECT_EQ(events().back().second["results"][0]["new_tokens"], 7);
  EXPECT_EQ(events().front().second["total"], 2);  // with a deadline a direct score comes first
  const Json by_default = events().back().second["results"];
  body["instruction"] = "Given an order, the part.";
  body["score"] = "expected";
  body["max_think_tokens"] = 7;
  EXPECT_EQ(events().back().second["results"], by_default);
  body["max_think_tokens"] = 5;
  EXPECT_EQ(events().back().second["results"][0]["new_tokens"], 5);
  body["mode"] = "direct";
  EXPECT_EQ(events().back().second["results"][0]["new_tokens"], 0);
  const Json direct_score = events().back().second["results"][0]["score"];
  body["score"] = "integer";
  EXPECT_NE(events().back().second["results"][0]["score"], direct_score);
}

TEST(TinyService, AnswersByItsDefaultDeadline) {
  Service service({.default_deadline_ms = 1500});
  service.set_reranker(endless(), "files");
  const Json late = post(service, slow())->json();
  ASSERT_EQ(late["results"].size(), 400u);
  EXPECT_THAT(late["results"][399]["flags"].get<std::vector<std::string>>(), Contains("deadline"));
  Json body = slow(5, "short", 2);
  body["deadline_ms"] = 50000;
  const Json in_time = post(service, body)->json();
  ASSERT_EQ(in_time["results"].size(), 2u);
  for (const Json& item : in_time["results"])
    EXPECT_EQ(item["flags"].dump().find("deadline"), std::string::npos) << item;
}

TEST(TinyService, AnswersWithATimeOut) {
  Service service({.request_timeout_ms = 300});
  service.set_reranker(endless(), "files");
  const Asked asked = post(service, slow());
  EXPECT_EQ(asked->reply().status, 504);
  EXPECT_EQ(asked->json()["error"]["type"], "timeout_error");
  while (service.stats().queued_pairs > 0) std::this_thread::sleep_for(milliseconds(5));
}

TEST(TinyService, FreesTheWorkOfAClientThatLeaves) {
  Service service({});
  const auto reranker = endless();
  service.set_reranker(reranker, "files");
  const Asked asked = post(service, slow());
  asked->leave();
  const auto began = std::chrono::steady_clock::now();
  while (service.stats().queued_pairs > 0 || !service.idle())
    std::this_thread::sleep_for(milliseconds(5));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10));
  EXPECT_EQ(reranker->stats().engine.num_cancelled, 400);
  EXPECT_FALSE(asked->wait(milliseconds(0)));
  EXPECT_EQ(post(service, direct())->reply().status, 200);
}

TEST(TinyService, ComputesAPairOnceForAll) {
  Service service({});
  const auto reranker = tiny();
  service.set_reranker(reranker, "files");
  const Json first = post(service, direct())->json();
  const auto computed = reranker->stats().engine.num_done;
  Json again = post(service, direct())->json();
  EXPECT_EQ(again["results"], first["results"]);
  EXPECT_EQ(reranker->stats().engine.num_done, computed);
  EXPECT_EQ(settled(service).cache_hits, 4);
  // The same text twice is one pair, in its own places.
  const Json twice = post(service, direct({"new text", "new text", "Bread rises."}))->json();
  EXPECT_EQ(reranker->stats().engine.num_done, computed + 1);
  std::vector<double> by_index(3);
  for (const Json& item : twice["results"])
    by_index[item["index"].get<size_t>()] = item["score"].get<double>();
  EXPECT_EQ(by_index[0], by_index[1]);
  // Whatever changes the score is another pair.
  Json other = direct();
  other["instruction"] = "Be strict.";
  post(service, other)->reply();
  EXPECT_EQ(reranker->stats().engine.num_done, computed + 5);
}

TEST(TinyService, HasTheResultsOfItsFileAfterAStart) {
  const TestFolder folder;
  const ServiceOptions options{.cache_file = folder.path("results.db")};
  Json first;
  {
    Service service(options);
    service.set_reranker(tiny(), "files");
    first = post(service, direct())->json();
  }
  const auto reranker = tiny();
  Service service(options);
  service.set_reranker(reranker, "files");
  EXPECT_EQ(post(service, direct())->json()["results"], first["results"]);
  EXPECT_EQ(reranker->stats().engine.num_done, 0);
  Service other({});
  other.set_reranker(tiny(2), "other files");
  EXPECT_NE(post(other, direct())->json()["results"], first["results"]);
}

TEST(TinyService, LetsCallsShareWhatIsBeingComputed) {
  Service service({});
  const auto reranker = endless();
  service.set_reranker(reranker, "files");
  const Asked first = post(service, slow(400, "shared", 2));
  first->wait_for_start();
  const Asked second = post(service, slow(400, "shared", 2));
  second->wait_for_start();
  first->leave();  // the other one still waits
  const Json json = second->json();
  EXPECT_EQ(second->reply().status, 200);
  for (const Json& item : json["results"]) EXPECT_EQ(item["new_tokens"], 400);
  EXPECT_EQ(reranker->stats().engine.num_done, 2);
  EXPECT_EQ(reranker->stats().engine.num_cancelled, 0);
}

TEST(TinyService, AnswersOthersBeforeTheTokensOfALongCallAreMade) {
  Service service({});
  const auto reranker = endless();
  service.set_reranker(reranker, "files");
  EXPECT_EQ(post(service, direct())->reply().status, 200);
  Json body = slow(4000, "long", 1000);
  for (Json& document : body["documents"])
    document = document.get<std::string>() + std::string(16000, 'x');
  const Asked large = post(service, body);
  EXPECT_EQ(post(service, direct())->reply().status, 200);  // known
  const auto stats = reranker->stats();
  EXPECT_LT(stats.queued_pairs + stats.engine.num_done, 500);
  large->leave();
  while (service.stats().queued_pairs > 0) std::this_thread::sleep_for(milliseconds(5));
}

TEST(TinyService, AnswersASmallCallLongBeforeALargeOneThatCameFirst) {
  Service service({});
  const auto reranker = tiny();
  service.set_reranker(reranker, "files");
  std::vector<std::string> texts;
  for (int i = 0; i < 500; ++i) texts.push_back(std::to_string(i) + std::string(500, 'x'));
  const Asked large = post(service, direct(texts));
  large->wait_for_start();
  EXPECT_EQ(post(service, direct({"one"}))->reply().status, 200);
  EXPECT_LT(reranker->stats().engine.num_done, 250);
  EXPECT_FALSE(large->wait(milliseconds(0)));
  EXPECT_EQ(large->json()["results"].size(), 500u);
}

// As a client's library does that has waited long enough.
TEST(TinyService, HasTheFinishedPairsOfACallWhoseClientAsksAgain) {
  Service service({});
  const auto reranker = tiny();
  service.set_reranker(reranker, "files");
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) texts.push_back(std::to_string(i) + std::string(500, 'x'));
  const Asked first = post(service, direct(texts));
  while (reranker->stats().engine.num_done < 10) std::this_thread::sleep_for(milliseconds(1));
  first->leave();
  while (service.stats().queued_pairs > 0) std::this_thread::sleep_for(milliseconds(1));
  const Json again = post(service, direct(texts))->json();
  EXPECT_EQ(again["results"].size(), 100u);
  for (const Json& item : again["results"]) EXPECT_FALSE(item.contains("error"));
  const auto stats = settled(service);
  EXPECT_GT(stats.reranker.engine.num_cancelled, 0);
  EXPECT_EQ(stats.reranker.engine.num_done, 100);
  EXPECT_GE(stats.cache_hits, 10);
}

TEST(TinyService, RefusesWhatWouldWaitTooLong) {
  Service service({.max_queued_pairs = 66});
  service.set_reranker(endless(), "files");
  const Asked running = post(service, slow(4000, "slow", 64));
  running->wait_for_start();
  const Asked refused = post(service, direct());
  EXPECT_EQ(refused->reply().status, 429);
  EXPECT_EQ(refused->json()["error"]["type"], "rate_limit_error");
  const auto& headers = refused->reply().headers;
  ASSERT_EQ(headers.size(), 1u);
  EXPECT_EQ(headers[0].first, "Retry-After");
  EXPECT_GE(std::stoi(headers[0].second), 1);
  EXPECT_LE(std::stoi(headers[0].second), 60);
  EXPECT_EQ(post(service, direct({"one"}))->reply().status, 200);  // there is room for it
  running->leave();
  while (service.stats().queued_pairs > 0) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(post(service, direct())->reply().status, 200);  // alone it may be larger
}

TEST(TinyService, BoundsTheTextsOfWhatItAnswers) {
  Service service({.max_running_bytes = 200000});
  service.set_reranker(endless(), "files");
  Json body = slow(4000, "same", 4);
  body["documents"][0] = std::string(120000, 'x');
  const Asked running = post(service, body);
  running->wait_for_start();
  const Asked refused = post(service, body);  // computes nothing more
  EXPECT_EQ(refused->reply().status, 429);
  EXPECT_THAT(refused->json()["message"].get<std::string>(), HasSubstr("at most 200000 together"));
  EXPECT_EQ(refused->reply().headers.at(0).first, "Retry-After");
  body["texts"] = body["documents"];
  body.erase("documents");
  EXPECT_EQ(post(service, body)->json()["error_type"], "Overloaded");
  EXPECT_EQ(post(service, direct())->reply().status, 200);
  running->leave();
  settled(service);
  Json large = direct({std::string(240000, 'y')});
  EXPECT_EQ(post(service, large)->reply().status, 200);  // alone it may be larger
}

TEST(TinyService, CountsReasoningThatIsToComeBeforeItLetsACallIn) {
  Service service({.max_queued_pairs = 66});
  service.set_reranker(endless(), "files");
  EXPECT_EQ(post(service, direct())->reply().status, 200);  // its direct scores are there now
  const Asked running = post(service, slow(4000, "slow", 64));
  running->wait_for_start();
  Json body = direct();
  body["explain_top"] = 4;
  EXPECT_EQ(post(service, body)->reply().status, 429);
  running->leave();
}

TEST(TinyService, LetsInWhatIsThereAlready) {
  Service service({.max_queued_pairs = 66});
  service.set_reranker(endless(), "files");
  Json body = direct();
  body["query"] = {"why is the sky blue", "how does bread rise"};
  body["explain_top"] = 2;
  body["max_think_tokens"] = 5;
  const Json first = post(service, body)->json();
  const Asked running = post(service, slow(4000, "slow", 66));
  running->wait_for_start();
  const Asked again = post(service, body);
  EXPECT_EQ(again->reply().status, 200);
  EXPECT_EQ(again->json()["rankings"], first["rankings"]);
  body["explain_top"] = 3;  // one of each query is not there
  EXPECT_EQ(post(service, body)->reply().status, 429);
  running->leave();
}

TEST(TinyService, RefusesCallsBeyondItsQueue) {
  std::promise<void> busy, asked_all;
  bool first = true;
  Service service({.max_waiting_calls = 2}, {.on_pair = [&](const rank::PassageResult&, bool) {
                    if (std::exchange(first, false))
                      busy.set_value(), asked_all.get_future().wait();
                  }});
  service.set_reranker(tiny(), "files");
  std::vector<Asked> asked = {post(service, direct())};
  busy.get_future().wait();  // with the first one's pair: its thread reads no other call
  for (int i = 0; i < 49; ++i) asked.push_back(post(service, direct()));
  asked_all.set_value();
  int refused = 0;
  for (const auto& client : asked) {
    EXPECT_TRUE(client->reply().status == 200 || client->reply().status == 429);
    refused += client->reply().status == 429;
  }
  EXPECT_EQ(refused, 47);
}

TEST(TinyService, DrainsAndEnds) {
  Asked running, waiting, late;
  {
    Service service({});
    service.set_reranker(endless(), "files");
    running = post(service, slow());
    running->wait_for_start();
    EXPECT_FALSE(service.idle());
    service.drain();
    EXPECT_EQ(post(service, direct())->reply().status, 503);
    EXPECT_EQ(ask(service, "GET", "/ready")->reply().status, 503);
    EXPECT_EQ(ask(service, "GET", "/health")->reply().status, 200);
    EXPECT_FALSE(running->wait(milliseconds(0)));
    service.cancel_all();
    EXPECT_EQ(running->reply().status, 503);
    settled(service);
  }
  {
    Service service({});
    service.set_reranker(endless(), "files");
    late = post(service, slow());
    waiting = post(service, slow(4000, "other"));
  }
  EXPECT_EQ(late->reply().status, 503);
  EXPECT_EQ(waiting->reply().status, 503);
}

TEST(TinyService, TellsItsHooks) {
  std::mutex mutex;
  int computed = 0, known = 0;
  std::vector<ServiceHooks::Call> calls;
  Service service({}, {.on_pair =
                           [&](const rank::PassageResult&, bool now) {
                             const std::lock_guard lock(mutex);
                             ++(now ? computed : known);
                           },
                       .on_call =
                           [&](const ServiceHooks::Call& call) {
                             const std::lock_guard lock(mutex);
                             calls.push_back(call);
                           }});
  service.set_reranker(tiny(), "files");
  post(service, direct())->reply();
  post(service, direct())->reply();
  settled(service);
  const std::lock_guard lock(mutex);
  EXPECT_EQ(computed, 4);
  EXPECT_EQ(known, 4);
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].pairs, 4);
  EXPECT_EQ(calls[0].status, 200);
  EXPECT_GT(calls[0].seconds, 0);
  EXPECT_LE(calls[0].first_seconds, calls[0].seconds);
}

TEST(TinyService, ServesManyClientsAtOnce) {
  Service service({});
  service.set_reranker(tiny(), "files");
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        Json body = direct({"text " + std::to_string(i), "own " + std::to_string(t), "shared"});
        body["stream"] = i % 3 == 0;
        const Asked asked = post(service, body);
        if (i % 5 == 4) {
          asked->leave();
          continue;
        }
        if (i % 3 == 0)
          good += asked->events().back().first == "ranking";
        else
          good += asked->reply().status == 200;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 64);
  settled(service);
}
}  // namespace
}  // namespace erank::serve
