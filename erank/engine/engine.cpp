#include "erank/engine/engine.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/engine/sampler.h"
#include "erank/engine/scheduler.h"
#include "erank/model/decoder.h"
#include "erank/model/kv_cache.h"

namespace erank::engine {
namespace {

using base::Error;
using base::ErrorKind;
using model::KvCache;

// The logits of this many values are held at once: 64 MiB.
constexpr int64_t kMaxLogits = int64_t{1} << 24;

// A request from submit() to its completion. First it generates; then it reads its choices.
struct Job {
  int64_t sequence = -1;
  Request request;
  Engine::OnDone on_done;
  Completion completion;
  int64_t max_new_tokens = 0;  // what the model's context leaves of the request's
  // Set when the generation has ended: the position whose logits tell each choice's first token.
  int64_t answer_at = -1;
  std::vector<int32_t> first_ids;  // the distinct first ids of the choices of two
  size_t group = 0;                // the one that stands behind answer_at now

  bool reading() const { return answer_at >= 0; }
};

// A position whose logits a step asks for.
struct Row {
  int64_t sequence, position;
};

void check_ids(const Ids& ids, const char* what, int64_t vocab_size) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      base::fail(ErrorKind::kInvalidInput, "engine", what, ": id ", id,
                 " is outside the model's vocabulary of ", vocab_size);
    }
  }
}

void check_request(const Request& request, int64_t vocab_size) {
  if (request.prompt.empty()) {
    base::fail(ErrorKind::kInvalidInput, "engine", "the prompt is empty, expected at least one id");
  }
  check_ids(request.prompt, "prompt", vocab_size);
  check_ids(request.closing, "closing", vocab_size);
  for (const Ids& choice : request.choices) {
    check_ids(choice, "choice", vocab_size);
    if (choice.empty() || choice.size() > 2) {
      base::fail(ErrorKind::kInvalidInput, "engine", "a choice has ", choice.size(),
                 " ids, expected 1 or 2");
    }
  }
  if (request.max_new_tokens < 0) {
    base::fail(ErrorKind::kInvalidInput, "engine", "max_new_tokens is ", request.max_new_tokens,
               ", expected 0 or more");
  }
  check(request.sampling);
}

int64_t num_pages_for(const model::Decoder& decoder, const EngineOptions& options) {
  const auto& config = decoder.config();
  const int64_t page_bytes = KvCache::page_bytes(config, decoder.options().dtype);
  const int64_t context = config.max_position_embeddings;
  const int64_t useful =
      options.max_sequences * ((context + KvCache::kPageTokens - 1) / KvCache::kPageTokens);
  const int64_t num_pages = std::min(
      {options.kv_cache_bytes / page_bytes, useful, int64_t{INT32_MAX} / KvCache::kPageTokens});
  if (num_pages < 1) {
    base::fail(ErrorKind::kExhausted, "engine", "a key/value cache of ", options.kv_cache_bytes,
               " bytes does not hold one page of ", page_bytes, " bytes (", KvCache::kPageTokens,
               " tokens of this model); raise --kv-cache-bytes");
  }
  return num_pages;
}

}  // namespace

struct Engine::State {
  State(model::Decoder& d, const EngineOptions& o)
      : decoder(d),
        options(o),
        cache(d.config(), num_pages_for(d, o), d.options().dtype, d.options().device),
        scheduler({.num_pages = cache.num_pages(),
                   .page_tokens = KvCache::kPageTokens,
                   .max_batch_tokens = o.max_batch_tokens,
                   .max_sequences = o.max_sequences,
                   .share_prefixes = o.share_prefixes}) {
    stats.kv_cache_bytes = cache.num_pages() * page_bytes();
  }

  model::Decoder& decoder;
  EngineOptions options;
  KvCache cache;
  Scheduler scheduler;
  std::unordered_map<int64_t, Job> jobs;  // by sequence
  std::deque<Job> done;                   // to be handed to their on_done
  EngineStats stats;

  int64_t page_bytes() const {
    return KvCache::page_bytes(decoder.config(), decoder.options().dtype);
  }
  int64_t vocab_size() const { return decoder.config().vocab_size; }

