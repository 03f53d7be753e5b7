#include "erank/engine/engine.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <unordered_map>
#include <unordered_set>

#include "erank/base/error.h"
#include "erank/engine/cache_need.h"
#include "erank/engine/job.h"
#include "erank/engine/scheduler.h"
#include "erank/model/network.h"

namespace erank::engine {
namespace {

using base::Error;
using base::ErrorKind;
using model::kPageTokens;

// Rows are read in slices of so many values: 64 MiB when all of them are asked whole.
constexpr int64_t kMaxLogits = int64_t{1} << 24;
constexpr int64_t kLeastUnusedPages = 64;  // of pages so large that unused_prefix_bytes holds few

// A position whose logits a step asks for.
struct Row {
  int64_t sequence, position;
};

// A sample whose completion waits for deliver().
struct Done {
  std::shared_ptr<const Asked> asked;
  Completion completion;
};

void count(int64_t size, EngineStats::BySize& counts) {
  const auto power = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(size - 1)));
  ++counts[std::min(power, counts.size() - 1)];
}

EngineOptions checked(EngineOptions options, const model::Network& network) {
  const auto require = [](const char* field, int64_t value, int64_t least) {
    if (value < least)
      base::fail(ErrorKind::kInvalidInput, "engine", field, " is ", value, ", expected ", least,
                 " or more");
  };
  require("kv_cache_bytes", options.kv_cache_bytes, 0);
  require("unused_prefix_bytes", options.unused_prefix_bytes, 0);
  require("max_batch_tokens", options.max_batch_tokens, 0);
  require("max_sequences", options.max_sequences, 1);
  if (options.kv_cache_bytes == 0) options.kv_cache_bytes = network.usual_cache_bytes();
  if (options.max_batch_tokens == 0) options.max_batch_tokens = network.usual_pass_tokens();
  return options;
}

int64_t useful_pages(const model::ModelConfig& config, int64_t max_sequences) {
  return max_sequences * ((config.context() + kPageTokens - 1) / kPageTokens);
}

int64_t unused_pages(const EngineOptions& options, int64_t page_bytes) {
  return std::max(options.unused_prefix_bytes / page_bytes, kLeastUnusedPages);
}

SchedulerOptions scheduler_options(const model::Network& network, const EngineOptions& options) {
  const int64_t page_bytes = network.page_bytes();
  const int64_t useful = useful_pages(network.config(), options.max_sequences);
  const int64_t num_pages =
      std::min({options.kv_cache_bytes / page_bytes, useful, int64_t{INT32_MAX} / kPageTokens});
  if (num_pages < 1)
    base::fail(ErrorKind::kExhausted, "engine", "a key/value cache of ", options.kv_cache_bytes,
               " bytes does not hold one page of ", page_bytes, " bytes (", kPageTokens,
               " tokens of this model); raise --kv-cache-bytes");
  return {.num_pages = num_pages,
          .max_batch_tokens = options.max_batch_tokens,
          .max_sequences = options.max_sequences,
          .share_prefixes = options.share_prefixes,
          .max_unused_pages = unused_pages(options, page_bytes)};
}

}  // namespace

CacheNeed cache_need(const model::ModelConfig& config, int64_t page_bytes, int64_t pass_tokens,
                     int64_t kv_cache_bytes) {
  const EngineOptions usual;
  const int64_t limit = kv_cache_bytes > 0 ? kv_cache_bytes : model::kUsualCacheBytes;
  const int64_t most = std::min(limit / page_bytes * page_bytes,
                                useful_pages(config, usual.max_sequences) * page_bytes);
  const int64_t pages = pass_tokens / kPageTokens + unused_pages(usual, page_bytes);
  return {std::min(most, pages * page_bytes), most};
}

struct Engine::State {
  State(model::Network& n, const EngineOptions& given)
      : network(n),
        options(checked(given, n)),
        scheduler(scheduler_options(n, options)),
        page_bytes(n.page_bytes()),
        vocab_size(n.config().vocab_size) {
    stats.page_bytes = page_bytes;
    stats.pages = scheduler.num_free_pages();
    cache = n.make_cache(stats.pages);
  }

