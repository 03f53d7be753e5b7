// An HTTP/1.1 server: sockets, limits, time-outs, keys, CORS and an orderly end. It knows no route.
//
//   Server server({.port = 8080}, [](HttpRequest request, std::shared_ptr<Responder> responder) {
//     responder->send({.status = 200, .body = "{}"});
//   });
//   std::thread io([&] { server.run(); });
//   server.stop(std::chrono::seconds(30));
//
// A handler sees GET where a client sent HEAD, whose reply loses its body, and sees no OPTIONS.
// Requests of one connection are handled one after another, pipelined or not. A client that closes
// its side, even if it would still read, has left.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "erank/serve/access.h"
#include "erank/serve/http.h"

namespace erank::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address of this machine, "::" is all of them; or a name, of
                                   // which every address is listened at
  int port = 0;                    // 0: a free one, see Server::port()
  int64_t max_body_bytes = 32 << 20;    // more: 413
  int64_t max_header_bytes = 16 << 10;  // more: 431
  int max_connections = 1024;           // more: 503
  // Of all bodies that are being read, together; one that comes when more is there gets 429. At
  // least max_body_bytes.
  int64_t max_reading_bytes = 256 << 20;
  // A client that is slow: for the head and the body of a request it has this time and a second
  // more for each KiB that has come (then 408); of a reply it has to take something in this time,
  // and all of it, or of a stream what waits, in this time and a second more for each
  // min_reply_rate bytes, else the connection is cut.
  std::chrono::milliseconds client_timeout{20000};
  int64_t min_reply_rate = 16 << 10;              // bytes a second
  std::chrono::milliseconds idle_timeout{75000};  // between the requests of a connection
  // From the complete request to the beginning of its reply; then 504, and on_client_left's
  // function is called. 0: no limit.
  std::chrono::milliseconds request_timeout{0};
  // Of events that wait for a client to read on; what comes when more are waiting cuts the stream.
  int64_t max_waiting_event_bytes = 4 << 20;
  std::vector<std::string> api_keys = {};  // none: no key is asked for
  std::vector<std::string> open_paths = {"/health",  "/ready",        "/ping", "/version",
                                         "/metrics", "/openapi.json", "/docs"};  // need no key
  // Further names that the header Host may have, without ports. It is checked where there are some,
  // and where the server listens on loopback addresses alone and asks for no key; localhost,
  // 127.0.0.1, [::1] and `host` are always right. Else: 421.
  std::vector<std::string> allowed_hosts = {};
  std::vector<std::string> cors_origins =
      {};  // pages that may read replies; "*": all. None: CORS off
  std::string tls_certificate = {}, tls_key = {};  // PEM files; both or neither
  // The reply to a request that the server refuses itself. `request` is what has come of it, maybe
  // nothing but its id. {}: a body as by http_text.h. Called on the server's thread.
  std::function<HttpReply(const HttpRequest& request, int status, const std::string& message)>
      fault_reply = {};
  // The header Allow of the reply to OPTIONS for a path. Called on the server's thread.
  std::function<std::string(std::string_view path)> allow = [](std::string_view) {
    return std::string("GET, HEAD, POST, OPTIONS");
  };
  AccessLog on_request =
      {};  // called on the server's thread when a reply is complete; must not block
};

struct ServerCore;

class Server {
 public:
  // Binds. Throws Error{kInvalidInput} for a host that is none and for TLS files that cannot be
  // used, Error{kExhausted} for a port that is taken or not allowed.
  Server(ServerOptions options, Handler handler);
  ~Server();  // REQUIRES: run() has returned or was never called
  Server(const Server&) = delete;

  int port() const;
  std::string url() const;  // "http://127.0.0.1:8080"

  // Serves on this thread until stop() was called and every connection has ended. Once.
  void run();
  // Accepts no connection more, ends idle ones, lets running requests finish for at most `drain`,
  // then answers 503 to those without a reply and cuts what is left a second later. Thread-safe; a
  // later call sets another limit.
  void stop(std::chrono::milliseconds drain);

 private:
  std::unique_ptr<ServerCore> core_;
};

}  // namespace erank::serve
