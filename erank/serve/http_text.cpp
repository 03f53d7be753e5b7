#include "erank/serve/http_text.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>

#include "erank/base/json.h"
#include "erank/base/utf8.h"

namespace erank::serve {
namespace {

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_lower_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

// 0..15, -1 of what is no digit.
int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool starts_with_scheme(std::string_view target, std::string_view scheme) {
  return target.size() >= scheme.size() &&
         std::equal(scheme.begin(), scheme.end(), target.begin(),
                    [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + 32 : b); });
}

void append_clean(std::string& out, std::string_view text) {
  for (const char c : text) out += is_control(c) ? ' ' : c;
}

void append_field(std::string& out, std::string_view name, std::string_view value) {
  append_clean(out, name);
  out += ": ";
  append_clean(out, value);
  out += "\r\n";
}

// IMF-fixdate (RFC 9110, section 5.6.7).
std::string date_text() {
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm t{};
  ::gmtime_r(&now, &t);
  char text[64];
  std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[t.tm_wday],
                t.tm_mday, kMonths[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
  return text;
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

std::optional<Target> parse_target(std::string_view target) {
  if (target == "*") return Target{"*", ""};
  for (const std::string_view scheme : {"http://", "https://"})
    if (starts_with_scheme(target, scheme)) {
      const size_t end = std::min(target.find_first_of("/?", scheme.size()), target.size());
      if (end == scheme.size()) return std::nullopt;  // no host
      target.remove_prefix(end);
      if (target.empty() || target[0] == '?') {
        Target root{"/", std::string(target.substr(std::min<size_t>(1, target.size())))};
        return root;
      }
      break;
    }
  if (!target.starts_with('/')) return std::nullopt;
  target = target.substr(0, target.find('#'));
  const size_t mark = target.find('?');
  Target parts;
  if (mark != target.npos) parts.query = target.substr(mark + 1);
  const std::string_view path = target.substr(0, mark);
  for (size_t i = 0; i < path.size(); ++i) {
    char c = path[i];
    if (c == '%') {
      const int high = i + 2 < path.size() ? hex_value(path[i + 1]) : -1;
      const int low = i + 2 < path.size() ? hex_value(path[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (is_control(c)) return std::nullopt;
    parts.path += c;
  }
  if (!base::is_valid_utf8(parts.path)) return std::nullopt;
  return parts;
}

std::string request_id(std::string_view given, std::string_view fresh) {
  const bool fit =
      !given.empty() && given.size() <= 128 && std::all_of(given.begin(), given.end(), [](char c) {
        return is_alnum(c) || std::string_view("-_.:/+=@").find(c) != std::string::npos;
      });
  return std::string(fit ? given : fresh);
}

std::string trace_id(std::string_view traceparent) {
  // version "-" 32 digits "-" 16 digits "-" 2 digits, in lower case; later versions may go on.
  if (traceparent.size() < 55) return "";
  for (size_t i = 0; i < 55; ++i) {
    const bool dash = i == 2 || i == 35 || i == 52;
    if (dash ? traceparent[i] != '-' : !is_lower_hex(traceparent[i])) return "";
  }
  const std::string_view version = traceparent.substr(0, 2), trace = traceparent.substr(3, 32),
                         parent = traceparent.substr(36, 16);
  const bool longer = traceparent.size() > 55;
  if (version == "ff" || (longer && (version == "00" || traceparent[55] != '-'))) return "";
  if (trace.find_first_not_of('0') == trace.npos || parent.find_first_not_of('0') == parent.npos)
    return "";
  return std::string(trace);
}

bool has_folded_header(std::string_view input) {
  const std::string_view head = input.substr(0, input.find("\r\n\r\n"));
  return head.size() < input.size() &&
         (head.find("\n ") != head.npos || head.find("\n\t") != head.npos);
}

std::string_view reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 424:
      return "Failed Dependency";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

HttpReply error_reply(int status, std::string_view type, std::string_view message,
                      std::string_view id) {
  const base::OrderedJson body = {
      {"error", {{"message", message}, {"type", type}, {"param", nullptr}, {"code", status}}},
      {"message", message},
      {"detail", message},
      {"id", id}};
  return {status, base::dump_json(body)};
}

std::string head_text(int status, const HeadOptions& options, const Headers& headers) {
  std::string out = options.http10 ? "HTTP/1.0 " : "HTTP/1.1 ";
  out += std::to_string(status);
  out += ' ';
  out += reason_of(status);
  out += "\r\n";
  append_field(out, "Date", date_text());
  if (!options.type.empty()) append_field(out, "Content-Type", options.type);
  if (options.length) append_field(out, "Content-Length", std::to_string(*options.length));
  if (options.chunked) append_field(out, "Transfer-Encoding", "chunked");
  if (options.close)
    append_field(out, "Connection", "close");
  else if (options.http10)
    append_field(out, "Connection", "keep-alive");
  if (!options.id.empty()) append_field(out, "X-Request-Id", options.id);
  for (const auto& [name, value] : headers) append_field(out, name, value);
  out += "\r\n";
  return out;
}

std::string event_text(std::string_view name, std::string_view data) {
  std::string out = "event: ";
  append_clean(out, name);
  for (;;) {
    const size_t end = data.find('\n');
    out += "\ndata: ";
    append_clean(out, data.substr(0, end));
    if (end == data.npos) break;
    data.remove_prefix(end + 1);
  }
  out += "\n\n";
  return out;
}

std::string chunk_text(std::string_view bytes) {
  char size[17];
  const auto end = std::to_chars(size, size + sizeof size, bytes.size(), 16).ptr;
  std::string out(size, end);
  out += "\r\n";
  out += bytes;
  out += "\r\n";
  return out;
}

}  // namespace erank::serve