  model::Network& network;
  EngineOptions options;
  Scheduler scheduler;
  int64_t page_bytes, vocab_size;
  std::unique_ptr<model::KvCache> cache;
  std::unordered_map<int64_t, Job> jobs;  // by sequence
  std::deque<Done> done;
  std::unordered_set<int64_t> cancelled;  // numbers of requests, until the next step
  int64_t next_number = 0;
  EngineStats stats;
  int64_t batch_tokens = options.max_batch_tokens;  // a pass's limit now
  int passes_at_limit = 0, passes_to_grow = 64;     // since it changed, until it grows
  // Used anew by each pass.
  model::Batch batch;
  std::vector<Row> rows;
  std::vector<model::RowRequest> row_requests;
  std::vector<model::RowResult> row_results;
  std::vector<float> choice_logits, logits;

  void start(const std::shared_ptr<Asked>& asked) {
    prepare(*asked, network.config());
    const Request& request = asked->request;
    if (!scheduler.fits(asked->max_tokens)) {
      const int64_t size = std::ssize(request.prompt);
      const int64_t pages = (asked->max_tokens + kPageTokens - 1) / kPageTokens;
      base::fail(ErrorKind::kExhausted, "engine", "a prompt of ", size, " tokens with ",
                 asked->max_tokens - size, " to come needs ", pages * page_bytes,
                 " bytes of key/value cache, there are ", stats.pages * page_bytes,
                 "; raise --kv-cache-bytes or lower the budget");
    }
    for (int sample = 0; sample < request.num_samples; ++sample) start_sample(asked, sample);
  }

  void start_sample(const std::shared_ptr<Asked>& asked, int sample) {
    const Request& request = asked->request;
    const int64_t size = std::ssize(request.prompt);
    Job job{.asked = asked, .completion = {}, .sampling = request.sampling};
    job.completion.sample = sample;
    job.completion.prompt_tokens = size;
    job.sampling.seed = sample_seed(request.sampling.seed, sample);
    Ids ids = request.prompt;
    int64_t must_compute_from = size - 1;
    if (asked->max_new_tokens == 0) {
      job.completion.finish = request.max_new_tokens > 0 ? Finish::kContext : Finish::kBudget;
      job.completion.forced = !request.answer_prefix.empty();
      if (request.choices.empty()) {
        done.push_back({asked, std::move(job.completion)});
        return;
      }
      ids.insert(ids.end(), request.answer_prefix.begin(), request.answer_prefix.end());
      must_compute_from = job.answer_at = std::ssize(ids) - 1;
      if (!asked->groups.empty()) ids.push_back(asked->groups[0].first_id);
    }
    job.sequence =
        scheduler.add(std::move(ids), asked->max_tokens, must_compute_from, request.queue);
    jobs.emplace(job.sequence, std::move(job));
  }

  void end_job(Job& job) {
    const int64_t sequence = job.sequence;
    job.completion.cached_tokens =
        std::min(scheduler.num_cached(sequence), job.completion.prompt_tokens);
    stats.cached_tokens += job.completion.cached_tokens;
    scheduler.finish(sequence);
    done.push_back({std::move(job.asked), std::move(job.completion)});
    jobs.erase(sequence);
  }

  void fail_job(Job& job, std::exception_ptr fault) {
    job.completion.fault = std::move(fault);
    end_job(job);
  }

  // Their sequences in order of submission.
  template <typename Which>
  std::vector<int64_t> sequences_of(const Which& which) const {
    std::vector<int64_t> found;
    for (const auto& [sequence, job] : jobs)
      if (which(job)) found.push_back(sequence);
    std::sort(found.begin(), found.end());
    return found;
  }

  // After a pass that found no memory: what runs begins anew, in smaller passes. Where they cannot
  // be smaller, the samples that were in the pass fail.
  void begin_anew(const Step& step, const std::exception_ptr& fault) {
    if (std::ssize(batch.tokens) > kPageTokens) {
      shrink_passes();
    } else {
      for (const StepEntry& entry : step.entries)
        if (Job* job = find_job(entry.sequence)) fail_job(*job, fault);
    }
    scheduler.restart();
  }

  void shrink_passes() {
    const int64_t half = std::min<int64_t>(batch_tokens, std::ssize(batch.tokens)) / 2;
    batch_tokens = std::min(batch_tokens, std::max<int64_t>(kPageTokens, half));
    scheduler.set_max_batch_tokens(batch_tokens);
    passes_at_limit = 0;
    passes_to_grow = std::min(4 * passes_to_grow, 1 << 20);
  }

