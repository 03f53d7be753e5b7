#include "erank/serve/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "erank/base/json.h"
#include "erank/rank/result_json.h"
#include "tests/rank/tiny_checkpoint.h"

namespace erank::serve {
namespace {

using base::Json;
using rank::Mode;
using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A client: keeps what it gets.
class Client : public Responder {
 public:
  void send(HttpReply reply) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_ || streams_) << "answered twice";
    reply_ = std::move(reply);
    ended_ = true;
    news_.notify_all();
  }
  void begin_events(Headers) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_ || streams_) << "answered twice";
    streams_ = true;
  }
  bool event(std::string_view name, std::string_view data) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(streams_ && !ended_);
    events_.emplace_back(name, Json::parse(data));
    news_.notify_all();
    return true;
  }
  void end_events() override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(streams_ && !ended_);
    ended_ = true;
    news_.notify_all();
  }
  void on_client_left(std::function<void()> left) override {
    const std::lock_guard lock(mutex_);
    left_ = std::move(left);
    news_.notify_all();
  }

  bool wait(milliseconds time = milliseconds(60000)) {
    std::unique_lock lock(mutex_);
    return news_.wait_for(lock, time, [&] { return ended_; });
  }
  // Waits until the service has begun with it, and leaves.
  void leave() {
    std::function<void()> left;
    {
      std::unique_lock lock(mutex_);
      ASSERT_TRUE(news_.wait_for(lock, milliseconds(60000), [&] { return left_ != nullptr; }));
      left = left_;
    }
    left();
  }
  void wait_for_start() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(news_.wait_for(lock, milliseconds(60000), [&] { return left_ != nullptr; }));
  }
  const HttpReply& reply() {
    EXPECT_TRUE(wait()) << "no answer";
    return reply_;
  }
  Json json() { return Json::parse(reply().body); }
  std::vector<std::pair<std::string, Json>> events() {
    EXPECT_TRUE(wait()) << "no end";
    return events_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable news_;
  bool ended_ = false, streams_ = false;
  HttpReply reply_;
  std::vector<std::pair<std::string, Json>> events_;
  std::function<void()> left_;
};

using Asked = std::shared_ptr<Client>;

Asked ask(Service& service, const std::string& method, const std::string& path,
          const std::string& body = "") {
  auto client = std::make_shared<Client>();
  service.handle({.method = method,
                  .path = path,
                  .query = {},
                  .headers = {},
                  .body = body,
                  .id = "r-1",
                  .peer = "here"},
                 client);
  return client;
}
Asked post(Service& service, const Json& body, const std::string& path = "/v1/rerank") {
  return ask(service, "POST", path, base::dump_json(body));
}
Json get(Service& service, const std::string& path) { return ask(service, "GET", path)->json(); }

// Its counts are right once it has nothing to do.
ServiceStats settled(const Service& service) {
  while (!service.idle()) std::this_thread::sleep_for(milliseconds(1));
  return service.stats();
}

std::shared_ptr<rank::Reranker> tiny(uint64_t seed = 1) {
  return rank::Reranker::load(
      rank::tiny_options(rank::random_checkpoint("serve" + std::to_string(seed), seed)));
}

const std::vector<std::string> kTexts = {
    "Light is scattered by the molecules of the air.", "Bread rises.", "",
    "Short waves are scattered far more than long ones, which is why the sky is blue."};

Json direct(const std::vector<std::string>& texts = kTexts) {
  return {{"query", "why is the sky blue"}, {"documents", texts}, {"mode", "direct"}};
}
// Takes long: the model of endless() writes hundreds of tokens for each of many documents.
Json slow(int tokens = 4000, const std::string& query = "slow", int documents = 400) {
  Json body = {{"query", query}, {"mode", "think"}, {"max_think_tokens", tokens}};
  for (int i = 0; i < documents; ++i) body["documents"].push_back(std::to_string(i));
  return body;
}

// Chains without an end: the reasoning is as long as it may be.
std::shared_ptr<rank::Reranker> endless() {
  return rank::Reranker::load(rank::tiny_options(
      rank::chain_checkpoint("serve_endless", {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}})));
}