  void start(Job& job) {
    Request& request = job.request;
    check_request(request, vocab_size());
    for (const Ids& choice : request.choices) {
      if (choice.size() == 2 &&
          std::find(job.first_ids.begin(), job.first_ids.end(), choice[0]) == job.first_ids.end()) {
        job.first_ids.push_back(choice[0]);
      }
    }
    const int64_t tail = std::ssize(request.closing) + (job.first_ids.empty() ? 0 : 1);
    const int64_t size = std::ssize(request.prompt);
    const int64_t room = decoder.config().max_position_embeddings - size - tail;
    if (room < 0) {
      base::fail(ErrorKind::kInvalidInput, "engine", "the prompt of ", size, " tokens and the ",
                 tail, " that follow it exceed the model's context of ",
                 decoder.config().max_position_embeddings, " tokens by ", -room,
                 "; shorten the passage or the query");
    }
    job.max_new_tokens = std::min<int64_t>(request.max_new_tokens, room);
    const int64_t max_tokens = size + job.max_new_tokens + tail;
    if (!scheduler.fits(max_tokens)) {
      const int64_t pages = (max_tokens + KvCache::kPageTokens - 1) / KvCache::kPageTokens;
      base::fail(ErrorKind::kExhausted, "engine", "a prompt of ", size, " tokens with ",
                 job.max_new_tokens + tail, " to come needs ", pages * page_bytes(),
                 " bytes of key/value cache, there are ", stats.kv_cache_bytes,
                 "; raise --kv-cache-bytes or lower the budget");
    }
    Ids ids = request.prompt;
    int64_t must_compute_from = size - 1;
    if (job.max_new_tokens == 0) {
      job.completion.finish = request.max_new_tokens > 0 ? Finish::kContext : Finish::kBudget;
      job.completion.closed = !request.closing.empty();
      if (request.choices.empty()) {
        done.push_back(std::move(job));
        return;
      }
      ids.insert(ids.end(), request.closing.begin(), request.closing.end());
      must_compute_from = job.answer_at = std::ssize(ids) - 1;
      if (!job.first_ids.empty()) ids.push_back(job.first_ids[0]);
    }
    const int64_t sequence = scheduler.add(std::move(ids), max_tokens, must_compute_from);
    job.sequence = sequence;
    jobs.emplace(sequence, std::move(job));
  }

  void end_job(Job& job) {
    const int64_t sequence = job.sequence;
    job.completion.cached_tokens =
        std::min(scheduler.num_cached(sequence), job.completion.prompt_tokens);
    stats.cached_tokens += job.completion.cached_tokens;
    scheduler.finish(sequence);
    done.push_back(std::move(job));
    jobs.erase(sequence);
  }

  void fail_job(Job& job, std::exception_ptr fault) {
    job.completion.fault = std::move(fault);
    end_job(job);
  }

  // Fails all that run, and forgets what the failed pass should have computed.
  void fail_running(const std::exception_ptr& fault) {
    std::vector<int64_t> failed;
    for (const auto& [sequence, job] : jobs) {
      if (!scheduler.pages(sequence).empty()) failed.push_back(sequence);
    }
    std::sort(failed.begin(), failed.end());
    for (const int64_t sequence : failed) fail_job(jobs.at(sequence), fault);
    scheduler.forget_prefixes();
  }

  bool deliver() {
    const bool any = !done.empty();
    while (!done.empty()) {
      Job job = std::move(done.front());
      done.pop_front();
      if (job.completion.fault) {
        Completion failed;
        failed.fault = job.completion.fault;
        job.completion = std::move(failed);
      }
      job.on_done(std::move(job.completion));
    }
    return any;
  }

  // The pass's tokens, and the rows that its sequences need.
  model::Batch make_batch(const Step& step, std::vector<Row>& rows) const {
    model::Batch batch;
    batch.starts.push_back(0);
    for (const StepEntry& entry : step.entries) {
      const Job& job = jobs.at(entry.sequence);
      const Ids& ids = scheduler.ids(entry.sequence);
      const int64_t first_row = job.reading() ? job.answer_at : std::ssize(ids) - 1;
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
      batch.pages.emplace_back(pages.begin(), pages.end());
    }
    for (const PageCopy& copy : step.copies) batch.copies.push_back({copy.from_slot, copy.to_slot});
    return batch;
  }

