#include "erank/synth/chat_endpoint.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <list>
#include <map>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/base/utf8.h"

namespace erank::synth {
namespace {

using base::ErrorKind;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr const char* kWhere = "--endpoint";
constexpr size_t kMaxReplyBytes = size_t{16} << 20;
constexpr double kMaxWaitS = 60, kMaxAskedWaitS = 3600;
constexpr int64_t kFailuresInARow = 10;

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
}

struct UrlParts {
  std::string whole;  // where requests go
  std::string shown;
};

std::string part_of(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, 0) != CURLUE_OK) return "";
  std::string copy = text;
  curl_free(text);
  return copy;
}

UrlParts read_url(const std::string& given) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), &curl_url_cleanup);
  const bool parsed = url && curl_url_set(url.get(), CURLUPART_URL, given.c_str(),
                                          CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK;
  const std::string scheme = parsed ? part_of(url.get(), CURLUPART_SCHEME) : "";
  // Not quoted: it may hold a password.
  if (given.find('@') != given.npos || !part_of(url.get(), CURLUPART_USER).empty() ||
      !part_of(url.get(), CURLUPART_PASSWORD).empty())
    base::fail(ErrorKind::kInvalidInput, kWhere,
               "the URL holds a name or password; give the key in an environment variable "
               "(--api-key-env)");
  if (scheme != "http" && scheme != "https")
    base::fail(ErrorKind::kInvalidInput, kWhere, base::in_quotes(given),
               " is no URL of a server, expected for example https://api.openai.com/v1 or "
               "http://localhost:8080/v1");
  curl_url_set(url.get(), CURLUPART_FRAGMENT, nullptr, 0);
  std::string path = part_of(url.get(), CURLUPART_PATH);
  while (path.ends_with('/')) path.pop_back();
  if (path.empty()) path = "/v1";
  if (!path.ends_with("/chat/completions")) path += "/chat/completions";
  curl_url_set(url.get(), CURLUPART_PATH, path.c_str(), 0);
  UrlParts parts{part_of(url.get(), CURLUPART_URL), ""};
  curl_url_set(url.get(), CURLUPART_QUERY, nullptr, 0);
  parts.shown = part_of(url.get(), CURLUPART_URL);
  return parts;
}

// Without what may be secret.
std::string shown_address(const char* given) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), &curl_url_cleanup);
  if (!given || !url || curl_url_set(url.get(), CURLUPART_URL, given, 0) != CURLUE_OK)
    return "another address";
  for (const CURLUPart part :
       {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY, CURLUPART_FRAGMENT})
    curl_url_set(url.get(), part, nullptr, 0);
  return base::in_quotes(part_of(url.get(), CURLUPART_URL), 200);
}

void init_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  ERANK_CHECK(code == CURLE_OK, curl_easy_strerror(code));
}

// One request under way.
struct Transfer {
  ChatRequest request;
  int attempt = 0;  // times that it was sent before
  CURL* handle = nullptr;
  std::string body;  // of the reply
  bool too_long = false;
  char message[CURL_ERROR_SIZE] = {};
};

size_t receive(char* bytes, size_t one, size_t count, void* to) {
  auto& transfer = *static_cast<Transfer*>(to);
  if (transfer.body.size() + count > kMaxReplyBytes) {
    transfer.too_long = true;
    return CURL_WRITEFUNC_ERROR;
  }
  transfer.body.append(bytes, count);
  return one * count;
}

// Seconds that the server asks to wait; negative: it does not say, or says none.
double asked_wait(CURL* handle) {
  curl_header* header = nullptr;
  if (curl_easy_header(handle, "retry-after-ms", 0, CURLH_HEADER, -1, &header) == CURLHE_OK) {
    char* end = nullptr;
    const double ms = std::strtod(header->value, &end);
    if (end != header->value && ms > 0) return std::min(ms / 1000, kMaxAskedWaitS);
  }
  curl_off_t seconds = 0;  // also of a date; 0 of what is neither
  curl_easy_getinfo(handle, CURLINFO_RETRY_AFTER, &seconds);
  return seconds > 0 ? std::min(static_cast<double>(seconds), kMaxAskedWaitS) : -1;
}

}  // namespace

