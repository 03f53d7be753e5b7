#include "erank/serve/cache.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/rank/result_json.h"

namespace erank::serve {

using rank::PassageResult;
using rank::ScoreOptions;

namespace {

// Raised when the same key would mean another score: a change of prompt or scoring in the code.
constexpr const char* kVersion = "1";

int64_t bytes_of(const std::string& key, const PassageResult& result) {
  int64_t bytes = std::ssize(result.reasoning) + std::ssize(result.docid);
  for (const std::string& flag : result.flags) bytes += std::ssize(flag) + 32;
  constexpr int64_t kNodes = 160;  // of the list and the map
  return bytes + 2 * std::ssize(key) + kNodes + static_cast<int64_t>(sizeof(PassageResult));
}

// Of the texts of a request of the reranker, unless one alone has more: their tokens are made in
// about 10 ms.
constexpr int64_t kJobBytes = 128 << 10;

// The reranker's message names its own numbers of query and document.
void relocate(PassageResult& result, size_t document) {
  result.index = document;
  result.docid = std::to_string(document);
  if (!result.error) return;
  std::string& message = result.error->message;
  constexpr std::string_view kMark = ", document ";
  const size_t mark = message.find(kMark);
  const size_t colon = mark == message.npos ? mark : message.find(": ", mark);
  if (colon != message.npos) message = base::str("document ", document, message.substr(colon));
}

}  // namespace

ResultCache::ResultCache(CacheOptions options) : options_(std::move(options)) {
  if (options_.file.empty()) return;
  const auto start = data::Journal::exists(options_.file) ? data::Journal::Start::kResume
                                                          : data::Journal::Start::kNew;
  file_.emplace(data::Journal::open(options_.file, {{"kind", "results of erank serve"}}, start));
}

// `step` on the file, where there is one; what it throws is the end of its use.
template <typename Step>
auto ResultCache::with_file(Step step) const -> decltype(step(std::declval<data::Journal&>())) {
  if (!file_) return {};
  try {
    return step(*file_);
  } catch (const base::Error& error) {
    fault_ = error.what();
    file_.reset();
    return {};
  }
}

std::optional<std::string> ResultCache::take_fault() { return std::exchange(fault_, std::nullopt); }

bool ResultCache::contains(const std::string& key) const {
  return entries_.contains(key) ||
         with_file([&](data::Journal& file) { return file.find(key).has_value(); });
}

std::optional<PassageResult> ResultCache::find(const std::string& key) {
  if (const auto it = entries_.find(key); it != entries_.end()) {
    used_.splice(used_.begin(), used_, it->second);
    return it->second->result;
  }
  auto result = with_file([&](data::Journal& file) -> std::optional<PassageResult> {
    const auto line = file.find(key);
    if (!line) return std::nullopt;
    return rank::result_from_json(base::parse_json(*line, options_.file), options_.file);
  });
  if (result) remember(key, *result);
  return result;
}

void ResultCache::insert(const std::string& key, PassageResult result) {
  ERANK_CHECK(!result.error);
  with_file([&](data::Journal& file) {
    return file.size() < options_.max_file_results &&
           file.append(key, base::dump_json(rank::to_json("", 0, result)));
  });
  remember(key, std::move(result));
}

void ResultCache::remember(const std::string& key, PassageResult result) {
  if (const auto it = entries_.find(key); it != entries_.end()) {
    bytes_ -= it->second->bytes;
    used_.erase(it->second);
    entries_.erase(it);
  }
  const int64_t bytes = bytes_of(key, result);
  if (bytes > options_.max_bytes) return;
  used_.push_front({key, std::move(result), bytes});
  entries_[key] = used_.begin();
  bytes_ += bytes;
  while (bytes_ > options_.max_bytes) {
    bytes_ -= used_.back().bytes;
    entries_.erase(used_.back().key);
    used_.pop_back();
  }
}

std::string pair_key(const std::string& identity, const ScoreOptions& o, const std::string& query,
                     const std::string& document) {
  std::string text;
  const auto add = [&](std::string_view part) {
    text += std::to_string(part.size());
    text += ':';
    text += part;
  };
  add(kVersion);
  add(identity);
  add(*o.instruction);
  const bool think = *o.mode == rank::Mode::kThink;
  add(think ? "think" : "direct");
  add(std::to_string(static_cast<int>(*o.score)));
  // What only reasoning depends on must not tell direct answers apart.
  add(think ? base::str(*o.max_think_tokens, " ", std::bit_cast<uint64_t>(o.temperature), " ",
                        o.seed, " ", o.samples)
            : "");
  add(o.long_documents == rank::LongDocuments::kWindows ? base::str("windows ", o.max_windows)
                                                        : "cut");
  add(query);
  add(document);
  return base::sha256(text);
}

// Of the defaults the prompt alone: the others are in each key, as far as they count.
PairPool::PairPool(std::shared_ptr<rank::Reranker> reranker, const std::string& files,
                   ResultCache cache, Post post)
    : reranker_(std::move(reranker)),
      identity_(base::str(files, " ", reranker_->precision_name(), " ",
                          base::dump_json(rank::to_json(
                              rank::CheckpointDefaults{.prompt = reranker_->defaults().prompt})))),
      cache_(std::move(cache)),
      post_(std::move(post)) {}

PairPool::~PairPool() {
  for (auto& [number, job] : jobs_) job.ticket.cancel();
}

ScoreOptions PairPool::resolved(ScoreOptions options) const {
  const rank::CheckpointDefaults& defaults = reranker_->defaults();
  if (!options.instruction) options.instruction = defaults.instruction;
  if (!options.mode) options.mode = defaults.mode;
  if (!options.score) options.score = defaults.score;
  if (!options.max_think_tokens) options.max_think_tokens = defaults.max_think_tokens;
  options.hybrid_weight.reset();  // a pair's own score does not depend on its list
  if (options.mode == rank::Mode::kDirect) options.temperature = 0;
  if (options.temperature == 0) options.temperature = 0, options.seed = 0, options.samples = 1;
  return options;
}

std::vector<std::string> PairPool::keys(const QueryCall& query,
                                        const std::vector<size_t>& documents,
                                        const ScoreOptions& options) const {
  const ScoreOptions all = resolved(options);
  std::vector<std::string> keys;
  for (const size_t d : documents)
    keys.push_back(pair_key(identity_, all, query.query, query.documents->at(d)));
  return keys;
}

int64_t PairPool::num_missing(const std::vector<std::string>& keys) const {
  return std::count_if(keys.begin(), keys.end(), [&](const std::string& key) {
    return !cache_.contains(key) && !pairs_.contains(key);
  });
}

std::optional<std::vector<PassageResult>> PairPool::known(const std::vector<std::string>& keys) {
  std::vector<PassageResult> results;
  for (size_t i = 0; i < keys.size(); ++i) {
    auto result = cache_.find(keys[i]);
    if (!result) return std::nullopt;
    relocate(*result, i);
    results.push_back(std::move(*result));
  }
  return results;
}

std::vector<PairPool::Answer> PairPool::ask(uint64_t caller, size_t query_number,
                                            const QueryCall& query,
                                            const std::vector<size_t>& documents,
                                            const ScoreOptions& options,
                                            const std::vector<std::string>& keys) {
  ERANK_CHECK(keys.size() == documents.size());
  const ScoreOptions all = resolved(options);
  std::vector<Answer> answers;
  std::deque<uint64_t> unsent;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (auto known = cache_.find(keys[i])) {
      relocate(*known, documents[i]);
      answers.push_back({caller, query_number, std::move(*known), true});
      ++num_hits_;
      continue;
    }
    const auto [at, is_new] = pairs_.try_emplace(keys[i]);
    Pair& pair = at->second;
    if (is_new) {
      if (unsent.empty() || jobs_.at(unsent.back()).text_bytes >= kJobBytes) {
        unsent.push_back(next_job_++);
        jobs_[unsent.back()] = {.request = rank::RankRequest{.qid = base::sha256(query.query),
                                                             .query = query.query,
                                                             .passages = {},
                                                             .options = all,
                                                             .queue = static_cast<int64_t>(caller)},
                                .texts = query.documents,
                                .samples = all.samples};
      }
      pair.job = unsent.back();
      Job& job = jobs_.at(pair.job);
      job.documents.push_back(documents[i]);
      job.text_bytes += std::ssize(query.query) + std::ssize(*all.instruction) +
                        std::ssize(query.documents->at(documents[i]));
      job.keys.push_back(keys[i]);
      ++job.num_left;
    }
    if (is_new)
      num_computing_ += all.samples;
    else
      ++num_hits_;
    pair.waiters.push_back({caller, query_number, documents[i]});
    asked_[caller].push_back(keys[i]);
  }
  if (!unsent.empty()) unsent_.push_back(std::move(unsent));
  return answers;
}

