#include "erank/serve/service.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <variant>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/serve/cache.h"
#include "erank/serve/info.h"
#include "erank/serve/openapi.h"
#include "erank/serve/reply.h"
#include "erank/serve/running_call.h"

namespace erank::serve {

namespace {

using base::str;

struct WaitingCall {
  PostRoute route;
  std::string path;
  std::string body;
  std::string id;
  RunningCall::Arrival arrival;
};

struct PairDone {
  uint64_t job;
  rank::PassageResult result;
};
struct ClientLeft {
  uint64_t number;
};

// What other threads tell the service's own. Apart from State, so that a callback of the reranker's
// thread never holds the last reference to the reranker.
struct Queue {
  std::mutex mutex;
  std::condition_variable news;
  std::deque<std::variant<PairDone, ClientLeft>> events;
  std::deque<WaitingCall> calls;
  int64_t call_bytes = 0;
  int64_t running = 0;  // calls; one that is being read counts
  ServiceStats stats;
  std::deque<std::pair<Clock::time_point, int64_t>> tokens;  // that the network has computed
  bool draining = false, cancel = false, stop = false;

  // The mean since five seconds ago, or since the first question after a pause.
  double tokens_per_s(Clock::time_point now, int64_t computed) {
    constexpr std::chrono::milliseconds kWindow{5000}, kApart{500};
    while (tokens.size() > 1 && now - tokens[1].first >= kWindow) tokens.pop_front();
    const double time =
        tokens.empty() ? 0 : std::chrono::duration<double>(now - tokens.front().first).count();
    const double mean = time > 0 ? static_cast<double>(computed - tokens.front().second) / time : 0;
    if (tokens.empty() || now - tokens.back().first >= kApart) tokens.emplace_back(now, computed);
    return mean;
  }

  void tell(std::variant<PairDone, ClientLeft> event) {
    {
      const std::lock_guard lock(mutex);
      events.push_back(std::move(event));
    }
    news.notify_one();
  }
};

// Pairs, each sample counts, a second while there was something to compute, the last half minute
// counting most.
class Speed {
 public:
  void note(Clock::time_point now, bool busy, int64_t done) {
    constexpr double kHalfMinute = 30;
    const double time = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    const double kept = std::exp(-time / kHalfMinute);
    seconds_ = seconds_ * kept + (busy ? time : 0);
    done_ = done_ * kept + static_cast<double>(done);
  }
  // Until `pairs` are done, 1 to 60 seconds.
  int seconds_for(int64_t pairs) const {
    const double rate = done_ > 0 && seconds_ > 0 ? done_ / seconds_ : 0;
    if (rate == 0) return 1;
    return static_cast<int>(std::clamp(std::ceil(static_cast<double>(pairs) / rate), 1.0, 60.0));
  }

 private:
  Clock::time_point last_ = Clock::now();
  double seconds_ = 0, done_ = 0;
};

HttpReply json_reply(const base::OrderedJson& json) { return {.body = base::dump_json(json)}; }

std::string without_last_slash(const std::string& path) {
  return path.size() > 1 && path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
}

constexpr int kSecondsToLoad = 5;  // what a client is told to wait while the model is loaded

}  // namespace

struct Service::State {
  ServiceOptions options;
  ServiceHooks hooks;
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
  std::map<std::string, std::function<HttpReply(const HttpRequest&)>> routes;
  const Clock::time_point began = Clock::now();
  std::thread thread;
  std::shared_ptr<rank::Reranker> model;  // these three by the queue's mutex, until there are some
  std::string files;
  ServiceCalibration calibration;

  // The thread's own.
  std::optional<ResultCache> cache;  // until the pool has it
  std::unique_ptr<PairPool> pool;
  std::unordered_map<uint64_t, std::unique_ptr<RunningCall>> calls;
  uint64_t next_number = 1;

  Speed speed;

