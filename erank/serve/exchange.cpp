#include "erank/serve/exchange.h"

#include <utility>

#include "erank/base/error.h"
#include "erank/serve/http_text.h"

namespace erank::serve {

class ExchangeResponder : public Responder {
 public:
  ExchangeResponder(std::shared_ptr<Exchange> exchange, std::string id)
      : exchange_(std::move(exchange)), id_(std::move(id)) {}
  ~ExchangeResponder() override { exchange_->dropped(id_); }

  void send(HttpReply reply) override { exchange_->send(std::move(reply)); }
  void begin_events(Headers headers) override { exchange_->begin(std::move(headers)); }
  bool event(std::string_view name, std::string_view data) override {
    return exchange_->add(event_text(name, data));
  }
  void end_events(int status) override { exchange_->end(status); }
  void on_client_left(std::function<void()> left) override { exchange_->on_left(std::move(left)); }

 private:
  std::shared_ptr<Exchange> exchange_;
  std::string id_;
};

Exchange::Exchange(std::function<void()> wake, size_t max_waiting)
    : wake_(std::move(wake)), max_waiting_(max_waiting) {}

std::shared_ptr<Responder> Exchange::responder(std::string request_id) {
  return std::make_shared<ExchangeResponder>(shared_from_this(), std::move(request_id));
}

ExchangeOutput Exchange::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  ExchangeOutput taken = std::move(output_);
  output_ = {};
  output_.ended = taken.ended, output_.status = taken.status, output_.too_slow = taken.too_slow;
  return taken;
}

bool Exchange::too_slow() {
  const std::lock_guard lock(mutex_);
  return output_.too_slow;
}

void Exchange::close(bool left) {
  std::function<void()> call;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true, client_left_ = left;
    wake_ = nullptr;
    output_ = {};
    call = std::move(left_);
    left_ = nullptr;
  }
  if (left && call) call();
}

void Exchange::wake_locked() {
  if (wake_ && !std::exchange(woken_, true)) wake_();
}

void Exchange::send(HttpReply reply) {
  const std::lock_guard lock(mutex_);
  ERANK_CHECK(!answered_, "a request has one answer");
  answered_ = true;
  if (closed_) return;
  output_.reply = std::move(reply);
  wake_locked();
}

void Exchange::begin(Headers headers) {
  const std::lock_guard lock(mutex_);
  ERANK_CHECK(!answered_, "a request has one answer");
  answered_ = streams_ = true;
  if (closed_) return;
  output_.begun = std::move(headers);
  wake_locked();
}

bool Exchange::add(std::string text) {
  const std::lock_guard lock(mutex_);
  ERANK_CHECK(streams_, "an event needs a stream");
  if (closed_ || output_.too_slow || output_.ended) return false;
  if (output_.events.size() > max_waiting_) {
    output_.too_slow = true;
    output_.events.clear();
    woken_ = false;  // nothing is taken while a write waits for the client
    wake_locked();
    return false;
  }
  if (output_.events.empty())
    output_.events = std::move(text);
  else
    output_.events += text;
  wake_locked();
  return true;
}

void Exchange::end(int status) {
  const std::lock_guard lock(mutex_);
  ERANK_CHECK(streams_, "only a stream is ended");
  if (closed_ || output_.ended) return;
  output_.ended = true;
  output_.status = status;
  wake_locked();
}

void Exchange::on_left(std::function<void()> left) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      left_ = std::move(left);
      return;
    }
    if (!client_left_) return;
  }
  left();
}

void Exchange::dropped(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  if (!answered_) {
    answered_ = true;
    output_.reply = error_reply(500, "internal_error", "the request was given up without an answer",
                                request_id);
  } else if (streams_ && !output_.ended) {
    output_.ended = true;
    output_.status = 500;
  } else {
    return;
  }
  wake_locked();
}

}  // namespace erank::serve