void PairPool::send() {
  while (!unsent_.empty()) {
    std::deque<uint64_t> numbers = std::move(unsent_.front());
    unsent_.pop_front();
    const uint64_t number = numbers.front();
    numbers.pop_front();
    if (!numbers.empty()) unsent_.push_back(std::move(numbers));
    const auto at = jobs_.find(number);
    if (at == jobs_.end()) continue;
    Job& job = at->second;
    rank::RankRequest request = std::move(*job.request);
    job.request.reset();
    std::vector<std::string> keys;
    for (size_t i = 0; i < job.keys.size(); ++i) {
      const auto pair = pairs_.find(job.keys[i]);
      if (pair == pairs_.end() || pair->second.job != number) continue;  // nobody waits for it
      pair->second.passage = keys.size();
      keys.push_back(std::move(job.keys[i]));
      const std::string& text = job.texts->at(job.documents[i]);
      // Its id is what the draws of its reasoning depend on.
      request.passages.push_back({base::sha256(text), text, {}});
    }
    job.keys = std::move(keys);
    job.documents = {};
    job.texts = nullptr;
    try {
      job.ticket = reranker_->submit(
          std::move(request), {.on_result = [post = post_, number](const PassageResult& result) {
            post(number, result);
          }});
    } catch (const std::exception& error) {  // these pairs alone
      for (size_t i = 0; i < job.keys.size(); ++i) {
        PassageResult failed;
        failed.index = i;
        failed.error = {dynamic_cast<const base::Error*>(&error)
                            ? rank::PassageError::Kind::kCancelled
                            : rank::PassageError::Kind::kFailed,
                        error.what()};
        post_(number, std::move(failed));
      }
    }
    return;
  }
}

