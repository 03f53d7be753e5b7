// One call from its first pair to its answer: stages, deadline, events. No threads: the service
// drives it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "erank/serve/api.h"
#include "erank/serve/cache.h"
#include "erank/serve/http.h"
#include "erank/serve/reply.h"
#include "erank/serve/service.h"

namespace erank::serve {

using Clock = std::chrono::steady_clock;

class RunningCall {
 public:
  struct Arrival {
    std::shared_ptr<Responder> responder;
    Clock::time_point came;
    int64_t timeout_ms = 0;  // 0: none
    int64_t body_bytes = 0;
  };
  // `number` is its name as a caller of the pool; pool, calibration and hooks must outlive it.
  RunningCall(uint64_t number, RerankCall call, ReplyContext context, Arrival arrival,
              PairPool& pool, const ServiceCalibration& calibration, const ServiceHooks& hooks);

  // Asks for the first stage's pairs. `refuse(missing)` throws ApiError when so many more pairs,
  // each sample counts, are too many. What it throws is for fail().
  void start(const std::function<void(int64_t missing)>& refuse);
  void take(PairPool::Answer answer);
  // Deadline, time-out, progress. next_tick() is when there is something to do.
  void tick(Clock::time_point now);
  Clock::time_point next_tick() const;
  // Ends it without a ranking.
  void fail(const ApiError& error);
  void abandon();  // the client has left

  bool ended() const { return ended_; }
  int64_t body_bytes() const { return arrival_.body_bytes; }

 private:
  struct Document {
    std::optional<rank::PassageResult> result;  // the best that is known
    bool final = false;
  };
  using Chosen = std::vector<std::vector<size_t>>;  // documents, by query
  using Keys = std::vector<std::vector<std::string>>;

  Keys keys_of(rank::Mode mode, const Chosen& chosen) const;
  int64_t samples_of(rank::Mode mode) const;  // of a pair
  // How many pairs, each sample counts, will have to be computed for reasoning. `keys` are of all
  // direct scores.
  int64_t num_later(const Chosen& all, const Keys& keys);
  std::vector<PairPool::Answer> ask(rank::Mode mode, const Chosen& chosen, const Keys& keys);
  void receive(std::vector<PairPool::Answer> answers);
  void end_stage();
  std::vector<size_t> best(size_t query) const;  // those that are reasoned about
  void add_first_stage(size_t query, rank::PassageResult& result) const;  // its score, if any
  void add_relevance(rank::PassageResult& result) const;                  // likewise, of this stage
  // `late`: what is not final has missed the deadline.
  rank::Ranking ranking_of(size_t query, bool late) const;
  void finish();
  void end(int status);
  void send_progress(Clock::time_point now);
  void event(const char* name, const base::OrderedJson& data);

  uint64_t number_;
  RerankCall call_;
  ReplyContext context_;
  Arrival arrival_;
  PairPool* pool_;
  const ServiceCalibration* calibration_;
  const ServiceHooks* hooks_;
  std::vector<std::vector<Document>> documents_;  // by query
  bool two_stages_ = false;
  bool first_stage_ = true;
  bool ended_ = false;
  bool streams_ = false;  // events have begun
  size_t pending_ = 0;    // of the stage
  int64_t done_ = 0, total_ = 0, tokens_ = 0;
  std::optional<Clock::time_point> deadline_, timeout_, first_;
  Clock::time_point last_progress_;
};

}  // namespace erank::serve
