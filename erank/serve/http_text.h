// HTTP/1.1 as text (RFC 9110, 9112): what of a request's head is checked, and how replies are
// written. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "erank/serve/http.h"

namespace erank::serve {

// A request's target in parts.
struct Target {
  std::string path;   // percent-decoded
  std::string query;  // as it came
};

// "/v1/rerank?x=1" or "http://host/v1/rerank?x=1"; "*" is itself. Nothing for other forms, escapes
// that are none, control characters and a path that is not UTF-8.
std::optional<Target> parse_target(std::string_view target);

// With ASCII's letters in lower case.
std::string lower(std::string_view text);

// The id that a client gave, when it is at most 128 letters, digits and signs of "-_.:/+=@";
// else 32 hexadecimal digits of `fresh`.
std::string request_id(std::string_view given, std::string_view fresh);

// The trace id of a W3C traceparent (version 00 or a later one), "" for what is none.
std::string trace_id(std::string_view traceparent);

// Whether a header of the head that `input` begins with goes on in the next line (RFC 9112, section
// 5.2: obsolete, and servers before this one may read it otherwise). False while it is not whole.
bool has_folded_header(std::string_view input);

// "OK" of 200; "Unknown" of what has no name.
std::string_view reason_of(int status);

// A body of three fields that between them every known client reads an error from, and the id:
// {"error": {"message", "type", "param": null, "code": status}, "message", "detail", "id"}.
HttpReply error_reply(int status, std::string_view type, std::string_view message,
                      std::string_view id);

// How a reply's head is written.
struct HeadOptions {
  bool http10 = false;
  bool close = false;                 // the connection ends after this reply
  bool chunked = false;               // a stream: no length
  std::optional<size_t> length = {};  // of the body; not set with a stream
  std::string_view id = {};           // X-Request-Id
  std::string_view type = {};         // Content-Type, "" for none
};
// Status line, Date, the options' fields, `headers`, an empty line. Control characters in names and
// values become spaces, so that no reply can be split.
std::string head_text(int status, const HeadOptions& options, const Headers& headers);

// One server-sent event: "event: NAME", a "data: " line for each line of `data`, an empty line.
std::string event_text(std::string_view name, std::string_view data);

// A piece of a body in chunked coding; "" is the last one.
std::string chunk_text(std::string_view bytes);

}  // namespace erank::serve
