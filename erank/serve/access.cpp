#include "erank/serve/access.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <cstdio>
#include <ctime>

#include "erank/base/json.h"
#include "erank/serve/http_text.h"

namespace erank::serve {
namespace {

// RFC 3339 in UTC with microseconds.
std::string time_text(std::chrono::system_clock::time_point when) {
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(when.time_since_epoch()).count();
  const std::time_t seconds = us / 1000000;
  std::tm t{};
  ::gmtime_r(&seconds, &t);
  char text[80];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", t.tm_year + 1900,
                t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec,
                static_cast<int>(us % 1000000));
  return text;
}

// Whether they are equal, in a time that depends on the length of `given` alone.
bool equal(std::string_view key, std::string_view given) {
  unsigned difference = key.size() == given.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^
                  static_cast<unsigned char>(key.empty() ? 0 : key[i % key.size()]);
  return *const_cast<volatile unsigned*>(&difference) == 0;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

std::string access_line(const AccessRecord& r) {
  base::OrderedJson line = {{"time", time_text(r.begin)}, {"id", r.id}};
  if (!r.trace_id.empty()) line["trace_id"] = r.trace_id;
  line["peer"] = r.peer;
  line["method"] = r.method;
  line["path"] = r.path;
  line["status"] = r.status;
  line["bytes_in"] = r.bytes_in;
  line["bytes_out"] = r.bytes_out;
  line["seconds"] = r.seconds;
  line["stream"] = r.stream;
  line["complete"] = r.complete;
  return base::dump_json(line);
}

std::string dropped_line(int64_t count) {
  return base::dump_json(
      base::OrderedJson{{"time", time_text(std::chrono::system_clock::now())}, {"dropped", count}});
}

Keys::Keys(std::vector<std::string> keys, std::vector<std::string> open_paths)
    : keys_(std::move(keys)), open_paths_(std::move(open_paths)) {}

bool Keys::is_open(std::string_view path) const {
  return std::find(open_paths_.begin(), open_paths_.end(), path) != open_paths_.end();
}

bool Keys::admit(std::string_view path, std::string_view authorization) const {
  if (keys_.empty()) return true;
  if (is_open(path)) return true;
  std::string_view given = trimmed(authorization);
  constexpr std::string_view kBearer = "bearer ";
  const bool bearer =
      given.size() > kBearer.size() && lower(given.substr(0, kBearer.size())) == kBearer;
  if (bearer) given = trimmed(given.substr(kBearer.size()));
  bool found = false;
  for (const auto& key : keys_) found |= equal(key, given);  // all of them, always
  return found && !given.empty();
}

Hosts::Hosts(std::vector<std::string> names) : names_(std::move(names)) {}

bool Hosts::admit(std::string_view host) const {
  if (names_.empty()) return true;
  const size_t colon = host.rfind(':');
  if (colon != host.npos && host.find(']', colon) == host.npos) host = host.substr(0, colon);
  if (host.ends_with('.')) host.remove_suffix(1);
  std::string address(host);
  if (address.starts_with('[') && address.ends_with(']'))
    address = address.substr(1, address.size() - 2);
  boost::system::error_code none;
  boost::asio::ip::make_address(address, none);
  return !none || std::any_of(names_.begin(), names_.end(),
                              [&](const std::string& name) { return lower(name) == lower(host); });
}

Origins::Origins(std::vector<std::string> allowed) : allowed_(std::move(allowed)) {}

bool Origins::allows(std::string_view origin) const {
  return !origin.empty() && std::any_of(allowed_.begin(), allowed_.end(),
                                        [&](const auto& a) { return a == "*" || a == origin; });
}

Headers Origins::reply_headers(std::string_view origin) const {
  if (allowed_.empty()) return {};
  Headers headers = {{"Vary", "Origin"}};
  if (allows(origin)) {
    headers.emplace_back("Access-Control-Allow-Origin", origin);
    headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
  }
  return headers;
}

Headers Origins::preflight_headers(std::string_view origin) const {
  if (!allows(origin)) return {};
  return {{"Access-Control-Allow-Methods", "GET, HEAD, POST"},
          {"Access-Control-Allow-Headers",
           "Authorization, Content-Type, X-Request-Id, traceparent, tracestate"},
          {"Access-Control-Max-Age", "600"}};
}

}  // namespace erank::serve