template <typename T = double>
std::vector<T> column(const Json& list, const char* key) {
  std::vector<T> values;
  for (const Json& item : list) values.push_back(item.at(key).get<T>());
  return values;
}

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
  EXPECT_EQ(info["scale"], "0-10");
  EXPECT_EQ(info["modes"], Json({"direct", "think"}));
  EXPECT_EQ(info["instructions"], Json::parse(R"([{"name": "plain", "text": "Given a query."}])"));
  EXPECT_EQ(info["version"], "1.2.3");
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
  EXPECT_THAT(wrong->reply().headers, Contains(Headers::value_type{"Allow", "POST"}));
  const Asked also_wrong = ask(service, "POST", "/health");
  EXPECT_EQ(also_wrong->reply().status, 405);
  EXPECT_THAT(also_wrong->reply().headers, Contains(Headers::value_type{"Allow", "GET, HEAD"}));
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
  const Json json = post(service, direct({"b", "c", "a x"}))->json();
  const Json list = json["results"];
  ASSERT_EQ(list.size(), 3u) << json;
  EXPECT_EQ(list[2]["index"], 2);
  EXPECT_EQ(list[2]["relevance_score"], 0.0);
  EXPECT_EQ(list[2]["error"]["kind"], "not_finite");
  EXPECT_THAT(list[2]["error"]["message"].get<std::string>(), HasSubstr("document 2: "));
  EXPECT_FALSE(list[0].contains("error"));
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

TEST(TinyService, StreamsResultsThenTheRanking) {
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

TEST(TinyService, EndsAStreamWithItsError) {
  Service service({});
  service.set_reranker(
      rank::Reranker::load(rank::tiny_options(rank::damaged_checkpoint("serve_stream", 'x'))),
      "files");
  Json body = direct({"x"});
  body["stream"] = true;
  const auto events = post(service, body)->events();
  EXPECT_EQ(events.back().first, "error");
  EXPECT_EQ(events.back().second["error"]["code"], 500);
  // What is wrong from the start is an ordinary answer.
  body["top_n"] = -1;
  EXPECT_EQ(post(service, body)->reply().status, 400);
}

TEST(TinyService, TellsOfProgressWhileTheModelThinks) {
  Service service({});
  service.set_reranker(endless(), "files");
  Json body = slow();
  body["stream"] = true;
  body["deadline_ms"] = 2600;
  const auto events = post(service, body)->events();
  int progress = 0;
  for (const auto& [name, data] : events)
    if (name == "progress") {
      ++progress;
      EXPECT_EQ(data["total"], 800);  // each directly, then with reasoning
      EXPECT_LE(data["done"], 800);
    }
  EXPECT_GE(progress, 2);
  EXPECT_LE(progress, 13);
}

TEST(TinyService, ExplainsTheBestAlone) {
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

TEST(TinyService, KnowsTheDirectScoresAtTheDeadline) {
  Service service({});
  const auto reranker = endless();
  service.set_reranker(reranker, "files");
  Json body = slow(4000, "late");
  body["deadline_ms"] = 1200;
  const auto began = std::chrono::steady_clock::now();
  const Json late = post(service, body)->json();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
  body.erase("deadline_ms");
  body["mode"] = "direct";
  const Json direct_scores = post(service, body)->json();
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

TEST(TinyService, ReturnsEveryIndexWhenNothingIsKnownAtTheDeadline) {
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

TEST(TinyService, KeepsNoDeadlineFlagWhereThereWasTime) {
  Service service({});
  service.set_reranker(endless(), "files");
  Json body = slow(5, "short", 2);
  body["deadline_ms"] = 50000;
  for (const Json& item : post(service, body)->json()["results"]) {
    EXPECT_EQ(item["new_tokens"], 5);
    EXPECT_TRUE(item["flags"].empty()) << item["flags"];
  }
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

TEST(TinyService, RefusesCallsBeyondItsQueue) {
  Service service({.max_waiting_calls = 2});
  service.set_reranker(tiny(), "files");
  std::vector<Asked> asked;
  Json body = direct(std::vector<std::string>(100, std::string(5000, 'x')));
  for (int i = 0; i < 50; ++i) asked.push_back(post(service, body));
  int refused = 0;
  for (const auto& client : asked) {
    EXPECT_TRUE(client->reply().status == 200 || client->reply().status == 429);
    refused += client->reply().status == 429;
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 50);
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