std::string without_key(std::string text, const std::string& key) {
  if (key.empty()) return text;
  for (size_t at = 0; (at = text.find(key, at)) != text.npos; at += 5)
    text.replace(at, key.size(), "[key]");
  return text;
}

struct ChatEndpoint::State {
  explicit State(EndpointOptions o) : options(std::move(o)), url(read_url(options.url)) {
    const auto printable = [](char c) { return c > ' ' && c < 0x7f; };
    if (!std::all_of(options.key.begin(), options.key.end(), printable))
      base::fail(ErrorKind::kInvalidInput, "--api-key-env",
                 "the key holds a blank, a line end or another character that no key has");
    ERANK_CHECK(options.concurrency >= 1 && options.timeout_s > 0 && options.retries >= 0);
    init_curl();
    multi = curl_multi_init();
    ERANK_CHECK(multi);
    add_header("Content-Type: application/json");
    add_header("Accept: application/json");
    add_header("Expect:");
    if (!options.key.empty()) add_header("Authorization: Bearer " + options.key);
    allowed = options.concurrency;
  }
  ~State() {
    drop_all();
    curl_slist_free_all(headers);
    curl_multi_cleanup(multi);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void add_header(const std::string& line) { headers = curl_slist_append(headers, line.c_str()); }

  void drop_all() {
    for (Transfer& t : active) {
      curl_multi_remove_handle(multi, t.handle);
      curl_easy_cleanup(t.handle);
    }
    active.clear();
    waiting.clear();
  }

  void send(ChatRequest request, int attempt) {
    Transfer& t = active.emplace_back();
    t.request = std::move(request);
    t.attempt = attempt;
    t.handle = curl_easy_init();
    ERANK_CHECK(t.handle);
    CURL* h = t.handle;
    curl_easy_setopt(h, CURLOPT_URL, url.whole.c_str());
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    // A proxy would read the key.
    if (url.whole.starts_with("http://") && !options.key.empty())
      curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(h, CURLOPT_USERAGENT, "erank");
    curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(t.request.body.size()));
    curl_easy_setopt(h, CURLOPT_POSTFIELDS, t.request.body.c_str());
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, t.message);
    curl_easy_setopt(h, CURLOPT_PRIVATE, &t);
    curl_easy_setopt(h, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, std::lround(options.timeout_s * 1000));
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS,
                     std::lround(std::min(options.timeout_s, 30.0) * 1000));
    curl_multi_add_handle(multi, h);
    ++counts.sent;
    if (options.requests_per_minute > 0)
      next_send =
          std::max(next_send, Clock::now()) +
          std::chrono::duration_cast<Clock::duration>(Seconds(60 / options.requests_per_minute));
  }

  // Sends what may be sent now.
  void send_more(const Callbacks& callbacks) {
    while (static_cast<double>(active.size()) < std::floor(allowed)) {
      const auto now = Clock::now();
      if (now < next_send || now < paused_until) return;
      if (!waiting.empty() && waiting.begin()->first <= now) {
        auto [request, attempt] = std::move(waiting.begin()->second);
        waiting.erase(waiting.begin());
        send(std::move(request), attempt);
      } else if (!exhausted) {
        auto request = callbacks.next();
        exhausted = !request;
        if (request) send(std::move(*request), 0);
      } else {
        return;
      }
    }
  }

  // Everything would fail: the work ends when what is under way has come in.
  void give_up(const std::string& reason) {
    if (fatal.empty()) fatal = reason;
  }

  std::string with_url(const std::string& what) const { return base::str(url.shown, ": ", what); }

  void fail_for_good(Transfer& t, const std::string& reason, const Callbacks& callbacks,
                     std::string body) {
    ++counts.failed;
    const std::string line = without_key(reason, options.key);
    callbacks.take({t.request.number, std::nullopt, std::move(body), line});
    if (counts.answered == 0 && counts.failed >= kFailuresInARow)
      give_up(with_url(base::str("none of the first ", counts.failed,
                                 " requests was answered; the last one: ", line)));
  }

  // `wait_s`: what the server asks for, negative when it does not. `all`: the others wait too.
  void try_again(Transfer& t, const std::string& reason, double wait_s, bool all,
                 const Callbacks& callbacks) {
    if (t.attempt >= options.retries)
      return fail_for_good(t,
                           base::str(reason, t.attempt > 0 ? " (sent " : "",
                                     t.attempt > 0 ? base::str(t.attempt + 1, " times)") : ""),
                           callbacks, "");
    if (wait_s < 0) {
      wait_s = std::min(options.first_wait_s * std::exp2(t.attempt), kMaxWaitS);
      wait_s *= 0.75 + 0.5 * jitter.uniform();
    }
    const auto until = after(wait_s);
    if (all) {
      paused_until = std::max(paused_until, until);
      allowed = std::max(1.0, allowed / 2);
    }
    waiting.emplace(until, std::pair{std::move(t.request), t.attempt + 1});
  }

  void take_answer(Transfer& t, Completion completion, std::string body,
                   const Callbacks& callbacks) {
    ++counts.answered;
    allowed = std::min<double>(options.concurrency, allowed + 1 / allowed);
    callbacks.take({t.request.number, std::move(completion), std::move(body), ""});
  }

  // Takes the key out of what JSON's escapes may have hidden. Whether there was any.
  bool mask(Completion& completion) const {
    bool found = false;
    for (std::string* text : {&completion.content, &completion.reasoning, &completion.model}) {
      std::string masked = without_key(*text, options.key);
      found |= masked != *text;
      *text = std::move(masked);
    }
    return found;
  }

  // A reply with an HTTP status came in whole.
  void take_status(Transfer& t, long status, const Callbacks& callbacks) {
    lost_in_row = 0;
    std::string body = without_key(std::move(t.body), options.key);
    std::string reason;
    if (status == 200) {
      ReadReply read = read_completion(body);
      if (read.completion && mask(*read.completion))
        body = without_key(base::dump_json(base::Json::parse(body)), options.key);
      if (read.completion)
        return take_answer(t, std::move(*read.completion), std::move(body), callbacks);
      reason = read.reason;
      status = read.status;
      if (status == 200) return fail_for_good(t, reason, callbacks, std::move(body));
    } else {
      const std::string said = error_text(body);
      reason = base::str("status ", status, said.empty() ? "" : ": ", said);
    }
    const bool first = counts.answered == 0;
    if (status >= 300 && status < 400) {
      char* to = nullptr;
      curl_easy_getinfo(t.handle, CURLINFO_REDIRECT_URL, &to);
      reason = base::str("status ", status, ", redirected to ", shown_address(to),
                         "; redirects are not followed, give that address if it is the right one");
      return first ? give_up(with_url(without_key(reason, options.key)))
                   : fail_for_good(t, reason, callbacks, "");
    }
    if (status == 401 || (status == 403 && first))
      return give_up(with_url(base::str(reason, options.key.empty()
                                                    ? "; no key was sent, see --api-key-env"
                                                    : "; is the key of --api-key-env right?")));
    if (status == 404 || status == 405)
      return give_up(with_url(base::str(reason, "; are the address and --model right?")));
    if (status == 402 || error_code(body) == "insufficient_quota")
      return give_up(with_url(base::str(reason, "; --resume goes on when that is settled")));
    if (status == 408 || status == 409 || status == 425 || status == 429 || status >= 500)
      return try_again(t, reason, asked_wait(t.handle), status == 429 || status == 503, callbacks);
    fail_for_good(t, reason, callbacks, "");
  }

  void finish(Transfer& t, CURLcode code, const Callbacks& callbacks) {
    long status = 0;
    curl_easy_getinfo(t.handle, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK) return take_status(t, status, callbacks);
    const std::string said = base::printable(t.message[0] ? t.message : curl_easy_strerror(code));
    if (t.too_long)
      return fail_for_good(t, base::str("the reply is longer than ", kMaxReplyBytes >> 20, " MiB"),
                           callbacks, "");
    // What says that there is nobody, or that it is not who it should be, ends all unless somebody
    // has answered before; a time-out or a cut connection may be a matter of the moment.
    // A connection that was kept from an earlier request took no time, but has a port.
    curl_off_t connected_us = 0;
    long port = 0;
    curl_easy_getinfo(t.handle, CURLINFO_CONNECT_TIME_T, &connected_us);
    curl_easy_getinfo(t.handle, CURLINFO_LOCAL_PORT, &port);
    const bool nobody = connected_us == 0 && port <= 0;
    const bool broken = code == CURLE_OPERATION_TIMEDOUT || code == CURLE_RECV_ERROR ||
                        code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING ||
                        code == CURLE_PARTIAL_FILE || code == CURLE_HTTP2 ||
                        code == CURLE_HTTP2_STREAM || code == CURLE_BAD_CONTENT_ENCODING;
    if (!somebody && (!broken || nobody)) return give_up(with_url(said));
    if (nobody && t.attempt >= options.retries && ++lost_in_row >= kFailuresInARow)
      give_up(with_url(
          base::str(said, "; ", lost_in_row, " requests in a row met nobody, --resume goes on")));
    try_again(t, said, -1, nobody, callbacks);
  }

  void finish_all(const Callbacks& callbacks) {
    int unused = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &unused)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      Transfer* done = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &done);
      const auto at =
          std::find_if(active.begin(), active.end(), [&](const Transfer& t) { return &t == done; });
      ERANK_CHECK(at != active.end());
      std::list<Transfer> one;
      one.splice(one.begin(), active, at);
      long status = 0;
      curl_easy_getinfo(one.front().handle, CURLINFO_RESPONSE_CODE, &status);
      somebody = somebody || status != 0;
      curl_multi_remove_handle(multi, one.front().handle);
      const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> cleanup(one.front().handle,
                                                                        &curl_easy_cleanup);
      finish(one.front(), code, callbacks);
    }
  }

  // Until something can happen, at most 10 ms: `stop` is asked that often.
  void poll() {
    const int code = curl_multi_poll(multi, nullptr, 0, 10, nullptr);
    ERANK_CHECK(code == CURLM_OK, curl_multi_strerror(static_cast<CURLMcode>(code)));
  }

  bool run(const Callbacks& callbacks) {
    exhausted = false;
    std::optional<Clock::time_point> give_up_at;
    while (true) {
      counts.paused_s = std::max(0.0, Seconds(paused_until - Clock::now()).count());
      const bool asked = callbacks.stop(counts);
      const bool stopping = asked || !fatal.empty();
      if (stopping && !give_up_at) give_up_at = after(options.grace_s);
      if (!stopping) send_more(callbacks);
      const bool done = stopping ? active.empty() || Clock::now() >= *give_up_at
                                 : exhausted && active.empty() && waiting.empty();
      if (done) break;
      poll();
      int unused = 0;
      const CURLMcode code = curl_multi_perform(multi, &unused);
      ERANK_CHECK(code == CURLM_OK, curl_multi_strerror(code));
      finish_all(callbacks);
    }
    drop_all();
    if (!fatal.empty())
      throw base::Error(ErrorKind::kInvalidInput,
                        without_key(base::str("[", kWhere, "] ", fatal), options.key));
    return !give_up_at;
  }

  EndpointOptions options;
  UrlParts url;
  CURLM* multi = nullptr;
  curl_slist* headers = nullptr;
  std::list<Transfer> active;
  // Those to be sent again, by when; with the number of times that they were sent.
  std::multimap<Clock::time_point, std::pair<ChatRequest, int>> waiting;
  Clock::time_point next_send{}, paused_until{};
  double allowed = 1;  // requests under way, fewer than `concurrency` after 429
  bool exhausted = false, somebody = false;
  int64_t lost_in_row = 0;  // failed for good without a connection, since the last reply
  std::string fatal;
  ChatCounts counts;
  base::Random jitter{static_cast<uint64_t>(Clock::now().time_since_epoch().count())};
};

ChatEndpoint::ChatEndpoint(EndpointOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}
ChatEndpoint::~ChatEndpoint() = default;
const std::string& ChatEndpoint::shown_url() const { return state_->url.shown; }
bool ChatEndpoint::run(const Callbacks& callbacks) { return state_->run(callbacks); }

}  // namespace erank::synth
