// One request between the server's thread and those that answer it. No socket in it.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "erank/serve/http.h"

namespace erank::serve {

// What the server's thread has to write next.
struct ExchangeOutput {
  std::optional<HttpReply> reply;
  std::optional<Headers> begun;  // a stream has begun, with these headers
  std::string events;            // text of events that are not written yet
  bool ended = false;            // the stream's events are complete
  int status = 200;              // what it ended with
  bool too_slow = false;         // the stream was cut: more was waiting than allowed
};

// Thread-safe. `wake` is called, from any thread, when take() has something new, until close().
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  // An event is refused, and the stream cut, when more than `max_waiting` bytes wait already.
  Exchange(std::function<void()> wake, size_t max_waiting);

  // What the handler gets. When the last copy goes before an answer, the answer is 500.
  std::shared_ptr<Responder> responder(std::string request_id);

  // The server's thread: what is new since the last call.
  ExchangeOutput take();
  // The server's thread: whether the stream was cut; takes nothing.
  bool too_slow();
  // The server's thread: nothing is written any more. `left`: the client does not get all of
  // it, which is when on_client_left's function is called.
  void close(bool left);

 private:
  friend class ExchangeResponder;
  void send(HttpReply reply);
  void begin(Headers headers);
  bool add(std::string text);
  void end(int status);
  void on_left(std::function<void()> left);
  void dropped(const std::string& request_id);
  void wake_locked();

  std::mutex mutex_;
  std::function<void()> wake_;
  const size_t max_waiting_;
  ExchangeOutput output_;
  bool answered_ = false;  // send() or begin() was called
  bool streams_ = false, woken_ = false, closed_ = false, client_left_ = false;
  std::function<void()> left_;
};

}  // namespace erank::serve
