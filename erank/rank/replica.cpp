#include "erank/rank/replica.h"

#include <algorithm>
#include <utility>

#include "erank/base/error.h"

namespace erank::rank {
namespace {

using base::ErrorKind;
using Job = Ticket::Job;

PassageError::Kind error_kind(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidInput:
      return PassageError::Kind::kTooLong;  // all else that the engine refuses we never ask
    case ErrorKind::kExhausted:
      return PassageError::Kind::kNoRoom;
    case ErrorKind::kCorrupt:
      return PassageError::Kind::kNotFinite;
    case ErrorKind::kNotFound:
      break;
  }
  return PassageError::Kind::kFailed;
}

std::string located(const RankRequest& request, size_t index, const std::string& what) {
  return base::str("[rerank] query ", request.qid, ", document ", request.passages[index].id, ": ",
                   what);
}

// The engine's fault as that of the pair that it belongs to.
PassageError error_of(const std::exception_ptr& fault, const RankRequest& request, size_t index) {
  try {
    std::rethrow_exception(fault);
  } catch (const base::Error& e) {
    const auto kind = error_kind(e.kind());
    const char* advice =
        kind == PassageError::Kind::kTooLong ? ": --instruction leaves no room" : "";
    return {kind, located(request, index, base::str(e.what(), advice))};
  } catch (const std::exception& e) {
    const std::string what = e.what();  // libtorch puts a backtrace after the first line
    return {PassageError::Kind::kFailed, located(request, index, what.substr(0, what.find('\n')))};
  } catch (...) {
    return {PassageError::Kind::kFailed, located(request, index, "unknown fault")};
  }
}

// Windows are answered in any order.
void keep_best(PassageResult& best, PassageResult answer) {
  const int64_t prompt = best.prompt_tokens + answer.prompt_tokens;
  const int64_t cached = best.cached_tokens + answer.cached_tokens;
  const int64_t written = best.new_tokens + answer.new_tokens;
  if (!best.window || answer.score > best.score ||
      (answer.score == best.score && answer.window->number < best.window->number))
    best = std::move(answer);
  best.prompt_tokens = prompt, best.cached_tokens = cached, best.new_tokens = written;
}

// So are samples.
void keep_sample(Job& job, const Job::Pair& pair, PassageResult answer, int sample) {
  pair.samples->emplace(sample, std::move(answer));
  if (std::ssize(*pair.samples) < job.request.options.samples) return;
  std::vector<PassageResult> all;
  for (auto& [number, one] : *pair.samples) all.push_back(std::move(one));
  keep_best(job.results[pair.blank.index], mean_of_samples(std::move(all)));
}

}  // namespace

Replica::~Replica() {
  if (thread_.joinable()) thread_.join();
}

std::future<Replica::Loaded> Replica::start(MakeNetwork make,
                                            const engine::EngineOptions& options) {
  std::promise<Loaded> ready;
  auto loaded = ready.get_future();
  thread_ =
      std::thread([this, make = std::move(make), options, ready = std::move(ready)]() mutable {
        run(std::move(make), options, std::move(ready));
      });
  return loaded;
}

void Replica::add(std::shared_ptr<Job> job) {
  num_pending_ += std::ssize(job->results);
  queue_.push_back(std::move(job));
}

void Replica::run(MakeNetwork make, const engine::EngineOptions& options,
                  std::promise<Loaded> ready) {
  std::unique_ptr<model::Network> network;
  std::unique_ptr<engine::Engine> engine;
  try {
    network = std::exchange(make, nullptr)();
    engine = std::make_unique<engine::Engine>(*network, options);
  } catch (...) {
    return ready.set_exception(std::current_exception());
  }
  ready.set_value({network->precision(), network->config().context()});
  std::string fault;
  try {
    while (serve(*engine)) {
    }
  } catch (const std::exception& e) {  // a mistake of ours: nothing that it knows can be trusted
    fault = base::str("the reranker has stopped: ", e.what());
  }
  fail_all(fault);
}

// Takes what has come and makes one step. False: to stop.
bool Replica::serve(engine::Engine& engine) {
  std::deque<std::shared_ptr<Job>> arrived;
  decltype(cancels_) cancelled;
  {
    std::unique_lock lock(group_.mutex);
    stats_ = engine.stats();
    if (stats_.num_waiting + stats_.num_running == 0)
      group_.work.wait(lock,
                       [&] { return group_.stopping || !cancels_.empty() || !queue_.empty(); });
    if (group_.stopping) return false;
    arrived.swap(queue_);
    cancelled.swap(cancels_);
  }
  for (auto& job : arrived) {
    active_.push_back(job);
    begin(engine, job);
  }
  for (const auto& [job, passage] : cancelled)
    for (size_t i = 0; i < job->numbers.size(); ++i)
      if (!passage || i == *passage)
        for (const int64_t number : job->numbers[i]) engine.cancel(number);
  engine.step();
  std::erase_if(active_, [](const auto& job) { return job->num_left == 0; });
  return true;
}

