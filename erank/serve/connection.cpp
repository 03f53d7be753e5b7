#include "erank/serve/connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdio>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/serve/exchange.h"
#include "erank/serve/http_text.h"

namespace erank::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kPieceBytes = 16 << 10;      // of a read
constexpr size_t kMaxPipelined = 64 << 10;    // read ahead while a request is being answered
constexpr int64_t kSmallBody = 64 << 10;      // is read whatever else is being read
constexpr size_t kMaxChunkHead = 16 << 10;    // a chunk's size line, or the trailer
constexpr size_t kMaxLingerBytes = 64 << 20;  // thrown away of a refused request
constexpr size_t kBeginning = 64 << 10;  // of a body, which tells what errors its client can read
constexpr seconds kLinger{2};            // waits for a client to see the reply and close
constexpr seconds kStreamSilence{15};    // then a comment keeps proxies from giving up
constexpr TimePoint kNever = TimePoint::max();

struct Fault {
  int status;
  const char* type;
  std::string message;
};

// What a request that was read in full, or as far as it goes, has become.
struct Incoming {
  HttpRequest request;
  bool head = false;  // HEAD
  bool http10 = false, keep_alive = false;
  std::optional<Fault> fault;
};

std::string fresh_id(std::mt19937_64& random) {
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(random()),
                static_cast<unsigned long long>(random()));
  return text;
}

// One connection. All of it runs on the server's thread: reads and writes are started, set a flag
// when they are done, and wake the coroutine, which alone decides what comes next.
class ServedConnection : public Connection, public std::enable_shared_from_this<ServedConnection> {
 public:
  ServedConnection(ServerCore& core, tcp::socket socket, bool refused)
      : core_(core), socket_(std::move(socket)), timer_(core.io), refused_(refused) {
    if (core.tls) tls_.emplace(socket_, *core.tls);
    core_.connections.insert(this);
    core_.num_refused += refused_;
    error_code ec;
    const auto peer = socket_.remote_endpoint(ec);
    if (!ec) peer_ = peer.address().to_string(ec);
    socket_.set_option(tcp::no_delay(true), ec);
  }
  ~ServedConnection() override {
    if (exchange_) exchange_->close(true);
    core_.connections.erase(this);
    hold(0);
    core_.num_refused -= refused_;
    if (core_.stopping && core_.connections.empty()) core_.drain_timer.cancel();
  }

  void wake() override { timer_.cancel(); }
  // Every step that waits for the client ends now.
  void cut() override {
    error_code ignored;
    socket_.close(ignored);
    cut_ = read_ended_ = true;
    wake();
  }

