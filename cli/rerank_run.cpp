#include "cli/rerank_run.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "cli/doubts.h"
#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/journal.h"
#include "erank/data/query_times.h"
#include "erank/rank/result_json.h"

namespace erank::cli {
namespace {

using Clock = std::chrono::steady_clock;

std::string journal_key(const std::string& qid, const std::string& docid) {
  return base::dump_json(base::Json{qid, docid});
}

// Runs the jobs with a bounded number of pairs in flight and hands out their rankings in order.
class RerankRun {
 public:
  RerankRun(const RerankPlan& plan, Context& context) : plan_(plan), context_(context) {
    const auto target = base::output_target(plan.out);
    path_ = target.path;
    journal_path_ = journal_of(target);
  }

  RerankDone run(std::vector<RerankJob> jobs) {
    for (const auto& job : jobs) num_expected_ += std::ssize(job.passages);
    waiting_.assign(std::make_move_iterator(jobs.begin()), std::make_move_iterator(jobs.end()));
    return run();
  }
  RerankDone run(const RerankInput& input, RerankCheck check) {
    stream_ = std::make_unique<RerankStream>(input, kPairsInFlight, std::move(check),
                                             [this] { tell_news(); });
    return run();
  }

 private:
  static constexpr int64_t kPairsInFlight = 512;  // a replica

  struct End {
    Clock::time_point at = {};          // once is_over
    std::atomic<bool> is_over = false;  // done.get() waits for no pair
  };
  // A job whose pairs are being scored.
  struct Flight {
    std::shared_ptr<const RerankJob> job;
    std::shared_ptr<std::vector<rank::PassageResult>> results;  // complete when `done` is ready
    rank::Ticket done;
    std::shared_ptr<End> end;
    Clock::time_point begin = {};
    int64_t num_pairs = 0;  // 1 at least: a flight takes memory
    int64_t num_resumed = 0;
  };

  RerankDone run() {
    if (!journal_path_.empty()) open_journal();
    // What it calls back is this object: it is handed on only when all pairs are done.
    std::shared_ptr<rank::Reranker> reranker;
    if (plan_.loaded) reranker = std::exchange(*plan_.loaded, nullptr);
    if (!reranker) reranker = rank::Reranker::load(plan_.reranker, context_.progress.get());
    before_ = reranker->stats().engine;
    begin_ = Clock::now();

    Output output(plan_.out, true);
    std::optional<Output> stats;
    if (!plan_.stats.empty()) {
      stats.emplace(plan_.stats, plan_.overwrite || plan_.resume);
      if (plan_.resume && base::file_exists(plan_.stats))
        stats->write(base::read_file(plan_.stats));
    }
    std::deque<Flight> flights;
    int64_t in_flight = 0;
    while (!interrupted()) {
      if (flights.empty() || !is_over(flights.front())) {
        const bool at_end = stream_ ? stream_->at_end() : waiting_.empty();
        std::optional<RerankJob> job;
        if (in_flight < kPairsInFlight * std::ssize(plan_.reranker.devices)) job = next_job();
        if (job) {
          flights.push_back(launch(*reranker, std::move(*job)));
          in_flight += flights.back().num_pairs;
        } else if (flights.empty() && at_end) {
          break;
        } else {
          wait_for_news();
        }
        continue;
      }
      Flight flight = std::move(flights.front());
      flights.pop_front();
      flight.done.get();
      in_flight -= flight.num_pairs;
      if (stats) write_time(flight, *stats);
      if (plan_.calibration)
        for (auto& result : *flight.results)
          if (!result.error) result.relevance = plan_.calibration->probability(result.score);
      rank::Ranking ranking =
          rank::make_ranking(flight.job->qid, std::move(*flight.results), plan_.scores);
      note_failed(ranking);
      doubts_.note(ranking);
      std::erase_if(ranking.results, [&](const rank::PassageResult& result) {
        return result.relevance.value_or(1) < plan_.min_probability;
      });
      // A driver that has gone takes no more answers, and there is nothing to keep.
      if (stream_) std::signal(SIGPIPE, SIG_DFL);
      output.write(
          format_ranking(plan_.format, *flight.job, ranking, plan_.append_tail, plan_.tag));
      output.flush();
      if (stream_) std::signal(SIGPIPE, SIG_IGN);
    }
    if (interrupted()) return stop();
    if (journal_) journal_->commit();
    const bool journal = journal_ != nullptr;
    output.commit();
    if (stats) stats->commit();
    if (journal) write_made_of(path_, "rerank", plan_.made_of, plan_.scored_by);
    if (journal && !may_succeed_later_) journal_->discard();
    journal_.reset();
    context_.progress->finish();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    if (!plan_.quiet) doubts_.tell();
    summary(*reranker, seconds);
    if (plan_.loaded) *plan_.loaded = std::move(reranker);
    if (stream_) stream_->finish();
    return {num_done_ - num_resumed_, seconds, num_pairs_, num_failed_,
            journal && may_succeed_later_};
  }