  // What took the memory may have ended. Asked more and more seldom, since if it has not, what runs
  // is computed again.
  void grow_passes() {
    if (batch_tokens >= options.max_batch_tokens || ++passes_at_limit < passes_to_grow) return;
    batch_tokens = std::min(options.max_batch_tokens, 2 * batch_tokens);
    scheduler.set_max_batch_tokens(batch_tokens);
    passes_at_limit = 0;
  }

  // Fails all that run, and forgets what the failed pass should have computed.
  void fail_running(const std::exception_ptr& fault) {
    const auto failed =
        sequences_of([&](const Job& job) { return scheduler.is_running(job.sequence); });
    for (const int64_t sequence : failed) fail_job(jobs.at(sequence), fault);
    scheduler.restart();
  }

  void end_cancelled() {
    if (cancelled.empty()) return;
    const auto ended =
        sequences_of([&](const Job& job) { return cancelled.contains(job.asked->number); });
    cancelled.clear();
    for (const int64_t sequence : ended) {
      Job& job = jobs.at(sequence);
      job.completion.finish = Finish::kCancelled;
      end_job(job);
    }
  }

  bool deliver() {
    const bool any = !done.empty();
    while (!done.empty()) {
      const Done next = std::move(done.front());
      done.pop_front();
      Completion completion = next.completion;
      if (completion.fault) {
        ++stats.num_failed;
        Completion failed;
        failed.sample = completion.sample;
        failed.fault = completion.fault;
        completion = std::move(failed);
      } else {
        ++(completion.finish == Finish::kCancelled ? stats.num_cancelled : stats.num_done);
      }
      next.asked->on_done(std::move(completion));
    }
    return any;
  }

  // The pass's tokens, and the rows that its sequences need.
  void make_batch(const Step& step) {
    batch.clear();
    rows.clear();
    batch.starts.push_back(0);
    batch.page_starts.push_back(0);
    for (const StepEntry& entry : step.entries) {
      const Job& job = jobs.at(entry.sequence);
      const Ids& ids = scheduler.ids(entry.sequence);
      const bool knows_first = !job.completion.p_choices.empty();
      const int64_t first_row = !job.reading() ? std::ssize(ids) - 1
                                : knows_first  ? job.answer_at + 1
                                               : job.answer_at;
      for (int64_t i = entry.begin; i < entry.end; ++i) {
        if (i >= first_row) {
          rows.push_back({entry.sequence, i});
          batch.rows.push_back(static_cast<int32_t>(batch.tokens.size()));
        }
        batch.tokens.push_back(ids[i]);
        batch.positions.push_back(static_cast<int32_t>(i));
      }
      batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
      const auto pages = scheduler.pages(entry.sequence);
      batch.pages.insert(batch.pages.end(), pages.begin(), pages.end());
      batch.page_starts.push_back(static_cast<int32_t>(batch.pages.size()));
    }
    batch.copies.assign(step.copies.begin(), step.copies.end());
  }

  void pass(const Step& step) {
    make_batch(step);
    ++stats.steps;
    stats.computed_tokens += std::ssize(batch.tokens);
    stats.step_sequences += std::ssize(step.entries);
    count(std::ssize(step.entries), stats.steps_by_sequences);
    count(std::ssize(batch.tokens), stats.steps_by_tokens);
    network.forward(batch, *cache);
    const int64_t slice = std::max<int64_t>(1, kMaxLogits / vocab_size);
    for (int64_t begin = 0; begin < std::ssize(rows); begin += slice)
      read_slice(begin, std::min(slice, std::ssize(rows) - begin));
  }

  // Null: an earlier slice or row has ended the job that asked for this row too.
  Job* find_job(int64_t sequence) {
    const auto found = jobs.find(sequence);
    return found == jobs.end() ? nullptr : &found->second;
  }

  static bool draws(const Job& job) { return !job.reading() && job.sampling.temperature > 0; }

