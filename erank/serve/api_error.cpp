#include <algorithm>

#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/serve/api.h"

namespace erank::serve {
namespace {

using base::OrderedJson;

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
    case 431:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 501:
    case 505:
      return "invalid_request_error";
    case 503:
      return "unavailable_error";
    case 408:
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

std::string_view tei_error_type(const ApiError& error) {
  if (error.empty) return "Empty";
  switch (error.status) {
    case 429:
      return "Overloaded";
    case 503:
      return "Unhealthy";
    default:
      return error.status < 500 ? "Validation" : "Backend";
  }
}

// Whether an object has the key with a value, looked for in the beginning of its text.
bool has_key(std::string_view json, std::string_view key) {
  constexpr size_t kLooked = 64 << 10;
  json = json.substr(0, kLooked);
  int depth = 0;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (c != '"') continue;
    const size_t begin = i + 1;
    for (++i; i < json.size() && json[i] != '"'; ++i)
      if (json[i] == '\\') ++i;
    const size_t next = json.find_first_not_of(" \t\r\n", i + 1);
    if (depth != 1 || next >= json.size() || json[next] != ':' ||
        json.substr(begin, i - begin) != key)
      continue;
    const size_t value = json.find_first_not_of(" \t\r\n", next + 1);
    return value == json.npos || !json.substr(value).starts_with("null");
  }
  return false;
}

}  // namespace

ApiError::ApiError(int status, const std::string& message, std::string param)
    : std::runtime_error(base::printable(message)), status(status), param(std::move(param)) {}

std::string error_body(const ApiError& error, std::string_view id) {
  const std::string message = error.what();
  OrderedJson body;
  if (error.shape == Shape::kTei) {
    body["error"] = message;
    body["error_type"] = tei_error_type(error);
    return base::dump_json(body);
  }
  body["error"] = {{"message", message},
                   {"type", error_type(error.status)},
                   {"param", error.param.empty() ? OrderedJson(nullptr) : OrderedJson(error.param)},
                   {"code", error.status}};
  body["error_type"] = tei_error_type(error);
  body["message"] = message;
  body["detail"] = message;
  body["id"] = id;
  return base::dump_json(body);
}

HttpReply error_reply(const ApiError& error, std::string_view id) {
  HttpReply reply{.status = error.status, .body = error_body(error, id)};
  if (error.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.retry_after_s)
    reply.headers.emplace_back("Retry-After", std::to_string(*error.retry_after_s));
  return reply;
}

Shape likely_shape(std::string_view path, std::string_view body) {
  if (path == "/info" || path == "/info/") return Shape::kTei;
  const auto route = post_route(path);
  if (route == PostRoute::kScore) return Shape::kScore;
  return route && has_key(body, "texts") && !has_key(body, "documents") ? Shape::kTei
                                                                        : Shape::kEnvelope;
}

HttpReply fault_reply(const HttpRequest& request, int status, const std::string& message) {
  ApiError error(status, message);
  error.shape = likely_shape(request.path, request.body);
  if (status == 429 || status == 503) error.retry_after_s = 1;
  return error_reply(error, request.id);
}

std::optional<PostRoute> post_route(std::string_view path) {
  if (path.ends_with('/')) path.remove_suffix(1);
  for (const std::string_view known : kPostPaths)
    if (path == known) return path.ends_with("/score") ? PostRoute::kScore : PostRoute::kRerank;
  return std::nullopt;
}

}  // namespace erank::serve