  void pass(const Step& step) {
    std::vector<Row> rows;
    model::Batch batch = make_batch(step, rows);
    if (rows.empty()) batch.rows.push_back(0);  // a part of a long prompt alone
    ++stats.steps;
    stats.computed_tokens += std::ssize(batch.tokens);
    const at::Tensor hidden = decoder.hidden(batch, &cache);
    const int64_t slice = std::max<int64_t>(1, kMaxLogits / vocab_size());
    for (int64_t begin = 0; begin < std::ssize(rows); begin += slice) {
      const int64_t count = std::min(slice, std::ssize(rows) - begin);
      const at::Tensor logits =
          decoder.logits(hidden.narrow(0, begin, count)).to(at::kCPU).contiguous();
      take_rows(std::span(rows).subspan(begin, count), logits.const_data_ptr<float>());
    }
  }

  // logits: [rows.size(), V] fp32.
  void take_rows(std::span<const Row> rows, const float* logits) {
    const size_t v = vocab_size();
    const auto row_of = [&](int64_t i) { return std::span(logits + i * v, v); };
    struct Outcome {
      int32_t token = -1;
      std::optional<Softmax> softmax;
    };
    std::vector<Outcome> outcomes(rows.size());
    at::parallel_for(0, std::ssize(rows), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        // An earlier slice may have failed the job that asked for this row too.
        const auto found = jobs.find(rows[i].sequence);
        if (found == jobs.end()) continue;
        const Job& job = found->second;
        if (job.reading()) {
          outcomes[i].softmax.emplace(row_of(i));
        } else {
          outcomes[i].token =
              sample(row_of(i), job.request.sampling, job.completion.new_tokens.size());
        }
      }
    });
    for (int64_t i = 0; i < std::ssize(rows); ++i) {
      const auto found = jobs.find(rows[i].sequence);
      if (found == jobs.end()) continue;
      Job& job = found->second;
      try {
        if (outcomes[i].softmax ? !outcomes[i].softmax->valid : outcomes[i].token < 0) {
          base::fail(ErrorKind::kCorrupt, "engine",
                     "the model's logits are not finite; its weights are damaged or overflow this "
                     "precision");
        }
        if (outcomes[i].softmax) {
          read_choices(job, rows[i].position, *outcomes[i].softmax, row_of(i));
        } else {
          take_token(job, outcomes[i].token);
        }
      } catch (...) {
        fail_job(job, std::current_exception());
      }
    }
  }

  void take_token(Job& job, int32_t token) {
    Completion& completion = job.completion;
    ++stats.new_tokens;
    const auto& stops = job.request.stop_ids;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      end_generation(job, Finish::kStopped, true);
      return;
    }
    completion.new_tokens.push_back(token);
    const auto num_new = std::ssize(completion.new_tokens);
    if (job.request.watch) {
      const Verdict verdict = job.request.watch(completion.new_tokens);
      if (verdict.stop) {
        ERANK_CHECK(-1 <= verdict.keep && verdict.keep <= num_new, "the watcher keeps ",
                    verdict.keep, " of ", num_new, " tokens");
        if (verdict.keep >= 0) completion.new_tokens.resize(verdict.keep);
        end_generation(job, Finish::kWatched, verdict.close);
        return;
      }
    }
    if (num_new == job.max_new_tokens) {
      const bool cut = job.max_new_tokens < job.request.max_new_tokens;
      end_generation(job, cut ? Finish::kContext : Finish::kBudget, true);
    } else {
      scheduler.append(job.sequence, std::span(&token, 1));
    }
  }

  void end_generation(Job& job, Finish finish, bool close) {
    Completion& completion = job.completion;
    const Request& request = job.request;
    completion.finish = finish;
    completion.closed = close && !request.closing.empty();
    if (request.choices.empty()) {
      end_job(job);
      return;
    }
    // The scheduler knows the prompt and all new tokens but, perhaps, the last.
    const int64_t sequence = job.sequence, prompt = std::ssize(request.prompt);
    const int64_t known = scheduler.ids(sequence).size() - prompt;
    const int64_t kept = std::ssize(completion.new_tokens);
    if (kept < known) scheduler.truncate(sequence, prompt + kept);
    if (kept > known) scheduler.append(sequence, std::span(completion.new_tokens).subspan(known));
    if (completion.closed) scheduler.append(sequence, request.closing);
    job.answer_at = std::ssize(scheduler.ids(sequence)) - 1;
    if (scheduler.num_computed(sequence) > job.answer_at) {
      // Its keys are cached but its logits are gone.
      const int32_t last = scheduler.ids(sequence).back();
      scheduler.truncate(sequence, job.answer_at);
      scheduler.append(sequence, std::span(&last, 1));
    }
    if (!job.first_ids.empty()) scheduler.append(sequence, std::span(&job.first_ids[0], 1));
  }

  void read_choices(Job& job, int64_t position, const Softmax& softmax,
                    std::span<const float> logits) {
    Completion& completion = job.completion;
    const auto& choices = job.request.choices;
    const bool first = position == job.answer_at;
    if (first) {
      completion.p_choices.resize(choices.size());
      completion.last_is_argmax.resize(choices.size());
    }
    for (size_t i = 0; i < choices.size(); ++i) {
      const Ids& choice = choices[i];
      if (first) {
        completion.p_choices[i] = softmax.p(logits[choice[0]]);
        completion.last_is_argmax[i] = softmax.argmax == choice[0];
      } else if (choice.size() == 2 && choice[0] == job.first_ids[job.group]) {
        completion.p_choices[i] *= softmax.p(logits[choice[1]]);
        completion.last_is_argmax[i] = softmax.argmax == choice[1];
      }
    }
    if (first && !job.first_ids.empty()) return;
    if (++job.group < job.first_ids.size()) {
      scheduler.truncate(job.sequence, job.answer_at + 1);
      scheduler.append(job.sequence, std::span(&job.first_ids[job.group], 1));
    } else {
      end_job(job);
    }
  }
};