  std::optional<RerankJob> next_job() {
    if (stream_) return stream_->take();
    if (waiting_.empty()) return std::nullopt;
    RerankJob job = std::move(waiting_.front());
    waiting_.pop_front();
    return job;
  }

  // Something that run() waits for has happened. Thread-safe.
  void tell_news() {
    const std::lock_guard lock(news_mutex_);
    has_news_ = true;
    news_.notify_one();
  }
  // A while at most, for the user may interrupt.
  void wait_for_news() {
    std::unique_lock lock(news_mutex_);
    news_.wait_for(lock, std::chrono::milliseconds(100), [this] { return has_news_; });
    has_news_ = false;
  }

  void open_journal() {
    using Start = data::Journal::Start;
    journal_ =
        std::make_unique<data::Journal>(data::Journal::open(journal_path_, plan_.journal_header,
                                                            plan_.resume      ? Start::kResume
                                                            : plan_.overwrite ? Start::kAnew
                                                                              : Start::kNew));
    journal_->for_each([&](std::string_view key, std::string_view value) {
      known_.emplace(key,
                     rank::result_from_json(base::parse_json(value, journal_path_), journal_path_));
    });
  }

  Flight launch(rank::Reranker& reranker, RerankJob taken) {
    Flight flight{std::make_shared<const RerankJob>(std::move(taken)),
                  std::make_shared<std::vector<rank::PassageResult>>(),
                  {},
                  std::make_shared<End>(),
                  Clock::now(),
                  1,
                  0};
    const RerankJob& job = *flight.job;
    num_pairs_ += std::ssize(job.passages);
    rank::RankRequest request{job.qid, job.query, {}, plan_.scores};
    request.options.hybrid_weight
        .reset();  // blended when the query is complete, with what the journal knew
    auto index = std::make_shared<std::vector<size_t>>();
    for (size_t i = 0; i < job.passages.size(); ++i) {
      const auto found = known_.find(journal_key(job.qid, job.passages[i].id));
      if (found == known_.end()) {
        index->push_back(i);
        request.passages.push_back(job.passages[i]);
        continue;
      }
      found->second.index = i;
      found->second.first_stage_score = job.passages[i].first_stage_score;
      flight.results->push_back(std::move(found->second));
      known_.erase(found);
      ++num_done_;
      ++num_resumed_;
      ++flight.num_resumed;
    }
    flight.num_pairs = std::max<int64_t>(1, std::ssize(request.passages));
    const auto take = [this, job = flight.job, index,
                       results = flight.results](const rank::PassageResult& r) {
      if (r.error && r.error->kind == rank::PassageError::Kind::kCancelled) return;  // interrupted
      rank::PassageResult result = r;
      result.index = (*index)[r.index];
      if (journal_ && !r.error)
        journal_->append(journal_key(job->qid, r.docid),
                         base::dump_json(rank::to_json(job->qid, 0, result)));
      results->push_back(std::move(result));
      report();
    };
    const auto end = [this, end = flight.end](const rank::Ranking&) {
      end->at = Clock::now();
      end->is_over = true;
      tell_news();
    };
    flight.done = reranker.submit(std::move(request), {.on_result = take, .on_done = end});
    return flight;
  }