  void add_routes();
  std::shared_ptr<rank::Reranker> reranker() const;
  std::string allow(const std::string& path) const;
  HttpReply get(const std::string& path, const HttpRequest& request) const;
  void run();
  static void guarded(RunningCall& call, const std::function<void()>& step);
  void check_running_bytes(const WaitingCall& call) const;
  void begin(WaitingCall call);
  void end_all(const char* why);
  Clock::time_point next_tick() const;
  void publish(int64_t done);
};

// --- GET ---------------------------------------------------------------------------------------

std::shared_ptr<rank::Reranker> Service::State::reranker() const {
  const std::lock_guard lock(queue->mutex);
  return model;
}

void Service::State::add_routes() {
  routes["/health"] = routes["/ping"] = [this](const HttpRequest& request) {
    const auto model = reranker();
    const std::string fault = model ? model->stats().fault : "";
    if (!fault.empty()) return error_reply(ApiError(503, fault), request.id);
    return json_reply({{"status", "ok"}});
  };
  routes["/ready"] = [this](const HttpRequest& request) {
    const auto model = reranker();
    const std::string fault = model ? model->stats().fault : "the model is being loaded";
    if (!fault.empty()) return error_reply(ApiError(503, fault), request.id);
    const std::lock_guard lock(queue->mutex);
    if (queue->draining) return error_reply(ApiError(503, "the server is ending"), request.id);
    return json_reply({{"status", "ready"}});
  };
  routes["/version"] = [this](const HttpRequest&) {
    return json_reply({{"version", options.version}});
  };
  const auto of_model = [this](auto json) {
    return [this, json](const HttpRequest& request) {
      const auto model = reranker();
      if (model) return json_reply(json(*model));
      ApiError error(503, "the model is being loaded");
      error.retry_after_s = kSecondsToLoad;
      error.shape = likely_shape(request.path, "");
      return error_reply(error, request.id);
    };
  };
  routes["/info"] = of_model(
      [this](const rank::Reranker& model) { return info_json(options, calibration.info, model); });
  routes["/openapi.json"] = [](const HttpRequest&) {
    return HttpReply{.body = std::string(openapi_json())};
  };
  routes["/docs"] = [page = openapi_page()](const HttpRequest&) {
    return HttpReply{.body = page, .type = "text/html; charset=utf-8"};
  };
  const int64_t created = std::time(nullptr);
  routes["/v1/models"] =
      of_model([created](const rank::Reranker& model) { return models_json(model, created); });
}

std::string Service::State::allow(const std::string& path) const {
  if (path == "*") return "GET, HEAD, POST, OPTIONS";
  if (post_route(path)) return "POST, OPTIONS";
  return routes.contains(path) ? "GET, HEAD, OPTIONS" : "OPTIONS";
}

HttpReply Service::State::get(const std::string& path, const HttpRequest& request) const {
  const auto route = routes.find(path);
  const bool posts = post_route(path).has_value();
  if (route == routes.end() && !posts)
    return fault_reply(request, 404,
                       str("there is no ", base::in_quotes(request.path, 100),
                           "; POST /rerank ranks documents, GET /openapi.json lists all routes"));
  if (route != routes.end() && (request.method == "GET" || request.method == "HEAD")) {
    HttpReply reply = route->second(request);
    if (request.method == "HEAD") reply.body.clear();
    return reply;
  }
  HttpReply reply = fault_reply(request, 405,
                                str("the method is ", base::in_quotes(request.method, 20),
                                    ", expected ", posts ? "POST" : "GET", " for ", path));
  reply.headers.emplace_back("Allow", allow(path));
  return reply;
}

// --- the thread --------------------------------------------------------------------------------

void Service::State::run() {
  for (;;) {
    std::deque<std::variant<PairDone, ClientLeft>> events;
    std::optional<WaitingCall> call;
    bool cancel = false, stop = false;
    {
      std::unique_lock lock(queue->mutex);
      const auto has_news = [this] {
        return queue->stop || queue->cancel || !queue->events.empty() || !queue->calls.empty();
      };
      const auto next = pool && pool->has_unsent() ? Clock::now() : next_tick();
      if (next == Clock::time_point::max())
        queue->news.wait(lock, has_news);
      else
        queue->news.wait_until(lock, next, has_news);
      stop = queue->stop;
      cancel = std::exchange(queue->cancel, false) || stop;
      events.swap(queue->events);
      if (!queue->calls.empty() && !cancel) {
        call = std::move(queue->calls.front());
        queue->calls.pop_front();
        queue->call_bytes -= std::ssize(call->body);
        ++queue->running;
      }
      if (!pool && model)
        pool = std::make_unique<PairPool>(
            model, files, std::move(*cache),
            [queue = std::weak_ptr<Queue>(queue)](uint64_t job, rank::PassageResult result) {
              if (const auto to = queue.lock()) to->tell(PairDone{job, std::move(result)});
            });
    }
    int64_t done = 0;
    try {
      for (auto& event : events) {
        if (auto* pair = std::get_if<PairDone>(&event)) {
          ++done;
          for (auto& answer : pool->take(pair->job, std::move(pair->result)))
            if (const auto it = calls.find(answer.caller); it != calls.end())
              guarded(*it->second, [&] { it->second->take(std::move(answer)); });
        } else if (const auto it = calls.find(std::get<ClientLeft>(event).number);
                   it != calls.end()) {
          it->second->abandon();
        }
      }
    } catch (const std::exception& error) {  // e.g. out of memory: which call it was is not known
      end_all(str("a fault of the server: ", error.what()).c_str());
    }
    if (cancel) end_all("the server is ending");
    if (call) begin(std::move(*call));
    const auto now = Clock::now();
    for (auto& entry : calls) {
      RunningCall& running = *entry.second;
      if (now >= running.next_tick()) guarded(running, [&] { running.tick(now); });
    }
    if (pool) pool->send();
    publish(done);
    if (stop) return;
  }
}

// What a step throws ends its call alone.
void Service::State::guarded(RunningCall& call, const std::function<void()>& step) {
  try {
    step();
  } catch (const ApiError& error) {
    call.fail(error);
  } catch (const std::exception& error) {
    call.fail(ApiError(500, str("a fault of the server: ", error.what())));
  }
}

// Calls for the same pairs add no pairs to what is computed, but each holds its texts. Small ones
// are let in whatever else is being answered.
void Service::State::check_running_bytes(const WaitingCall& call) const {
  constexpr int64_t kSmallBody = 64 << 10;
  if (call.arrival.body_bytes <= kSmallBody) return;
  int64_t bytes = 0;
  for (const auto& [number, running] : calls)
    if (!running->ended()) bytes += running->body_bytes();
  if (bytes == 0 || bytes + call.arrival.body_bytes <= options.max_running_bytes) return;
  ApiError error(429, str("requests of ", bytes, " bytes are being answered and this one adds ",
                          call.arrival.body_bytes, ", expected at most ", options.max_running_bytes,
                          " together; try again later"));
  error.retry_after_s = speed.seconds_for(pool->num_computing());
  error.shape = likely_shape(call.path, call.body);
  throw error;
}

void Service::State::begin(WaitingCall waiting) {
  const auto responder = waiting.arrival.responder;
  const uint64_t number = next_number++;
  std::unique_ptr<RunningCall> running;
  try {
    check_running_bytes(waiting);
    ApiDefaults defaults = options.defaults;
    defaults.mode = pool->reranker().defaults().mode;
    RerankCall call = parse_call(waiting.route, waiting.body, options.limits, defaults);
    if (!call.deadline_ms && options.default_deadline_ms > 0)
      call.deadline_ms = options.default_deadline_ms;
    ReplyContext context{.id = waiting.id,
                         .model = pool->reranker().model_name(),
                         .created = std::time(nullptr),
                         .scale = pool->reranker().defaults().prompt.scale};
    running = std::make_unique<RunningCall>(number, std::move(call), std::move(context),
                                            std::move(waiting.arrival), *pool, calibration, hooks);
  } catch (const ApiError& error) {
    return responder->send(error_reply(error, waiting.id));
  } catch (const std::exception& error) {
    ApiError fault(500, str("a fault of the server: ", error.what()));
    fault.shape = likely_shape(waiting.path, waiting.body);
    return responder->send(error_reply(fault, waiting.id));
  }
  guarded(*running, [&] {
    running->start([this](int64_t missing) {
      const int64_t computing = pool->num_computing();
      if (missing == 0 || computing == 0 || computing + missing <= options.max_queued_pairs) return;
      ApiError error(
          429, str(computing, " pairs are being scored and the call adds ", missing,
                   ", expected at most ", options.max_queued_pairs, " together; try again later"));
      error.retry_after_s = speed.seconds_for(computing + missing - options.max_queued_pairs);
      throw error;
    });
  });
  if (running->ended()) return;
  calls.emplace(number, std::move(running));
  responder->on_client_left([queue = std::weak_ptr<Queue>(queue), number] {
    if (const auto to = queue.lock()) to->tell(ClientLeft{number});
  });
}

void Service::State::end_all(const char* why) {
  ApiError error(503, why);
  for (auto& [number, running] : calls) running->fail(error);
  std::deque<WaitingCall> waiting;
  {
    const std::lock_guard lock(queue->mutex);
    waiting.swap(queue->calls);
    queue->call_bytes = 0;
  }
  for (const WaitingCall& call : waiting) {
    error.shape = likely_shape(call.path, call.body);
    call.arrival.responder->send(error_reply(error, call.id));
  }
}

Clock::time_point Service::State::next_tick() const {
  auto next = Clock::time_point::max();
  for (const auto& [number, running] : calls) next = std::min(next, running->next_tick());
  return next;
}

void Service::State::publish(int64_t done) {
  std::erase_if(calls, [](const auto& entry) { return entry.second->ended(); });
  if (auto fault = pool ? pool->cache().take_fault() : std::nullopt; fault && hooks.on_warning)
    hooks.on_warning(str("the cache's file is not used any more: ", *fault));
  const std::lock_guard lock(queue->mutex);
  queue->running = std::ssize(calls);
  if (!pool) return;
  speed.note(Clock::now(), pool->num_computing() > 0 || done > 0, pool->take_num_done());
  ServiceStats& stats = queue->stats;
  stats.queued_pairs = pool->num_computing();
  stats.cache_hits = pool->num_hits();
  stats.cached_results = pool->cache().size();
  stats.cache_bytes = pool->cache().bytes();
  stats.computed_pairs += done;
}

// --- from other threads ------------------------------------------------------------------------

Service::Service(ServiceOptions options, ServiceHooks hooks) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  state_->hooks = std::move(hooks);
  state_->cache.emplace(CacheOptions{.max_bytes = state_->options.max_cache_bytes,
                                     .file = state_->options.cache_file});
  state_->add_routes();
  state_->routes["/live"] = [this](const HttpRequest&) { return json_reply(live_json(stats())); };
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

Service::~Service() {
  {
    const std::lock_guard lock(state_->queue->mutex);
    state_->queue->stop = true;
  }
  state_->queue->news.notify_one();
  state_->thread.join();
}

void Service::set_reranker(std::shared_ptr<rank::Reranker> reranker, const std::string& files,
                           ServiceCalibration calibration) {
  const std::lock_guard lock(state_->queue->mutex);
  ERANK_CHECK(reranker && !state_->model);
  state_->files = files;
  state_->calibration = std::move(calibration);
  state_->model = std::move(reranker);
}

void Service::add_route(const std::string& path,
                        std::function<HttpReply(const HttpRequest&)> reply) {
  state_->routes[path] = std::move(reply);
}

std::vector<std::pair<std::string, std::string>> Service::routes() const {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& [path, reply] : state_->routes) all.emplace_back("GET", path);
  for (const std::string_view path : kPostPaths) all.emplace_back("POST", path);
  return all;
}

