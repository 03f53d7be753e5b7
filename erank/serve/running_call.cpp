#include "erank/serve/running_call.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "erank/base/error.h"

namespace erank::serve {

using base::OrderedJson;
using rank::PassageResult;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kProgressEvery{200}, kProgressAtLeast{1000};

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// When not one pair has a score, and no deadline is the reason.
ApiError nothing_scored(const rank::PassageError& error) {
  using Kind = rank::PassageError::Kind;
  switch (error.kind) {
    case Kind::kTooLong:
    case Kind::kNoRoom:
      return ApiError(422, error.message);
    case Kind::kCancelled:
      return ApiError(503, error.message);
    case Kind::kNotFinite:
    case Kind::kFailed:
      break;
  }
  return ApiError(500, error.message);
}

}  // namespace

RunningCall::RunningCall(uint64_t number, RerankCall call, ReplyContext context, Arrival arrival,
                         PairPool& pool, const ServiceCalibration& calibration,
                         const ServiceHooks& hooks)
    : number_(number),
      call_(std::move(call)),
      context_(std::move(context)),
      arrival_(std::move(arrival)),
      pool_(&pool),
      calibration_(&calibration),
      hooks_(&hooks) {
  for (const QueryCall& query : call_.queries) documents_.emplace_back(query.documents->size());
  if (call_.deadline_ms) deadline_ = arrival_.came + milliseconds(*call_.deadline_ms);
  if (arrival_.timeout_ms > 0) timeout_ = arrival_.came + milliseconds(arrival_.timeout_ms);
}

void RunningCall::start(const std::function<void(int64_t)>& refuse) {
  const rank::Mode mode = call_.options.mode.value_or(pool_->reranker().defaults().mode);
  // With a deadline direct scores come first: they are the best known of what is not reasoned about
  // in time.
  two_stages_ = call_.explain_top > 0 || (mode == rank::Mode::kThink && deadline_);
  Chosen all;
  total_ = 0;
  for (const auto& documents : documents_) {
    auto& list = all.emplace_back(documents.size());
    std::iota(list.begin(), list.end(), size_t{0});
    const auto size = std::ssize(documents);
    total_ += size;
    if (two_stages_)
      total_ += call_.explain_top > 0 ? std::min<int64_t>(call_.explain_top, size) : size;
  }
  const rank::Mode first_mode = two_stages_ ? rank::Mode::kDirect : mode;
  const Keys keys = keys_of(first_mode, all);
  // What reasoning will add is let in now or never.
  int64_t missing = num_later(all, keys);
  for (const auto& of_query : keys)
    missing += pool_->num_missing(of_query) * samples_of(first_mode);
  refuse(missing);
  auto answers = ask(first_mode, all, keys);
  if (call_.stream) {
    arrival_.responder->begin_events();
    streams_ = true;
    const bool thinks = two_stages_ || mode == rank::Mode::kThink;
    event("start", {{"id", context_.id},
                    {"model", context_.model},
                    {"mode", mode_name(thinks ? rank::Mode::kThink : rank::Mode::kDirect)},
                    {"total", total_}});
    last_progress_ = Clock::now();
  }
  receive(std::move(answers));
}

RunningCall::Keys RunningCall::keys_of(rank::Mode mode, const Chosen& chosen) const {
  rank::ScoreOptions options = call_.options;
  options.mode = mode;
  Keys keys;
  for (size_t q = 0; q < chosen.size(); ++q)
    keys.push_back(pool_->keys(call_.queries[q], chosen[q], options));
  return keys;
}

int64_t RunningCall::samples_of(rank::Mode mode) const {
  return mode == rank::Mode::kThink ? call_.options.samples : 1;
}

