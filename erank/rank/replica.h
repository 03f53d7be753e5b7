// An engine on its device, with the thread that runs it, and the requests that a reranker has given
// it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "erank/engine/engine.h"
#include "erank/model/network.h"
#include "erank/rank/answer_watcher.h"
#include "erank/rank/reranker.h"
#include "erank/rank/score_reader.h"

namespace erank::rank {

// A request, shared by its ticket and its replica's thread, which alone changes it once it is
// queued.
struct Ticket::Job : std::enable_shared_from_this<Ticket::Job> {
  // What the engine is asked: a passage, or a window of one.
  struct Pair {
    engine::Request request;
    std::vector<std::shared_ptr<AnswerWatcher>> watchers;  // by sample; none in direct mode
    std::shared_ptr<std::map<int, PassageResult>> samples =
        std::make_shared<std::map<int, PassageResult>>();  // those that are done
    PassageResult blank;  // what is known of its passage before, and its window
  };

  RankRequest request;
  Callbacks callbacks;
  std::promise<Ranking> promise;
  std::vector<PassageResult> results;  // by passage, as far as its pairs are done
  std::vector<int> pairs_left;         // by passage, each sample counts; 0: its result is handed on
  size_t num_left = 0;                 // passages
  bool ended = false;                  // the promise is kept
  std::vector<Pair> pairs;             // until the engine has them
  std::vector<std::vector<int64_t>> numbers;  // of the engine's requests, by passage
  std::exception_ptr fault;                   // what a callback threw
  // Tells its replica, if there still is one; without a passage of all.
  std::function<void(std::optional<size_t> passage)> cancel;
};

// What the replicas of a reranker have in common.
struct ReplicaGroup {
  std::mutex mutex;  // guards these, and of each replica what says so
  std::condition_variable work;
  bool stopping = false;
  int64_t num_pending = 0;  // pairs without an outcome
  std::string fault;        // as RerankerStats has it

  std::mutex calling;  // held while a callback runs: there is one at a time
};

class Replica {
 public:
  using MakeNetwork = std::function<std::unique_ptr<model::Network>()>;
  struct Loaded {
    model::Precision precision;
    int64_t context;  // tokens that the model reads
  };

  // Borrows both.
  Replica(ReplicaGroup& group, const ScoreReader& reader) : group_(group), reader_(reader) {}
  ~Replica();  // REQUIRES: the group is stopping, or start() was not called

  // Starts the thread, on which the network lives and dies. What `make` throws is the future's. A
  // mistake of ours outside a pass stops the whole group: all pairs fail, and the group says why.
  std::future<Loaded> start(MakeNetwork make, const engine::EngineOptions& options);

  // These REQUIRE the group's mutex. The thread sees what they change when `work` is notified.
  void add(std::shared_ptr<Ticket::Job> job);  // REQUIRES: the group is not stopping
  void cancel(std::shared_ptr<Ticket::Job> job, std::optional<size_t> passage) {
    cancels_.emplace_back(std::move(job), passage);
  }
  int64_t num_pending() const { return num_pending_; }  // as the group's
  const engine::EngineStats& stats() const { return stats_; }

 private:
  using Job = Ticket::Job;

  void run(MakeNetwork make, const engine::EngineOptions& options, std::promise<Loaded> ready);
  bool serve(engine::Engine& engine);
  void begin(engine::Engine& engine, const std::shared_ptr<Job>& job);
  void take(Job& job, const Job::Pair& pair, const engine::Completion& completion);
  PassageResult read(const Job::Pair& pair, const engine::Completion& completion,
                     ScoreKind kind) const;
  void hand_on(Job& job, size_t index);
  void call_back(Job& job, const std::function<void()>& call);
  void end(Job& job);
  void fail_rest(Job& job, const std::string& why);
  void fail_all(const std::string& fault);

  ReplicaGroup& group_;
  const ScoreReader& reader_;
  std::deque<std::shared_ptr<Job>> queue_;  // the group's mutex guards these
  std::vector<std::pair<std::shared_ptr<Job>, std::optional<size_t>>> cancels_;  // as Job::cancel
  int64_t num_pending_ = 0;
  engine::EngineStats stats_;
  std::vector<std::shared_ptr<Job>> active_;  // the thread's own: what is not done
  std::thread thread_;
};

}  // namespace erank::rank