  asio::awaitable<void> run() override {
    const auto self = shared_from_this();
    if (co_await shake_hands()) {
      if (refused_)
        co_await refuse();
      else
        while (co_await serve_one()) {
        }
      co_await end();
    }
    cut();
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  // Until wake() or `deadline`; may also return for no reason.
  asio::awaitable<void> wait(TimePoint deadline) {
    timer_.expires_at(deadline);
    error_code ignored;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }

  void start_read() {
    if (reading_ || read_ended_) return;
    reading_ = true;
    const auto done = [self = shared_from_this()](error_code ec, size_t n) {
      self->reading_ = false;
      self->input_.append(self->piece_.data(), n);
      if (ec) self->read_ended_ = true;
      self->wake();
    };
    if (tls_)
      tls_->async_read_some(asio::buffer(piece_), done);
    else
      socket_.async_read_some(asio::buffer(piece_), done);
  }

  void start_write(std::string_view bytes) {
    writing_ = true;
    const auto done = [self = shared_from_this()](error_code ec, size_t n) {
      self->writing_ = false;
      self->written_ = n;
      if (ec) self->write_failed_ = true;
      self->wake();
    };
    if (tls_)
      tls_->async_write_some(asio::buffer(bytes), done);
    else
      socket_.async_write_some(asio::buffer(bytes), done);
  }

  // All of `bytes`; false when the client does not take them.
  asio::awaitable<bool> write(std::string bytes) {
    output_ = std::move(bytes);
    const TimePoint last = Clock::now() + core_.options.client_timeout +
                           milliseconds(std::ssize(output_) * 1000 / core_.options.min_reply_rate);
    for (size_t done = 0; done < output_.size();) {
      if (cut_) co_return false;
      const TimePoint deadline = std::min(last, Clock::now() + core_.options.client_timeout);
      start_write(std::string_view(output_).substr(done));
      while (writing_) {
        const bool too_slow = exchange_ && exchange_->too_slow();
        if (!cut_ && (Clock::now() >= deadline || too_slow)) cut();
        co_await wait(cut_ ? kNever : deadline);
      }
      if (write_failed_ || cut_) co_return false;
      done += written_;
      bytes_out_ += static_cast<int64_t>(written_);
    }
    co_return true;
  }

  asio::awaitable<bool> shake_hands() {
    if (!tls_) co_return true;
    bool done = false;
    error_code result;
    tls_->async_handshake(asio::ssl::stream_base::server,
                          [&, self = shared_from_this()](error_code ec) {
                            done = true, result = ec;
                            self->wake();
                          });
    const TimePoint deadline = Clock::now() + core_.options.client_timeout;
    while (!done) {
      if (!cut_ && (Clock::now() >= deadline || core_.stopping)) cut();
      co_await wait(cut_ ? kNever : deadline);
    }
    co_return !result && !cut_;
  }

  // After the last reply. What a client still sends of a request that was refused is thrown away
  // until it closes too, so that its system does not drop the reply for a reset.
  asio::awaitable<void> end() {
    if (cut_) co_return;
    const TimePoint deadline = Clock::now() + (linger_ ? kLinger : milliseconds(200));
    error_code ignored;
    if (tls_) {
      bool done = false;
      tls_->async_shutdown([&, self = shared_from_this()](error_code) {
        done = true;
        self->wake();
      });
      while (!done) {
        if (!cut_ && Clock::now() >= deadline) cut();
        co_await wait(cut_ ? kNever : deadline);
      }
      co_return;
    }
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    if (!linger_) co_return;
    size_t thrown = 0;
    while (!read_ended_ && Clock::now() < deadline && thrown < kMaxLingerBytes) {
      thrown += input_.size();
      input_.clear();
      start_read();
      co_await wait(deadline);
    }
  }

  asio::awaitable<void> refuse() {
    Incoming none;
    none.fault = {503, "overloaded", "too many connections; try again later"};
    linger_ = true;
    begin_request();
    none.request.id = record_.id;
    HttpReply reply = fault_reply(none);
    co_await reply_to(none, std::move(reply));
  }

  void begin_request() {
    started_ = Clock::now();
    record_ = {};
    record_.begin = std::chrono::system_clock::now();
    record_.peer = peer_;
    record_.id = fresh_id(core_.random);
    bytes_out_ = 0;
    origin_.clear();
  }

  // One request and its reply. False: the connection is to end.
  asio::awaitable<bool> serve_one() {
    const TimePoint idle =
        Clock::now() + (first_ ? core_.options.client_timeout : core_.options.idle_timeout);
    first_ = false;
    for (;;) {
      // RFC 9112, section 2.2: empty lines before a request are passed over.
      input_.erase(0, std::min(input_.find_first_not_of("\r\n"), input_.size()));
      if (!input_.empty()) break;
      if (read_ended_ || core_.stopping || Clock::now() >= idle) co_return false;
      start_read();
      co_await wait(idle);
    }
    begin_request();
    Incoming in;
    if (!co_await read(in)) {  // the client left in the middle
      record_.status = 499, record_.complete = false;
      note();
      co_return false;
    }
    if (!in.fault && in.request.method != "OPTIONS") co_return co_await answer(in);
    HttpReply reply = in.fault ? fault_reply(in) : options_reply(in.request.path);
    co_return co_await reply_to(in, std::move(reply));
  }

  HttpReply fault_reply(const Incoming& in) const {
    const Fault& fault = *in.fault;
    if (core_.options.fault_reply)
      return core_.options.fault_reply(in.request, fault.status, fault.message);
    HttpReply reply = error_reply(fault.status, fault.type, fault.message, record_.id);
    if (fault.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    if (fault.status == 429 || fault.status == 503) reply.headers.emplace_back("Retry-After", "1");
    return reply;
  }

  HttpReply options_reply(std::string_view path) const {
    Headers headers = core_.origins.preflight_headers(origin_);
    headers.emplace_back("Allow", core_.options.allow(path));
    return {204, "", "", std::move(headers)};
  }

  // Feeds the parser until `done`. The client has the time-out and a second for each KiB, and may
  // not be silent for the time-out.
  template <typename Done>
  asio::awaitable<bool> feed(Parser& parser, Done done, std::optional<Fault>& fault) {
    size_t taken = 0;
    const TimePoint begin = Clock::now();
    TimePoint last = begin;
    const size_t most =
        2 * static_cast<size_t>(core_.options.max_body_bytes + core_.options.max_header_bytes);
    while (!done(parser)) {
      if (taken > most) {
        fault = Fault{413, "invalid_request_error",
                      "the chunks' heads are too long for their data: send larger chunks"};
        co_return true;
      }
      if (!parser.is_header_done() && has_folded_header(input_)) {
        fault = Fault{400, "invalid_request_error",
                      "a header goes on in a second line: write each in one"};
        co_return true;
      }
      if (!input_.empty()) {
        error_code ec;
        const size_t n = parser.put(asio::buffer(input_), ec);
        input_.erase(0, n);
        taken += n;
        hold(std::ssize(parser.get().body()));
        if (reading_bytes_ > kSmallBody && core_.reading_bytes > most_reading()) {
          fault = Fault{429, "rate_limit_error",
                        base::str("requests of more than ", most_reading(),
                                  " bytes are being read; try again later")};
          co_return true;
        }
        if (ec && ec != http::error::need_more) {
          fault = fault_of(ec);
          co_return true;
        }
        if (done(parser)) break;
        if (ec == http::error::need_more && parser.is_header_done() &&
            input_.size() > kMaxChunkHead) {
          fault = Fault{400, "invalid_request_error", "a chunk's head or the trailer is too long"};
          co_return true;
        }
        if (n > 0 && !ec) continue;
      }
      if (read_ended_) co_return false;
      const TimePoint deadline = std::min(begin + core_.options.client_timeout +
                                              milliseconds((taken + input_.size()) * 1000 / 1024),
                                          last + core_.options.client_timeout);
      if (Clock::now() >= deadline) {
        fault = Fault{408, "timeout_error", "the request came too slowly"};
        co_return true;
      }
      start_read();
      const size_t had = input_.size();
      co_await wait(deadline);
      if (input_.size() > had) last = Clock::now();
    }
    co_return true;
  }

  // Counts what the parser has of a body.
  void hold(int64_t bytes) {
    core_.reading_bytes += bytes - reading_bytes_;
    reading_bytes_ = bytes;
  }
  int64_t most_reading() const {
    return std::max(core_.options.max_reading_bytes, core_.options.max_body_bytes);
  }

  Fault fault_of(error_code ec) const {
    const char* kind = "invalid_request_error";
    if (ec == http::error::header_limit)
      return {431, kind,
              base::str("the request's head is larger than ", core_.options.max_header_bytes,
                        " bytes")};
    if (ec == http::error::body_limit)
      return {413, kind,
              base::str("the request's body is larger than ", core_.options.max_body_bytes,
                        " bytes; send fewer documents at once")};
    if (ec == http::error::bad_version)
      return {505, kind, "this server speaks HTTP/1.1 and HTTP/1.0"};
    return {400, kind, "this is no HTTP/1.1 request: " + ec.message()};
  }

  // Reads one request into `in`, refused or whole. False when the client left before its end.
  asio::awaitable<bool> read(Incoming& in) {
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(core_.options.max_header_bytes));
    parser.body_limit(static_cast<uint64_t>(core_.options.max_body_bytes));
    parser.eager(false);
    if (!co_await feed(
            parser, [](Parser& p) { return p.is_header_done(); }, in.fault))
      co_return false;
    const auto too_large = std::exchange(in.fault, {});
    if (too_large && too_large->status != 413) {
      in.fault = too_large, linger_ = true;
      in.request.id = record_.id;
      co_return true;
    }
    take_head(parser, in);
    if (!in.fault) in.fault = too_large;
    // Who has no key must not fill the memory.
    constexpr uint64_t kMostOfOpenPath = 4096;
    if (!in.fault && core_.keys.is_open(in.request.path) &&
        (parser.chunked() || parser.content_length().value_or(0) > kMostOfOpenPath))
      in.fault = Fault{413, "invalid_request_error",
                       "this path takes no body: ask with GET, or rank with POST /v1/rerank"};
    const bool complete = parser.is_done();
    if (!in.fault && !complete && in.request.method != "OPTIONS") {
      if (!in.request.header("expect").empty() && !in.http10 && input_.empty() &&
          !co_await write("HTTP/1.1 100 Continue\r\n\r\n"))
        co_return false;
      parser.eager(true);
      if (!co_await feed(
              parser, [](Parser& p) { return p.is_done(); }, in.fault))
        co_return false;
    }
    if (!parser.is_done()) in.keep_alive = false, linger_ = true;
    in.request.body = std::move(parser.get().body());
    if (in.fault) {
      in.request.body = in.request.body.substr(0, kBeginning);
      hold(0);
      co_return true;
    }
    record_.bytes_in = static_cast<int64_t>(in.request.body.size());
    co_return true;
  }

  // The head's checks, in the order in which their faults are told.
  void take_head(Parser& parser, Incoming& in) {
    const auto& message = parser.get();
    in.http10 = message.version() == 10;
    in.keep_alive = message.keep_alive();
    in.request.method = std::string(message.method_string());
    in.request.peer = peer_;
    int hosts = 0, codings = 0;
    bool chunked = true;
    for (const auto& field : message) {
      std::string name = lower({field.name_string().data(), field.name_string().size()});
      std::string value(field.value());
      hosts += name == "host";
      if (name == "transfer-encoding") ++codings, chunked = lower(value) == "chunked";
      in.request.headers.emplace_back(std::move(name), std::move(value));
    }
    const HttpRequest& request = in.request;
    record_.id = request_id(request.header("x-request-id"), record_.id);
    record_.trace_id = trace_id(request.header("traceparent"));
    record_.method = base::printable(request.method.substr(0, 32));
    in.request.id = record_.id;
    origin_ = request.header("origin");
    if (request.method == "HEAD") in.head = true, in.request.method = "GET";
    const auto fail = [&](int status, const char* type, std::string what) {
      in.fault = {status, type, std::move(what)};
    };
    const char* kInvalid = "invalid_request_error";
    if (codings > 0 && (codings > 1 || !chunked || in.http10)) {
      in.keep_alive = false;  // where the request ends cannot be told
      in.fault = {501, kInvalid, "of transfer codings this server knows chunked alone"};
      return;
    }
    if (hosts > 1 || (hosts == 0 && !in.http10))
      return fail(400, kInvalid, "a request has one header Host");
    if (hosts > 0 && !core_.hosts.admit(request.header("host")))
      return fail(421, kInvalid,
                  base::str("this server is not asked as ", base::in_quotes(request.header("host")),
                            ": ask it as localhost, or start it with --allowed-host NAME"));
    const std::string_view target{message.target().data(), message.target().size()};
    const auto parts = parse_target(target);
    if (!parts || (parts->path == "*" && request.method != "OPTIONS"))
      return fail(400, kInvalid, "the request's target is no path, or one with broken escapes");
    in.request.path = parts->path, in.request.query = parts->query;
    record_.path = parts->path.substr(0, base::utf8_prefix(parts->path, 256));
    if (request.method == "OPTIONS") return;
    if (!core_.keys.admit(request.path, request.header("authorization")))
      return fail(401, "authentication_error",
                  "this server needs a key: send the header Authorization: Bearer KEY");
    if (const std::string coding = lower(request.header("content-encoding"));
        !coding.empty() && coding != "identity")
      return fail(415, kInvalid,
                  base::str("the header Content-Encoding is ", base::in_quotes(coding),
                            ", expected a body as it is: send it without compression"));
    if (const auto expect = request.header("expect");
        !expect.empty() && lower(expect) != "100-continue")
      return fail(417, kInvalid, "of expectations this server knows 100-continue alone");
  }

  asio::awaitable<bool> answer(Incoming& in) {
    exchange_ = std::make_shared<Exchange>(
        [self = weak_from_this(), &io = core_.io] {
          asio::post(io, [self] {
            if (const auto connection = self.lock()) connection->wake();
          });
        },
        static_cast<size_t>(core_.options.max_waiting_event_bytes));
    HttpRequest handed = std::move(in.request);
    in.request = {};
    in.request.path = handed.path, in.request.id = handed.id;
    in.request.body = handed.body.substr(0, kBeginning);
    hand_over(std::move(handed));
    hold(0);
    const auto limit = core_.options.request_timeout;
    const TimePoint deadline = limit.count() > 0 ? Clock::now() + limit : kNever;
    bool again = false;
    ExchangeOutput out;
    for (;;) {
      out = exchange_->take();
      if (out.reply || out.begun) break;
      if (read_ended_ || cut_ || core_.over || Clock::now() >= deadline) break;
      if (input_.size() < kMaxPipelined) start_read();  // tells when the client leaves
      co_await wait(deadline);
    }
    if (out.reply) {
      again = co_await reply_to(in, std::move(*out.reply));
    } else if (out.begun) {
      again = co_await stream_to(in, std::move(out));
    } else if (read_ended_ || cut_) {
      record_.status = 499, record_.complete = false;
      note();
    } else {
      exchange_->close(true);
      if (core_.over)
        in.fault = Fault{503, "unavailable_error", "the server is going down; try again later"};
      else
        in.fault = Fault{504, "timeout_error", "the request took too long"};
      HttpReply reply = fault_reply(in);
      again = co_await reply_to(in, std::move(reply));
    }
    exchange_->close(!record_.complete);
    exchange_ = nullptr;
    co_return again;
  }

  void hand_over(HttpRequest request) {
    try {
      core_.handler(std::move(request), exchange_->responder(record_.id));
    } catch (const std::exception&) {  // the responder is gone with it: 500
    }
  }

  asio::awaitable<bool> stream_to(const Incoming& in, ExchangeOutput out) {
    const bool chunked = !in.http10;
    const bool close = in.http10 || in.head || !in.keep_alive || core_.stopping;
    const HeadOptions options{.http10 = in.http10,
                              .close = close,
                              .chunked = chunked,
                              .id = record_.id,
                              .type = "text/event-stream"};
    Headers headers = core_.origins.reply_headers(origin_);
    headers.insert(headers.end(), {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}});
    headers.insert(headers.end(), out.begun->begin(), out.begun->end());
    record_.status = 200, record_.stream = true;
    std::string text = head_text(200, options, headers);
    bool good = co_await write(std::move(text));
    TimePoint silent = Clock::now() + kStreamSilence;
    while (good && !in.head) {
      if (out.events.empty() && !out.ended) out = exchange_->take();
      text = std::exchange(out.events, {});
      if (text.empty() && !out.ended && Clock::now() >= silent) text = ": \n\n";
      if (out.too_slow || cut_ || core_.over || (read_ended_ && !out.ended)) {
        good = false;
      } else if (!text.empty()) {
        if (chunked) text = chunk_text(text);
        good = co_await write(std::move(text));
        silent = Clock::now() + kStreamSilence;
      } else if (out.ended) {
        if (chunked) good = co_await write("0\r\n\r\n");
        record_.status = out.status;
        break;
      } else {
        if (input_.size() < kMaxPipelined) start_read();
        co_await wait(silent);
      }
    }
    record_.complete = good;
    note();
    if (!good) cut();  // without the last chunk, so that nobody takes it for complete
    co_return good && !close;
  }

