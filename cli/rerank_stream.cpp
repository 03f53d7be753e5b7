#include "cli/rerank_stream.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "cli/output.h"
#include "erank/data/records.h"

namespace erank::cli {
namespace {

constexpr const char* kStdin = "-";

// A query without candidates takes memory as well.
int64_t size_of(const RerankJob& job) { return std::max<int64_t>(1, std::ssize(job.passages)); }

}  // namespace

struct RerankStream::State {
  RerankInput input;
  int64_t most_pairs = 0;
  RerankCheck check;
  data::ReadNotes notes;  // the reading thread's until the end
  QueriesWithoutCandidates empty;

  std::mutex mutex;  // guards these
  std::condition_variable room;
  std::function<void()> on_news;
  std::deque<RerankJob> jobs;
  int64_t num_pairs = 0;  // of `jobs`
  bool ended = false, abandoned = false;
  std::exception_ptr fault;

  struct Abandoned {};

  void read() {
    std::exception_ptr error;
    try {
      data::for_each_candidates(kStdin, {.text_field = input.text_field, .notes = &notes},
                                [this](data::CandidateList list, const std::string& where) {
                                  RerankJob job = job_of(std::move(list), input.top);
                                  check(job, where);
                                  if (job.passages.empty()) empty.add(job.qid);
                                  add(std::move(job));
                                });
    } catch (const Abandoned&) {
      return;
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    if (abandoned) return;
    ended = true;
    fault = error;
    on_news();
  }

  void add(RerankJob job) {
    std::unique_lock lock(mutex);
    room.wait(lock, [this] { return abandoned || num_pairs < most_pairs; });
    if (abandoned) throw Abandoned();
    num_pairs += size_of(job);
    jobs.push_back(std::move(job));
    on_news();
  }
};

RerankStream::RerankStream(const RerankInput& input, int64_t most_pairs, RerankCheck check,
                           std::function<void()> on_news)
    : state_(std::make_shared<State>()) {
  state_->input = input;
  state_->most_pairs = most_pairs;
  state_->check = std::move(check);
  state_->on_news = std::move(on_news);
  // Nobody can end its read() of a stdin that stays open.
  std::thread([state = state_] { state->read(); }).detach();
}

RerankStream::~RerankStream() {
  const std::lock_guard lock(state_->mutex);
  state_->abandoned = true;
  state_->room.notify_all();
}

std::optional<RerankJob> RerankStream::take() {
  const std::lock_guard lock(state_->mutex);
  if (state_->jobs.empty()) return std::nullopt;
  RerankJob job = std::move(state_->jobs.front());
  state_->jobs.pop_front();
  state_->num_pairs -= size_of(job);
  state_->room.notify_one();
  return job;
}

bool RerankStream::at_end() const {
  const std::lock_guard lock(state_->mutex);
  return state_->ended && state_->jobs.empty();
}

void RerankStream::finish() const {
  const std::lock_guard lock(state_->mutex);
  tell(kStdin, state_->notes);
  state_->empty.warn();
  if (state_->fault) std::rethrow_exception(state_->fault);
}

}  // namespace erank::cli
