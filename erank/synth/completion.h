// A chat completion as OpenAI's API and those made after it write it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "erank/base/json.h"

namespace erank::synth {

struct Completion {
  std::string content;    // choices[0].message.content, its text parts joined
  std::string reasoning;  // .reasoning_content or .reasoning, where the server took it out; else ""
  std::string finish_reason;  // "stop", "length", ...; "" when it is not said
  std::string model;          // that says it answered; "" when it is not said
  std::optional<int64_t> prompt_tokens, completion_tokens;  // of `usage`; the latter with reasoning
};

// What a server's reply of status 200 turned out to be.
struct ReadReply {
  std::optional<Completion> completion;  // nullopt: it is none
  int status = 200;    // where the body is {"error": {"code": 4xx or 5xx}}, that code
  std::string reason;  // why it is none, one line without the server's name
};

// Only what is used is looked at, other keys may hold anything; counts that are no whole numbers of
// at least 0 count as not said. Never throws for what a server sends.
ReadReply read_completion(std::string_view body);

// What a server says in the body of an error: error.message, error, message or detail, else the
// body's beginning. One line, at most 300 bytes; "" for an empty body.
std::string error_text(std::string_view body);

// error.code, else error.type, else "": "insufficient_quota".
std::string error_code(std::string_view body);

// The body of a request with one user's turn, `changes` merged into it (RFC 7396: null removes a
// key). REQUIRES: `changes` is an object. Bytes are those of equal arguments' each time.
struct RequestOptions {
  std::string model;
  double temperature = 1;
  int64_t max_tokens = 2048;
  base::Json changes = base::Json::object();
};
std::string request_body(const RequestOptions& options, std::string_view question);

}  // namespace erank::synth