  asio::awaitable<bool> reply_to(const Incoming& in, HttpReply reply) {
    const bool close = !in.keep_alive || core_.stopping;
    const bool bare = reply.status == 204 || reply.status == 304;
    HeadOptions options{.http10 = in.http10, .close = close, .id = record_.id};
    if (!bare) options.length = reply.body.size(), options.type = reply.type;
    Headers headers = core_.origins.reply_headers(origin_);
    headers.insert(headers.end(), reply.headers.begin(), reply.headers.end());
    std::string text = head_text(reply.status, options, headers);
    if (!in.head && !bare) text += reply.body;
    record_.status = reply.status;
    record_.complete = co_await write(std::move(text));
    note();
    co_return record_.complete && !close;
  }

  void note() {
    record_.bytes_out = bytes_out_;
    record_.seconds = std::chrono::duration<double>(Clock::now() - started_).count();
    if (core_.options.on_request) core_.options.on_request(record_);
  }

  ServerCore& core_;
  tcp::socket socket_;
  std::optional<asio::ssl::stream<tcp::socket&>> tls_;
  asio::steady_timer timer_;
  const bool refused_;
  std::string peer_;
  std::array<char, kPieceBytes> piece_;  // a read goes here,
  std::string input_;                    // then here, until the parser has taken it
  std::string output_;                   // being written
  size_t written_ = 0;
  bool first_ = true, reading_ = false, read_ended_ = false, writing_ = false,
       write_failed_ = false, cut_ = false, linger_ = false;

  // Of the request that is being answered.
  std::shared_ptr<Exchange> exchange_;
  AccessRecord record_;
  std::string origin_;
  TimePoint started_;
  int64_t bytes_out_ = 0;
  int64_t reading_bytes_ = 0;  // its part of the core's
};

}  // namespace

std::shared_ptr<Connection> make_connection(ServerCore& core, tcp::socket socket, bool refused) {
  return std::make_shared<ServedConnection>(core, std::move(socket), refused);
}

}  // namespace erank::serve