  // One that has failed is only known by its ticket.
  static bool is_over(const Flight& flight) {
    return flight.end->is_over || flight.done.wait_for(std::chrono::milliseconds(0));
  }

  // Of what this run has scored: results of the journal come first.
  static void write_time(const Flight& flight, Output& stats) {
    data::QueryTime time{.qid = flight.job->qid};
    for (size_t i = static_cast<size_t>(flight.num_resumed); i < flight.results->size(); ++i) {
      const rank::PassageResult& result = (*flight.results)[i];
      if (result.error) continue;
      ++time.pairs;
      time.prompt_tokens += result.prompt_tokens;
      time.cached_tokens += result.cached_tokens;
      time.new_tokens += result.new_tokens;
    }
    if (time.pairs == 0) return;
    time.seconds = std::chrono::duration<double>(flight.end->at - flight.begin).count();
    stats.write(data::to_line(time));
    stats.flush();
  }

  // A line for each pair without a score.
  void note_failed(const rank::Ranking& ranking) {
    using Kind = rank::PassageError::Kind;
    for (const auto& r : ranking.failed) {
      ++num_failed_;
      // With more memory; the others would fail again.
      may_succeed_later_ |= r.error->kind == Kind::kNoRoom || r.error->kind == Kind::kFailed;
      ProgressLine::print_above(base::str("erank: ", r.error->message));
    }
  }

  void report() {
    const int64_t done = ++num_done_;
    context_.progress->update({"rerank", done, num_expected_, "pairs", ""});
  }

  RerankDone stop() {
    if (journal_) journal_->commit();
    context_.progress->finish();
    warn(journal_ ? base::str("interrupted with ", num_done_.load(), " of ", num_expected_,
                              " pairs done; go on with --resume")
                  : std::string("interrupted"));
    return {};
  }

  void summary(const rank::Reranker& reranker, double seconds) const {
    if (plan_.quiet) return;
    const auto stats = reranker.stats().engine;
    const int64_t scored = num_done_ - num_resumed_;
    const auto rate = [&](int64_t n) {
      return std::llround(static_cast<double>(n) / std::max(seconds, 1e-9));
    };
    ProgressLine::print_above(base::str(
        "erank: ", scored, scored == 1 ? " pair" : " pairs",
        num_resumed_ ? base::str(" (and ", num_resumed_, " from the journal)") : "", " with ",
        reranker.model_name(), " (", reranker.precision_name(), ") in ", duration_text(seconds),
        ": ", rate(stats.computed_tokens - before_.computed_tokens), " tokens/s computed, ",
        stats.cached_tokens - before_.cached_tokens, " prompt tokens shared"));
  }

  const RerankPlan& plan_;
  Context& context_;
  std::string path_, journal_path_;
  std::deque<RerankJob> waiting_;  // what is not launched yet, without a stream
  std::unique_ptr<data::Journal> journal_;
  std::unordered_map<std::string, rank::PassageResult> known_;  // from the journal, not yet used
  std::mutex news_mutex_;
  std::condition_variable news_;
  bool has_news_ = false;     // guarded by news_mutex_
  int64_t num_expected_ = 0;  // pairs; 0: not known
  int64_t num_pairs_ = 0;     // launched
  int64_t num_resumed_ = 0, num_failed_ = 0;
  Doubts doubts_;
  bool may_succeed_later_ = false;
  std::atomic<int64_t> num_done_ = 0;
  Clock::time_point begin_;
  engine::EngineStats before_;            // of a model that other jobs have used
  std::unique_ptr<RerankStream> stream_;  // the last one: its thread tells news
};

}  // namespace

std::string journal_of(const base::OutputTarget& target) {
  return target.kind == base::OutputTarget::kStream ? "" : target.path + ".journal";
}

RerankDone run_rerank(const RerankPlan& plan, std::vector<RerankJob> jobs, Context& context) {
  return RerankRun(plan, context).run(std::move(jobs));
}

RerankDone run_rerank_stream(const RerankPlan& plan, const RerankInput& input, RerankCheck check,
                             Context& context) {
  return RerankRun(plan, context).run(input, std::move(check));
}

}  // namespace erank::cli
