// What a handler of HTTP sees of a request and of its client. The server (serve/server.h) hides
// sockets; handlers know no socket.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace erank::serve {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/v1/rerank": percent-decoded, without the query
  std::string query;   // after "?", as it came
  Headers headers;     // names in lower case, in order
  std::string body;
  std::string id;    // X-Request-Id of the client when it is fit for a log, else made here
  std::string peer;  // the client's address

  // The first header of that name (in lower case); "" when there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpReply {
  int status = 200;
  std::string body;
  std::string type = "application/json";
  Headers headers = {};  // further ones
};

// The way back to one request's client. Every method is thread-safe and returns at once; what is
// written after the client has left is dropped. Exactly one of send() and begin_events() is called,
// once; a responder that is dropped before either answers 500, and one that is dropped in a stream
// ends it with that status.
class Responder {
 public:
  virtual ~Responder() = default;
  virtual void send(HttpReply reply) = 0;
  // A stream of server-sent events: status 200 and its head are sent at once.
  virtual void begin_events(Headers headers = {}) = 0;
  // One event: a name ("result") and a line of data, JSON. False when the client has left or reads
  // so slowly that the stream was cut.
  virtual bool event(std::string_view name, std::string_view data) = 0;
  // `status`: 200, or what a reply would have had in place of an error event; for the log and the
  // counts alone.
  virtual void end_events(int status) = 0;
  // Calls `left` (on the server's thread, at most once) when the client leaves before the reply is
  // complete; at once when it has left already.
  virtual void on_client_left(std::function<void()> left) = 0;
};

// Called on the server's I/O thread: must not block. May keep the responder and answer later, from
// any thread.
using Handler = std::function<void(HttpRequest, std::shared_ptr<Responder>)>;

}  // namespace erank::serve