Engine::Engine(model::Decoder& decoder, const EngineOptions& options) {
  const auto require = [](const char* field, int64_t value) {
    if (value < 1) {
      base::fail(ErrorKind::kInvalidInput, "engine", field, " is ", value, ", expected 1 or more");
    }
  };
  require("max_batch_tokens", options.max_batch_tokens);
  require("max_sequences", options.max_sequences);
  state_ = std::make_unique<State>(decoder, options);
}

Engine::~Engine() = default;

void Engine::submit(Request request, OnDone on_done) {
  Job job;
  job.completion.prompt_tokens = std::ssize(request.prompt);
  job.request = std::move(request);
  job.on_done = std::move(on_done);
  try {
    state_->start(job);
  } catch (const Error&) {
    job.completion.fault = std::current_exception();
    state_->done.push_back(std::move(job));
  }
}

bool Engine::step() {
  const c10::InferenceMode guard;
  State& state = *state_;
  const bool delivered = state.deliver();
  const Step step = state.scheduler.next();
  if (step.entries.empty()) {
    ERANK_CHECK(state.jobs.empty(), state.jobs.size(), " requests stand still");
    return delivered;
  }
  try {
    state.pass(step);
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

void Engine::weights_changed() {
  ERANK_CHECK(state_->jobs.empty(), state_->jobs.size(), " requests are in flight");
  state_->scheduler.forget_prefixes();
}

const EngineStats& Engine::stats() const {
  state_->stats.num_waiting = state_->scheduler.num_waiting();
  state_->stats.num_running = state_->scheduler.num_running();
  return state_->stats;
}

void Engine::check_integrity() const {
  const State& state = *state_;
  state.scheduler.check_integrity();
  ERANK_CHECK(std::ssize(state.jobs) ==
              state.scheduler.num_waiting() + state.scheduler.num_running());
  for (const auto& [sequence, job] : state.jobs) {
    ERANK_CHECK(job.sequence == sequence);
    const int64_t known = std::ssize(state.scheduler.ids(sequence));
    ERANK_CHECK(state.scheduler.num_computed(sequence) < known, "request stands still");
    ERANK_CHECK(!job.reading() || known - job.answer_at == (job.first_ids.empty() ? 1 : 2));
    ERANK_CHECK(job.completion.p_choices.empty() || job.reading());
  }
}

}  // namespace erank::engine
