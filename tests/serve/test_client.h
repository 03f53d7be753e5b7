// A client without a socket, and calls for the tests of the service.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "erank/base/json.h"
#include "erank/serve/service.h"
#include "tests/rank/tiny_checkpoint.h"

namespace erank::serve {

using base::Json;
using std::chrono::milliseconds;

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
  void end_events(int status) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(streams_ && !ended_);
    reply_.status = status;
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
  // Waits until the service has begun with it, and leaves. What is answered at once has nobody to
  // tell.
  void leave() {
    std::function<void()> left;
    {
      std::unique_lock lock(mutex_);
      ASSERT_TRUE(news_.wait_for(lock, milliseconds(60000), [&] { return left_ || ended_; }));
      left = left_;
    }
    if (left) left();
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

inline Asked ask(Service& service, const std::string& method, const std::string& path,
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
inline Asked post(Service& service, const Json& body, const std::string& path = "/v1/rerank") {
  return ask(service, "POST", path, base::dump_json(body));
}
inline Json get(Service& service, const std::string& path) {
  return ask(service, "GET", path)->json();
}

// Its counts are right once it has nothing to do.
inline ServiceStats settled(const Service& service) {
  while (!service.idle()) std::this_thread::sleep_for(milliseconds(1));
  return service.stats();
}

inline std::shared_ptr<rank::Reranker> tiny(uint64_t seed = 1) {
  return rank::Reranker::load(
      rank::tiny_options(rank::random_checkpoint("serve" + std::to_string(seed), seed)));
}

inline const std::vector<std::string> kTexts = {
    "Light is scattered by the molecules of the air.", "Bread rises.", "",
    "Short waves are scattered far more than long ones, which is why the sky is blue."};

inline Json direct(const std::vector<std::string>& texts = kTexts) {
  return {{"query", "why is the sky blue"}, {"documents", texts}, {"mode", "direct"}};
}
// Takes long: the model of endless() writes hundreds of tokens for each of many documents.
inline Json slow(int tokens = 4000, const std::string& query = "slow", int documents = 400) {
  Json body = {{"query", query}, {"mode", "think"}, {"max_think_tokens", tokens}};
  for (int i = 0; i < documents; ++i) body["documents"].push_back(std::to_string(i));
  return body;
}

// Chains without an end: the reasoning is as long as it may be.
inline std::shared_ptr<rank::Reranker> endless() {
  return rank::Reranker::load(rank::tiny_options(
      rank::chain_checkpoint("serve_endless", {{'\n', 'a'}, {'a', 'b'}, {'b', 'a'}})));
}

}  // namespace erank::serve
