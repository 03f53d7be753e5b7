// Many requests to a chat endpoint over HTTP: several at a time, at a limited rate, repeated where
// that helps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "erank/synth/completion.h"

namespace erank::synth {

struct EndpointOptions {
  // Of the API, such as https://host/v1, to which /chat/completions is added unless it ends so; a
  // host alone gets /v1 before that.
  std::string url;
  std::string key = {};            // sent as bearer token, to this host alone; "": none
  int concurrency = 8;             // requests under way at a time
  double requests_per_minute = 0;  // sent evenly, repeated ones too; 0: as many as there are
  double timeout_s = 600;          // for one reply
  int retries = 8;                 // of one request
  double first_wait_s = 0.5;       // before it is sent again; doubled each time, up to a minute
  double grace_s = 5;              // for what is under way when the work is stopped
};

struct ChatRequest {
  int64_t number = 0;
  std::string body;  // JSON
};

// What became of a request. The key is in none of these texts, also where the server repeats it.
struct ChatReply {
  int64_t number = 0;
  std::optional<Completion> completion;  // nullopt: it failed for good
  std::string body;                      // as it came; of a failure with status 200 too
  std::string error;                     // of a failure: one line
};

struct ChatCounts {
  int64_t sent = 0;      // requests, each time that one was sent
  int64_t answered = 0;  // with a completion
  int64_t failed = 0;    // for good
  double paused_s = 0;   // until anything is sent again, as the server asks
};

// Status 408, 409, 425, 429 and 5xx, time-outs and connections that break are tried again, after
// Retry-After (also retry-after-ms) where the server sends it, else after a wait that doubles. 429
// and 503 let all requests wait and halve how many are under way; answers bring that back one by
// one. A reply that is no completion, or is longer than 16 MiB, fails for good: another one would
// be paid for. Redirects are not followed. Not thread-safe; all runs on the caller's thread.
class ChatEndpoint {
 public:
  // Throws Error{kInvalidInput} for a URL that is not http:// or https:// with a host, that holds a
  // name or password, and for a key with characters that no header can carry.
  explicit ChatEndpoint(EndpointOptions options);
  ~ChatEndpoint();
  ChatEndpoint(const ChatEndpoint&) = delete;
  ChatEndpoint& operator=(const ChatEndpoint&) = delete;

  // Without the query, for messages.
  const std::string& shown_url() const;

  struct Callbacks {
    std::function<std::optional<ChatRequest>()> next;  // nullopt: that was all
    std::function<void(ChatReply)> take;
    // Whether to stop: asked after each take(), and else a hundred times a second.
    std::function<bool(const ChatCounts&)> stop;
  };
  // Returns true when all requests have been answered or failed for good; false when `stop` said
  // so: what was under way may have come in during grace_s, the rest is dropped. What would fail
  // every request ends all after the same grace, with an Error: kInvalidInput for status 401, 402,
  // 404, 405 or an exhausted quota, before the first answer also 403, a redirect, an address that
  // does not answer, and ten requests that failed for good.
  bool run(const Callbacks& callbacks);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The key taken out of what a server sent.
std::string without_key(std::string text, const std::string& key);

}  // namespace erank::synth