// With explain_top it is known which pairs these are when all direct scores are; until then as many
// as there may be.
int64_t RunningCall::num_later(const Chosen& all, const Keys& keys) {
  if (!two_stages_) return 0;
  Chosen chosen = all;
  for (size_t q = 0; call_.explain_top > 0 && q < all.size(); ++q) {
    auto known = pool_->known(keys[q]);
    if (!known) continue;
    for (PassageResult& result : *known) {
      add_first_stage(q, result);
      documents_[q][result.index].result = std::move(result);
    }
    chosen[q] = best(q);
  }
  int64_t later = 0;
  for (const auto& of_query : keys_of(rank::Mode::kThink, chosen)) {
    const int64_t missing = pool_->num_missing(of_query);
    later += call_.explain_top > 0 ? std::min(missing, call_.explain_top) : missing;
  }
  return later * samples_of(rank::Mode::kThink);
}

std::vector<PairPool::Answer> RunningCall::ask(rank::Mode mode, const Chosen& chosen,
                                               const Keys& keys) {
  rank::ScoreOptions options = call_.options;
  options.mode = mode;
  std::vector<PairPool::Answer> answers;
  pending_ = 0;
  for (size_t q = 0; q < chosen.size(); ++q) {
    pending_ += chosen[q].size();
    auto more = pool_->ask(number_, q, call_.queries[q], chosen[q], options, keys[q]);
    std::move(more.begin(), more.end(), std::back_inserter(answers));
  }
  return answers;
}

void RunningCall::receive(std::vector<PairPool::Answer> answers) {
  for (auto& answer : answers) {
    if (ended_) return;
    take(std::move(answer));
  }
}

void RunningCall::take(PairPool::Answer answer) {
  if (ended_) return;
  PassageResult& result = answer.result;
  Document& document = documents_.at(answer.query).at(result.index);
  add_first_stage(answer.query, result);
  add_relevance(result);
  if (hooks_->on_pair) hooks_->on_pair(result, !answer.cached);
  ++done_;
  if (!answer.cached) tokens_ += result.prompt_tokens + result.new_tokens;
  if (!first_) first_ = Clock::now();
  if (!first_stage_ && result.error) {
    document.result->flags.push_back("no_reasoning");
    result = *document.result;
  }
  // A direct score is not the last word where reasoning was asked for all.
  document.final = !two_stages_ || !first_stage_ || call_.explain_top > 0 || result.error;
  if (streams_)
    event("result",
          stream_item(call_, answer.query, result, context_, two_stages_ && first_stage_));
  document.result = std::move(result);
  --pending_;
  if (streams_ && Clock::now() - last_progress_ >= kProgressEvery) send_progress(Clock::now());
  if (pending_ == 0) end_stage();
}

void RunningCall::end_stage() {
  if (!two_stages_ || !first_stage_) return finish();
  first_stage_ = false;
  Chosen chosen;
  for (size_t q = 0; q < documents_.size(); ++q) {
    chosen.push_back(best(q));
    for (const size_t d : chosen[q]) documents_[q][d].final = false;
  }
  auto answers = ask(rank::Mode::kThink, chosen, keys_of(rank::Mode::kThink, chosen));
  if (pending_ == 0) return finish();
  receive(std::move(answers));
}

std::vector<size_t> RunningCall::best(size_t query) const {
  std::vector<size_t> chosen;
  for (const PassageResult& result : ranking_of(query, false).results) {
    if (call_.explain_top > 0 && std::ssize(chosen) == call_.explain_top) break;
    chosen.push_back(result.index);
  }
  return chosen;
}

void RunningCall::add_first_stage(size_t query, PassageResult& result) const {
  const auto& first_stage = call_.queries[query].first_stage;
  if (!first_stage.empty()) result.first_stage_score = first_stage[result.index];
}

void RunningCall::add_relevance(PassageResult& result) const {
  if (!calibration_->relevance || result.error) return;
  rank::ScoreOptions options = call_.options;
  if (two_stages_) options.mode = first_stage_ ? rank::Mode::kDirect : rank::Mode::kThink;
  result.relevance = calibration_->relevance(result.score, options);
}