std::string Service::allow(std::string_view path) const {
  return state_->allow(without_last_slash(std::string(path)));
}

void Service::handle(HttpRequest request, std::shared_ptr<Responder> responder) {
  const std::string path = without_last_slash(request.path);
  const auto route = post_route(path);
  if (request.method != "POST" || !route) return responder->send(state_->get(path, request));
  Queue& queue = *state_->queue;
  const ServiceOptions& options = state_->options;
  std::optional<ApiError> refused;
  {
    const std::lock_guard lock(queue.mutex);
    const auto bytes = std::ssize(request.body);
    if (queue.draining || queue.stop) {
      refused.emplace(503, "the server is ending");
    } else if (!state_->model) {
      refused.emplace(503, "the model is being loaded; try again later");
      refused->retry_after_s = kSecondsToLoad;
    } else if (std::ssize(queue.calls) >= options.max_waiting_calls ||
               (!queue.calls.empty() && queue.call_bytes + bytes > options.max_waiting_bytes)) {
      refused.emplace(429, str(queue.calls.size(), " calls of ", queue.call_bytes,
                               " bytes wait to be read; try again later"));
      refused->retry_after_s = 1;
    } else {
      queue.call_bytes += bytes;
      queue.calls.push_back({*route,
                             path,
                             std::move(request.body),
                             request.id,
                             {responder, Clock::now(), options.request_timeout_ms, bytes}});
    }
  }
  if (refused) {
    refused->shape = likely_shape(path, request.body);
    return responder->send(error_reply(*refused, request.id));
  }
  queue.news.notify_one();
}

void Service::drain() {
  const std::lock_guard lock(state_->queue->mutex);
  state_->queue->draining = true;
}

bool Service::idle() const {
  const std::lock_guard lock(state_->queue->mutex);
  return state_->queue->calls.empty() && state_->queue->running == 0;
}

void Service::cancel_all() {
  {
    const std::lock_guard lock(state_->queue->mutex);
    state_->queue->cancel = true;
  }
  state_->queue->news.notify_one();
}

ServiceStats Service::stats() const {
  Queue& queue = *state_->queue;
  const auto model = state_->reranker();
  const auto of_model = model ? model->stats() : rank::RerankerStats{};
  const auto now = Clock::now();
  const std::lock_guard lock(queue.mutex);
  ServiceStats stats = queue.stats;
  stats.tokens_per_s = queue.tokens_per_s(now, of_model.engine.computed_tokens);
  stats.waiting_calls = std::ssize(queue.calls);
  stats.running_calls = queue.running;
  stats.ready = model && of_model.fault.empty() && !queue.draining;
  stats.reranker = of_model;
  stats.uptime_s = std::chrono::duration<double>(now - state_->began).count();
  return stats;
}

}  // namespace erank::serve