  // Whole rows of logits are asked for draws alone, and only where the network does not draw.
  void read_slice(int64_t begin, int64_t count) {
    size_t num_choice_logits = 0, num_logits = 0;
    for (int64_t i = begin; i < begin + count; ++i) {
      const Job* job = find_job(rows[i].sequence);
      if (job && job->reading()) num_choice_logits += job->asked_ids(rows[i].position).size();
      if (job && draws(*job) && !network.draws()) num_logits += vocab_size;
    }
    choice_logits.resize(num_choice_logits);
    logits.resize(num_logits);
    row_requests.assign(count, {});
    row_results.assign(count, {});
    float *next_choice = choice_logits.data(), *next_row = logits.data();
    for (int64_t i = 0; i < count; ++i) {
      const Job* job = find_job(rows[begin + i].sequence);
      if (!job) continue;
      model::RowRequest& request = row_requests[i];
      request.sum = job->reading() || job->request().log_probs;
      if (job->reading()) {
        const auto ids = job->asked_ids(rows[begin + i].position);
        request.ids = ids.data();
        request.num_ids = static_cast<int32_t>(ids.size());
        request.out = std::exchange(next_choice, next_choice + ids.size());
      } else if (draws(*job) && network.draws()) {
        request.draw = drawing(job->sampling, job->completion.new_tokens.size());
      } else if (draws(*job)) {
        request.logits = std::exchange(next_row, next_row + vocab_size);
      }
    }
    network.read_rows(begin, row_requests, row_results);
    for (int64_t i = 0; i < count; ++i) {
      Job* job = find_job(rows[begin + i].sequence);
      if (!job) continue;
      try {
        take_row(*job, rows[begin + i].position, row_requests[i], row_results[i]);
      } catch (...) {
        fail_job(*job, std::current_exception());
      }
    }
  }

  void take_row(Job& job, int64_t position, const model::RowRequest& request,
                const model::RowResult& row) {
    if (!row.finite)
      base::fail(ErrorKind::kCorrupt, "engine",
                 "the model's logits are not finite; its weights are damaged or overflow this "
                 "precision");
    if (job.reading()) {
      const bool first = position == job.answer_at;
      if (job.read_choices(position, {request.out, static_cast<size_t>(request.num_ids)}, row)) {
        end_job(job);
      } else if (!first) {
        scheduler.truncate(job.sequence, job.answer_at + 1);
        scheduler.append(job.sequence, std::span(&job.asked->groups[job.group].first_id, 1));
      }
    } else if (request.logits) {
      const Draw draw = sample({request.logits, static_cast<size_t>(vocab_size)}, row.max,
                               job.sampling, job.completion.new_tokens.size());
      job.note_log_prob(row, request.logits[draw.token], draw.log_p);
      take_token(job, draw.token);
    } else if (request.draw.temperature > 0) {
      job.note_log_prob(row, row.drawn_logit, row.drawn_log_p);
      take_token(job, row.drawn);
    } else {
      job.note_log_prob(row, row.max, 0);
      take_token(job, row.argmax);
    }
  }

  void take_token(Job& job, int32_t token) {
    Completion& completion = job.completion;
    const Request& request = job.request();
    ++stats.new_tokens;
    const auto& stops = request.stop_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      completion.stop_id = token;
      return end_generation(job, Finish::kStopped, true);
    }
    completion.new_tokens.push_back(token);
    const auto num_new = std::ssize(completion.new_tokens);
    if (request.watch) {
      const Verdict verdict = request.watch(completion.sample, completion.new_tokens);
      if (verdict.stop) {
        ERANK_CHECK(-1 <= verdict.keep && verdict.keep <= num_new, "the watcher keeps ",
                    verdict.keep, " of ", num_new, " tokens");
        if (verdict.keep >= 0) {
          completion.new_tokens.resize(verdict.keep);
          if (request.log_probs) completion.log_probs.resize(verdict.keep);
        }
        return end_generation(job, Finish::kWatched, verdict.force);
      }
    }
    if (num_new == job.asked->max_new_tokens) {
      const bool cut = num_new < request.max_new_tokens;
      end_generation(job, cut ? Finish::kContext : Finish::kBudget, true);
    } else {
      scheduler.append(job.sequence, std::span(&token, 1));
    }
  }

  void end_generation(Job& job, Finish finish, bool force) {
    Completion& completion = job.completion;
    const Request& request = job.request();
    completion.finish = finish;
    completion.forced = force && !request.answer_prefix.empty();
    if (request.choices.empty()) return end_job(job);
    // The scheduler knows the prompt and all new tokens but, perhaps, the last.
    const int64_t sequence = job.sequence, prompt = std::ssize(request.prompt);
    const int64_t known = std::ssize(scheduler.ids(sequence)) - prompt;
    const int64_t kept = std::ssize(completion.new_tokens);
    if (kept < known) scheduler.truncate(sequence, prompt + kept);
    if (kept > known) scheduler.append(sequence, std::span(completion.new_tokens).subspan(known));
    if (completion.forced) scheduler.append(sequence, request.answer_prefix);
    job.answer_at = std::ssize(scheduler.ids(sequence)) - 1;
    if (scheduler.num_computed(sequence) > job.answer_at) {
      // Its keys are cached but its logits are gone.
      const int32_t last = scheduler.ids(sequence).back();
      scheduler.truncate(sequence, job.answer_at);
      scheduler.append(sequence, std::span(&last, 1));
    }
    if (const auto& groups = job.asked->groups; !groups.empty())
      scheduler.append(sequence, std::span(&groups[0].first_id, 1));
  }
};

