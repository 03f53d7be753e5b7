// Scores of pairs for several callers at once: what was computed is kept, and what is being
// computed is computed once.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "erank/data/journal.h"
#include "erank/rank/reranker.h"
#include "erank/serve/api.h"

namespace erank::serve {

struct CacheOptions {
  int64_t max_bytes = 64 << 20;  // of results in memory; 0: none
  // Results are also kept in this file, which outlives the process; "": in none. It belongs to one
  // process at a time and must not be on a network file system.
  std::string file = {};
  int64_t max_file_results = 1000000;  // then nothing more is written to it
};

// Results by key: in memory, the least recently used dropped first, and in a file. One thread at a
// time.
class ResultCache {
 public:
  // Throws as data::Journal::open for a file that is not a cache or cannot be written.
  explicit ResultCache(CacheOptions options);

  std::optional<rank::PassageResult> find(const std::string& key);
  bool contains(const std::string& key) const;
  // Replaces what is there. REQUIRES: no error in `result`.
  void insert(const std::string& key, rank::PassageResult result);

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }  // in memory
  int64_t bytes() const { return bytes_; }                                // in memory, about
  // Why the file is not used any more, once: a full disk, a damaged file. Nothing else is lost.
  std::optional<std::string> take_fault();

 private:
  struct Entry {
    std::string key;
    rank::PassageResult result;
    int64_t bytes = 0;
  };
  void remember(const std::string& key, rank::PassageResult result);
  template <typename Step>
  auto with_file(Step step) const -> decltype(step(std::declval<data::Journal&>()));

  CacheOptions options_;
  int64_t bytes_ = 0;
  std::list<Entry> used_;  // the last used first
  std::unordered_map<std::string, std::list<Entry>::iterator> entries_;
  mutable std::optional<data::Journal> file_;
  mutable std::optional<std::string> fault_;
};

// What tells one result from another: `identity` (the model's files, its precision, prompt and
// defaults), every option that changes a score, the query and the document. REQUIRES: mode, score,
// instruction and max_think_tokens are set.
std::string pair_key(const std::string& identity, const rank::ScoreOptions& options,
                     const std::string& query, const std::string& document);

// Asks the reranker for pairs on behalf of callers, whose numbers are the user's choice. One thread
// at a time.
class PairPool {
 public:
  struct Answer {
    uint64_t caller = 0;
    size_t query = 0;            // as it was asked for
    rank::PassageResult result;  // its index is the document's
    bool cached = false;         // was not computed for this caller
  };
  // Called for each pair that is done, on the reranker's thread or by send(): the arguments are to
  // reach take().
  using Post = std::function<void(uint64_t job, rank::PassageResult result)>;

  // `files` is the digest of what the model was read from.
  PairPool(std::shared_ptr<rank::Reranker> reranker, const std::string& files, ResultCache cache,
           Post post);
  ~PairPool();  // cancels all

  // The keys of a query's documents; what is not set in `options` is the checkpoint's.
  std::vector<std::string> keys(const QueryCall& query, const std::vector<size_t>& documents,
                                const rank::ScoreOptions& options) const;
  // How many of them would have to be computed.
  int64_t num_missing(const std::vector<std::string>& keys) const;
  // Their results when every one is known; `keys` are of all documents of a query.
  std::optional<std::vector<rank::PassageResult>> known(const std::vector<std::string>& keys);

  // What is known is returned; the rest comes from take(), after send() has handed it on.
  // REQUIRES: `keys` are those of the same arguments.
  std::vector<Answer> ask(uint64_t caller, size_t query_number, const QueryCall& query,
                          const std::vector<size_t>& documents, const rank::ScoreOptions& options,
                          const std::vector<std::string>& keys);
  // Hands the reranker some of what was asked for, of each ask() in turn: a part, since a text's
  // tokens are made on this thread. What the reranker refuses is posted as failed.
  void send();
  bool has_unsent() const { return !unsent_.empty(); }
  // For whom a result is that was posted.
  std::vector<Answer> take(uint64_t job, rank::PassageResult result);
  // The caller gets no further answers. Pairs for which nobody waits any more are cancelled.
  void leave(uint64_t caller);

  // Pairs that are asked for and not there yet; each sample of a pair counts.
  int64_t num_computing() const { return num_computing_; }
  int64_t take_num_done() { return std::exchange(num_done_, 0); }  // likewise, since the last time
  int64_t num_hits() const { return num_hits_; }  // pairs that were not computed again
  ResultCache& cache() { return cache_; }
  const rank::Reranker& reranker() const { return *reranker_; }

 private:
  struct Waiter {
    uint64_t caller;
    size_t query, document;
  };
  struct Pair {  // that is being computed
    uint64_t job;
    size_t passage;  // of the request, once it is sent
    std::vector<Waiter> waiters;
  };
  struct Job {  // a request of the reranker, of some of the pairs of one ask()
    std::optional<rank::RankRequest> request = {};  // until it is sent, without passages
    std::shared_ptr<const std::vector<std::string>> texts = {};  // of all documents; likewise
    std::vector<size_t> documents = {};                          // by passage; likewise
    int64_t text_bytes = 0;
    int64_t samples = 1;  // of a pair
    rank::Ticket ticket = {};
    std::vector<std::string> keys = {};  // by passage
    size_t num_left = 0;                 // passages without an outcome
  };

  rank::ScoreOptions resolved(rank::ScoreOptions options) const;

  std::shared_ptr<rank::Reranker> reranker_;
  std::string identity_;
  ResultCache cache_;
  Post post_;
  uint64_t next_job_ = 1;
  int64_t num_computing_ = 0, num_done_ = 0, num_hits_ = 0;
  std::unordered_map<std::string, Pair> pairs_;
  std::unordered_map<uint64_t, Job> jobs_;
  std::deque<std::deque<uint64_t>> unsent_;  // jobs by ask(); those that nobody wants are no more
  std::unordered_map<uint64_t, std::vector<std::string>> asked_;  // by caller
};

}  // namespace erank::serve
