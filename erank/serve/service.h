// The routes of `erank serve` and what answers them: calls are read, scored by one reranker for all
// clients at once, and answered. Knows no socket.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "erank/base/json.h"
#include "erank/rank/reranker.h"
#include "erank/serve/api.h"
#include "erank/serve/http.h"

namespace erank::serve {

struct ServiceOptions {
  ApiLimits limits = {};
  ApiDefaults defaults = {};  // but for the mode, which is the model's
  // Pairs that are being computed, each sample of one counts; a call that would exceed it is
  // refused with 429 unless nothing is being computed. Lower it for short waits, raise it to refuse
  // less.
  int64_t max_queued_pairs = 4096;
  // Calls that came and are not read yet, and their bytes; what goes over is refused with 429.
  int64_t max_waiting_calls = 256;
  int64_t max_waiting_bytes = 256 << 20;
  // Bytes of the bodies of calls that are being answered, as a measure of their texts; one that
  // would exceed it is refused with 429 unless nothing else is being answered.
  int64_t max_running_bytes = 256 << 20;
  int64_t max_body_bytes = 0;           // only told by /info: the server keeps to it
  int64_t request_timeout_ms = 600000;  // then a call is answered with 504; 0: never
  int64_t default_deadline_ms = 0;      // of calls without deadline_ms; 0: none
  int64_t max_cache_bytes = 64 << 20;   // of results that are kept in memory; 0: none
  std::string cache_file = {};          // in which they are kept, too; "": in none
  std::string version = {};
  // Instructions to choose from, told by /info: a name and a text each.
  std::vector<std::pair<std::string, std::string>> instructions = {};
};

// What scores mean: probabilities of relevance, as results have them.
struct ServiceCalibration {
  // Of the model's own score of a pair with these options; none where the calibration is for scores
  // that are made otherwise. Called on the service's thread; must be quick and must not throw.
  std::function<std::optional<double>(double score, const rank::ScoreOptions& options)> relevance =
      {};
  base::OrderedJson info = nullptr;  // told by /info
};

// What there is to be counted. Called on the service's thread; must be quick and must not throw.
struct ServiceHooks {
  // Each pair of each call that has an outcome. `computed`: not taken from what was there.
  std::function<void(const rank::PassageResult& result, bool computed)> on_pair = {};
  struct Call {
    int64_t pairs = 0;
    double seconds = 0;        // since it came
    double first_seconds = 0;  // until the first pair had an outcome; 0 when none had
    int status = 200;          // also of what a stream ended with
  };
  std::function<void(const Call&)> on_call = {};  // that was read and has ended
  // What the operator should know, a line: the cache's file is not used any more.
  std::function<void(const std::string&)> on_warning = {};
};

struct ServiceStats {
  int64_t waiting_calls = 0;  // not read yet
  int64_t running_calls = 0;
  int64_t queued_pairs = 0;  // being computed, each sample counts
  int64_t computed_pairs = 0;
  int64_t cache_hits = 0;  // pairs answered without computing them
  int64_t cached_results = 0, cache_bytes = 0;
  double tokens_per_s = 0;  // through the network, in the last seconds
  double uptime_s = 0;
  bool ready = false;
  rank::RerankerStats reranker;  // zeros before there is one
};

// Every method is thread-safe. One thread of its own reads calls and sends answers.
class Service {
 public:
  // Throws Error for a cache_file that is something else or cannot be written.
  explicit Service(ServiceOptions options, ServiceHooks hooks = {});
  ~Service();  // what is not answered gets 503
  Service(const Service&) = delete;

  // From now on there are scores, and /ready says so. `files` is of what the model was read
  // from (rank::files_digest): results are kept by it. Once.
  void set_reranker(std::shared_ptr<rank::Reranker> reranker, const std::string& files,
                    ServiceCalibration calibration = {});

  // A further GET route, e.g. a page. `reply` is called on the thread that calls handle() and must
  // be quick. REQUIRES: called before handle().
  void add_route(const std::string& path, std::function<HttpReply(const HttpRequest&)> reply);

  std::vector<std::pair<std::string, std::string>> routes() const;  // method and path
  // The header Allow of a path: "GET, HEAD, OPTIONS", "POST, OPTIONS"; of an unknown one "OPTIONS",
  // of "*" (the whole server) all.
  std::string allow(std::string_view path) const;

  // A Handler. Answers what is cheap at once and queues the rest.
  void handle(HttpRequest request, std::shared_ptr<Responder> responder);

  void drain();       // new calls are refused with 503 and /ready says so; what runs goes on
  bool idle() const;  // no call waits or runs
  void cancel_all();  // what waits or runs is answered with 503

  ServiceStats stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::serve