rank::Ranking RunningCall::ranking_of(size_t query, bool late) const {
  std::vector<PassageResult> results;
  for (size_t d = 0; d < documents_[query].size(); ++d) {
    const Document& document = documents_[query][d];
    PassageResult& result = results.emplace_back();
    if (document.result) {
      result = *document.result;
    } else {
      result.index = d;
      result.docid = std::to_string(d);
      add_first_stage(query, result);
      result.error = {
          rank::PassageError::Kind::kCancelled,
          base::str("document ", d, ": not scored in deadline_ms ", call_.deadline_ms.value_or(0))};
    }
    if (late && !document.final) result.flags.push_back("deadline");
  }
  return rank::make_ranking(std::to_string(query), std::move(results), call_.options);
}

void RunningCall::finish() {
  std::vector<rank::Ranking> rankings;
  for (size_t q = 0; q < documents_.size(); ++q) rankings.push_back(ranking_of(q, true));
  const PassageResult* failed = nullptr;
  bool usable = false;
  for (const auto& ranking : rankings) {
    usable |= !ranking.results.empty();
    for (const PassageResult& result : ranking.failed) {
      if (!failed) failed = &result;
      usable |= std::count(result.flags.begin(), result.flags.end(), "deadline") > 0;
    }
  }
  if (!usable && failed) return fail(nothing_scored(*failed->error));
  const OrderedJson reply = reply_json(call_, rankings, context_);
  ended_ = true;
  pool_->leave(number_);
  if (streams_) {
    event("ranking", reply);
    arrival_.responder->end_events(200);
  } else {
    arrival_.responder->send({.status = 200, .body = base::dump_json(reply)});
  }
  end(200);
}

void RunningCall::fail(const ApiError& error) {
  if (ended_) return;
  ended_ = true;
  pool_->leave(number_);
  ApiError shaped = error;
  shaped.shape = call_.shape;
  if (streams_) {
    arrival_.responder->event("error", error_body(shaped, context_.id));
    arrival_.responder->end_events(shaped.status);
  } else {
    arrival_.responder->send(error_reply(shaped, context_.id));
  }
  end(error.status);
}

void RunningCall::abandon() {
  if (ended_) return;
  ended_ = true;
  pool_->leave(number_);
  constexpr int kClientClosedRequest = 499;
  end(kClientClosedRequest);
}

void RunningCall::end(int status) {
  if (!hooks_->on_call) return;
  hooks_->on_call({call_.num_pairs, seconds(Clock::now() - arrival_.came),
                   first_ ? seconds(*first_ - arrival_.came) : 0.0, status});
}

Clock::time_point RunningCall::next_tick() const {
  auto next = Clock::time_point::max();
  if (deadline_) next = std::min(next, *deadline_);
  if (timeout_) next = std::min(next, *timeout_);
  if (streams_) next = std::min(next, last_progress_ + kProgressAtLeast);
  return next;
}

void RunningCall::tick(Clock::time_point now) {
  if (ended_) return;
  if (deadline_ && now >= *deadline_) return finish();
  if (timeout_ && now >= *timeout_)
    return fail(ApiError(504, base::str("not answered in ", arrival_.timeout_ms,
                                        " ms; ask for fewer documents, fewer max_think_tokens or a "
                                        "deadline_ms")));
  if (streams_ && now >= last_progress_ + kProgressAtLeast) send_progress(now);
}

void RunningCall::send_progress(Clock::time_point now) {
  last_progress_ = now;
  const double elapsed = std::max(seconds(now - arrival_.came), 1e-3);
  const double left = static_cast<double>(total_ - done_);
  event("progress", {{"done", done_},
                     {"total", total_},
                     {"tokens", tokens_},
                     {"tokens_per_s", static_cast<double>(tokens_) / elapsed},
                     {"eta_s", done_ > 0 ? OrderedJson(left * elapsed / static_cast<double>(done_))
                                         : OrderedJson(nullptr)}});
}

void RunningCall::event(const char* name, const OrderedJson& data) {
  arrival_.responder->event(name, base::dump_json(data));
}

}  // namespace erank::serve
