// The queries that `erank rerank --candidates -` reads while it answers the ones before.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/rerank_jobs.h"

namespace erank::cli {

// Throws for a query that cannot be reranked; `where` is its place: "stdin:3".
using RerankCheck = std::function<void(const RerankJob& job, const std::string& where)>;

// Reads stdin on a thread of its own, which waits while about `most_pairs` are not taken. Every
// method may be called from one other thread.
class RerankStream {
 public:
  // `check` sees each query as it is read. `on_news` says on the reading thread that there is
  // something to take or that the end has come.
  RerankStream(const RerankInput& input, int64_t most_pairs, RerankCheck check,
               std::function<void()> on_news);
  ~RerankStream();  // does not wait for who writes to stdin

  // The next query; nullopt: none has come since, or at_end().
  std::optional<RerankJob> take();
  // Whether all were taken that could be read.
  bool at_end() const;
  // After the end: throws what ended it before its time, naming the line. Else warns of what was
  // repaired and of queries without candidates.
  void finish() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace erank::cli