EngineStats& EngineStats::operator+=(const EngineStats& other) {
  steps += other.steps;
  for (size_t i = 0; i < steps_by_tokens.size(); ++i) {
    steps_by_sequences[i] += other.steps_by_sequences[i];
    steps_by_tokens[i] += other.steps_by_tokens[i];
  }
  step_sequences += other.step_sequences;
  computed_tokens += other.computed_tokens;
  cached_tokens += other.cached_tokens;
  new_tokens += other.new_tokens;
  num_waiting += other.num_waiting;
  num_running += other.num_running;
  num_done += other.num_done;
  num_failed += other.num_failed;
  num_cancelled += other.num_cancelled;
  page_bytes = other.page_bytes;
  pages += other.pages;
  pages_used += other.pages_used;
  pages_touched += other.pages_touched;
  evictions += other.evictions;
  return *this;
}

Engine::Engine(model::Network& network, const EngineOptions& options)
    : state_(std::make_unique<State>(network, options)) {}

Engine::~Engine() = default;

int64_t Engine::submit(Request request, OnDone on_done) {
  const auto asked = std::make_shared<Asked>();
  asked->number = state_->next_number++;
  asked->request = std::move(request);
  asked->on_done = std::move(on_done);
  try {
    state_->start(asked);
  } catch (const Error&) {
    for (int sample = 0; sample < std::max(1, asked->request.num_samples); ++sample) {
      state_->done.push_back({asked, {}});
      state_->done.back().completion.sample = sample;
      state_->done.back().completion.fault = std::current_exception();
    }
  }
  return asked->number;
}

void Engine::cancel(int64_t request) { state_->cancelled.insert(request); }

bool Engine::step() {
  State& state = *state_;
  state.end_cancelled();
  const bool delivered = state.deliver();
  state.end_cancelled();
  const Step& step = state.scheduler.next();
  if (step.entries.empty()) {
    ERANK_CHECK(state.jobs.empty(), state.jobs.size(), " requests do not move");
    return delivered || state.deliver();
  }
  try {
    state.pass(step);
    state.grow_passes();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kExhausted)
      state.begin_anew(step, std::current_exception());
    else
      state.fail_running(std::current_exception());
  } catch (...) {
    state.fail_running(std::current_exception());
  }
  state.deliver();
  return true;
}

void Engine::run() {
  while (step()) {
  }
}

void Engine::weights_changed(const model::WeightSource& source) {
  ERANK_CHECK(state_->jobs.empty(), state_->jobs.size(), " requests are in flight");
  state_->scheduler.restart();
  state_->network.load(source);
}

EngineStats Engine::stats() const {
  const State& state = *state_;
  EngineStats stats = state.stats;
  stats.num_waiting = state.scheduler.num_waiting();
  stats.num_running = state.scheduler.num_running();
  stats.pages_used = stats.pages - state.scheduler.num_free_pages();
  stats.pages_touched = state.scheduler.num_touched_pages();
  stats.evictions = state.scheduler.num_evictions();
  return stats;
}

void Engine::check_integrity() const {
  const State& state = *state_;
  state.scheduler.check_integrity();
  ERANK_CHECK(std::ssize(state.jobs) ==
              state.scheduler.num_waiting() + state.scheduler.num_running());
  for (const auto& [sequence, job] : state.jobs) {
    ERANK_CHECK(job.sequence == sequence);
    const int64_t known = std::ssize(state.scheduler.ids(sequence));
    ERANK_CHECK(state.scheduler.num_computed(sequence) < known, "a request does not move");
    ERANK_CHECK(!job.reading() || known - job.answer_at == (job.asked->groups.empty() ? 1 : 2));
    ERANK_CHECK(job.completion.p_choices.empty() || job.reading());
  }
}

}  // namespace erank::engine