void Replica::begin(engine::Engine& engine, const std::shared_ptr<Job>& job) {
  if (job->pairs.empty()) return end(*job);
  job->numbers.resize(job->results.size());
  for (auto& pair : job->pairs) {
    auto request = std::move(pair.request);
    auto& numbers = job->numbers[pair.blank.index];
    numbers.push_back(engine.submit(
        std::move(request),
        [this, &engine, job, pair = std::move(pair)](const engine::Completion& completion) {
          {
            const std::lock_guard lock(group_.mutex);
            stats_ = engine.stats();
          }
          take(*job, pair, completion);
        }));
  }
  job->pairs = {};
}

void Replica::take(Job& job, const Job::Pair& pair, const engine::Completion& completion) {
  const size_t index = pair.blank.index;
  if (job.pairs_left[index] == 0) return;
  PassageResult& result = job.results[index];
  const auto fail = [&](PassageError error) {
    result = pair.blank;
    result.window.reset();
    result.error = std::move(error);
  };
  if (completion.fault)
    fail(error_of(completion.fault, job.request, index));
  else if (completion.finish == engine::Finish::kCancelled)
    fail({PassageError::Kind::kCancelled, located(job.request, index, "cancelled")});
  else if (!result.error)
    keep_sample(job, pair, read(pair, completion, *job.request.options.score), completion.sample);
  if (job.pairs_left[index] == 1)
    hand_on(job, index);
  else
    --job.pairs_left[index];
}

PassageResult Replica::read(const Job::Pair& pair, const engine::Completion& completion,
                            ScoreKind kind) const {
  PassageResult r = pair.blank;
  r.distribution = reader_.read(completion);
  r.integer = r.distribution.greedy();
  r.probability = r.distribution.p[r.integer];
  r.score = score_of(r.distribution, kind);
  if (1 - r.distribution.p_other < kLowAnswerMass) r.flags.push_back("low_answer_mass");
  r.prompt_tokens = completion.prompt_tokens;
  r.cached_tokens = completion.cached_tokens;
  r.new_tokens = static_cast<int64_t>(completion.new_tokens.size());
  if (!pair.watchers.empty()) {
    const AnswerWatcher& watcher = *pair.watchers.at(static_cast<size_t>(completion.sample));
    r.reasoning = watcher.reasoning(completion.new_tokens.size());
    if (!watcher.answered()) {
      r.finish = completion.finish == engine::Finish::kContext ? Finish::kClipped : Finish::kForced;
      if (completion.finish == engine::Finish::kStopped) r.flags.push_back("unformatted");
    }
  }
  return r;
}

void Replica::hand_on(Job& job, size_t index) {
  job.pairs_left[index] = 0;
  {
    const std::lock_guard lock(group_.mutex);
    --group_.num_pending;
    --num_pending_;
  }
  call_back(job, [&] {
    if (job.callbacks.on_result) job.callbacks.on_result(job.results[index]);
  });
  if (--job.num_left == 0) end(job);
}

// What a callback throws is its request's end: what is left is cancelled without further calls.
void Replica::call_back(Job& job, const std::function<void()>& call) {
  if (job.fault) return;
  try {
    const std::lock_guard one_at_a_time(group_.calling);
    call();
  } catch (...) {
    job.fault = std::current_exception();
    const std::lock_guard lock(group_.mutex);
    cancel(job.shared_from_this(), std::nullopt);
  }
}

void Replica::end(Job& job) {
  if (std::exchange(job.ended, true)) return;
  try {
    Ranking ranking = make_ranking(job.request.qid, std::move(job.results), job.request.options);
    call_back(job, [&] {
      if (job.callbacks.on_done) job.callbacks.on_done(ranking);
    });
    if (job.fault) std::rethrow_exception(job.fault);
    job.promise.set_value(std::move(ranking));
  } catch (...) {
    job.promise.set_exception(std::current_exception());
  }
}

void Replica::fail_rest(Job& job, const std::string& why) {
  for (size_t i = 0; i < job.pairs_left.size(); ++i) {
    if (job.pairs_left[i] == 0) continue;
    job.results[i].error = {PassageError::Kind::kCancelled, located(job.request, i, why)};
    hand_on(job, i);
  }
}

// `fault`: "" when the group was asked to stop, or another replica has made it stop.
void Replica::fail_all(const std::string& fault) {
  std::string why;
  {
    const std::lock_guard lock(group_.mutex);
    group_.stopping = true;
    if (group_.fault.empty()) group_.fault = fault;
    why = group_.fault.empty() ? "the reranker has stopped" : group_.fault;
    active_.insert(active_.end(), queue_.begin(), queue_.end());
    queue_.clear();
  }
  group_.work.notify_all();
  for (const auto& job : active_) {
    if (job->pairs_left.empty())
      end(*job);
    else
      fail_rest(*job, why);
  }
  active_.clear();
}

}  // namespace erank::rank