std::vector<PairPool::Answer> PairPool::take(uint64_t number, PassageResult result) {
  Job& job = jobs_.at(number);
  const std::string key = job.keys.at(result.index);
  std::vector<Answer> answers;
  // It is another job's pair when this one was cancelled and somebody asked again.
  if (const auto it = pairs_.find(key); it != pairs_.end() && it->second.job == number) {
    bool first = true;
    for (const Waiter& waiter : it->second.waiters) {
      answers.push_back({waiter.caller, waiter.query, result, !std::exchange(first, false)});
      relocate(answers.back().result, waiter.document);
    }
    pairs_.erase(it);
  }
  result.docid.clear();  // of the request alone
  if (!result.error) cache_.insert(key, std::move(result));
  num_computing_ -= job.samples;
  num_done_ += job.samples;
  if (--job.num_left == 0) jobs_.erase(number);
  return answers;
}

void PairPool::leave(uint64_t caller) {
  const auto asked = asked_.find(caller);
  if (asked == asked_.end()) return;
  const auto keys = std::move(asked->second);
  asked_.erase(asked);
  for (const std::string& key : keys) {
    const auto it = pairs_.find(key);
    if (it == pairs_.end()) continue;
    Pair& pair = it->second;
    if (std::erase_if(pair.waiters, [&](const Waiter& w) { return w.caller == caller; }) == 0 ||
        !pair.waiters.empty())
      continue;
    Job& job = jobs_.at(pair.job);
    if (!job.request) {
      job.ticket.cancel(pair.passage);
    } else {
      num_computing_ -= job.samples;
      if (--job.num_left == 0) jobs_.erase(pair.job);
    }
    pairs_.erase(it);  // so that nobody waits for what will not come
  }
}

}  // namespace erank::serve
