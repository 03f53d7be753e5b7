// Who may use the server, which pages may read its replies, and what is noted of each request.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "erank/serve/http.h"

namespace erank::serve {

// What is known of a request when its reply is complete. Holds nothing of what a user wrote but the
// path.
struct AccessRecord {
  std::chrono::system_clock::time_point begin;
  std::string id, trace_id;  // trace_id: of traceparent, else ""
  std::string peer;
  std::string method, path;  // "" when the request was not read so far
  int status = 0;            // 499: the client left before a reply began (as nginx has it); of a
                             // stream, whose head says 200, what it ended with
  int64_t bytes_in = 0;      // of the body
  int64_t bytes_out = 0;     // with the head
  double seconds = 0;        // from the first byte of the request to the last of the reply
  bool stream = false;       // of events
  bool complete = true;      // false: the client left, was too slow, or the server ended
};
using AccessLog = std::function<void(const AccessRecord&)>;

// One line of JSON, without the newline: time (RFC 3339, UTC, microseconds), id, trace_id, peer,
// method, path, status, bytes_in, bytes_out, seconds, stream, complete.
std::string access_line(const AccessRecord& record);
// In place of so many lines that a log did not take: time (now), dropped.
std::string dropped_line(int64_t count);

// The keys that let a request in. Immutable, thread-safe.
class Keys {
 public:
  // `keys` empty: everybody may do all. `open_paths` need no key.
  Keys(std::vector<std::string> keys, std::vector<std::string> open_paths);

  // `authorization` is the header's value: "Bearer KEY" or the bare key. The time it takes depends
  // on the lengths alone, not on how much of a key was guessed.
  bool admit(std::string_view path, std::string_view authorization) const;
  bool is_open(std::string_view path) const;

 private:
  std::vector<std::string> keys_, open_paths_;
};

// The names under which a server may be asked. A page whose own name is made to point at this
// machine (DNS rebinding) sends that one. Immutable, thread-safe.
class Hosts {
 public:
  // `names` without ports, IPv6 addresses in brackets; empty: any name will do.
  explicit Hosts(std::vector<std::string> names = {});

  // `host` is the header's value; its port and the case of its letters do not count. An address is
  // always admitted: another page's is a name.
  bool admit(std::string_view host) const;

 private:
  std::vector<std::string> names_;
};

// The pages that may read replies in a browser (CORS,
// https://fetch.spec.whatwg.org/#http-cors-protocol).
class Origins {
 public:
  // Origins as browsers send them ("https://example.org"); "*" allows every one.
  explicit Origins(std::vector<std::string> allowed);

  // What a reply to a request of that origin gets; empty when it is not allowed.
  Headers reply_headers(std::string_view origin) const;
  // What the reply to OPTIONS gets besides.
  Headers preflight_headers(std::string_view origin) const;

 private:
  bool allows(std::string_view origin) const;
  std::vector<std::string> allowed_;
};

}  // namespace erank::serve
