// How long work tells its caller how far it is. The library only reports; the program shows.
#pragma once

#include <cstdint>
#include <string>

namespace erank::base {

struct Progress {
  std::string what;    // "rerank", "read corpus": stays the same for one piece of work
  int64_t done = 0;    // in `unit`
  int64_t total = 0;   // 0 when it is not known
  std::string unit;    // "pairs", "documents"
  std::string detail;  // free text, e.g. "812 tokens/s"
};

// Takes reports. update() may be called from any thread, one at a time, as often as work likes;
// what is shown, and how often, is the sink's business. It must not throw.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  virtual void update(const Progress& progress) = 0;
  virtual void finish() {}  // the last update was the end
};

}  // namespace erank::base
