#include "erank/serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

namespace erank::serve {
namespace {

namespace pm = prometheus;

// Methods that get a label of their own.
constexpr std::array<std::string_view, 4> kMethods = {"GET", "HEAD", "POST", "OPTIONS"};

const pm::Histogram::BucketBoundaries kSeconds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                                  2.5,   5,    10,    30,   60,  120,  300};
const pm::Histogram::BucketBoundaries kTokens = {8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
const pm::Histogram::BucketBoundaries kPairs = {1, 5, 10, 20, 50, 100, 200, 500, 1000};
const pm::Histogram::BucketBoundaries kBytes = {1e2, 1e3, 1e4, 1e5, 1e6, 1e7};

pm::MetricFamily family(const char* name, const char* help, pm::MetricType type, double value) {
  pm::ClientMetric metric;
  (type == pm::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  return {name, help, type, {metric}};
}

// With bounds of 1, 2, 4, ... `most`.
pm::MetricFamily sizes(const char* name, const char* help, std::span<const int64_t> by_power,
                       double most, int64_t sum) {
  pm::ClientMetric metric;
  pm::ClientMetric::Histogram& histogram = metric.histogram;
  uint64_t count = 0;
  double bound = 1;
  for (const int64_t passes : by_power) {
    count += static_cast<uint64_t>(passes);
    if (bound <= most) histogram.bucket.push_back({count, bound});
    bound *= 2;
  }
  histogram.sample_count = count;
  histogram.sample_sum = static_cast<double>(sum);
  return {name, help, pm::MetricType::Histogram, {metric}};
}

// Those of the engine, made when they are asked for.
std::vector<pm::MetricFamily> engine_families(const EngineFigures& e) {
  constexpr auto kGauge = pm::MetricType::Gauge, kCounter = pm::MetricType::Counter;
  std::vector<pm::MetricFamily> out = {
      family("erank_ready", "1 when the model is loaded and warm.", kGauge, e.ready)};
  if (!e.ready) return out;
  const auto gauge = [&](const char* name, const char* help, int64_t value) {
    out.push_back(family(name, help, kGauge, static_cast<double>(value)));
  };
  const auto count = [&](const char* name, const char* help, int64_t value) {
    out.push_back(family(name, help, kCounter, static_cast<double>(value)));
  };
  gauge("erank_calls_waiting", "Calls that are not read yet.", e.waiting_calls);
  gauge("erank_calls_running", "Calls that are being answered.", e.running_calls);
  gauge("erank_cached_results", "Results that are kept for pairs that come again.",
        e.cached_results);
  gauge("erank_queued_pairs", "Pairs queued or being scored; each sample of one counts.",
        e.queued_pairs);
  gauge("erank_max_queued_pairs", "Pairs that may be queued; more are refused with 429.",
        e.max_queued_pairs);
  gauge("erank_sequences_running", "Sequences that the engine computes now.", e.running);
  gauge("erank_sequences_waiting", "Sequences that wait for room in the engine.", e.waiting);
  gauge("erank_kv_pages", "Pages of the cache of keys and values.", e.cache_pages);
  gauge("erank_kv_pages_used", "Pages that running sequences hold.", e.cache_pages_used);
  count("erank_passes_total", "Forward passes.", e.passes);
  constexpr double kMostSequences = 256, kMostTokens = 16384;
  out.push_back(sizes("erank_batch_sequences", "Sequences of a forward pass.",
                      e.passes_by_sequences, kMostSequences, e.pass_sequences));
  out.push_back(sizes("erank_batch_tokens", "Tokens of a forward pass.", e.passes_by_tokens,
                      kMostTokens, e.computed_tokens));
  count("erank_computed_tokens_total", "Tokens that went through the network.", e.computed_tokens);
  count("erank_needed_tokens_total",
        "Tokens that would have gone through it without shared prefixes.",
        e.computed_tokens + e.reused_tokens);
  count("erank_reused_tokens_total", "Tokens of prompts whose keys and values were there already.",
        e.reused_tokens);
  count("erank_new_tokens_total", "Tokens that the model wrote.", e.new_tokens);
  count("erank_pairs_scored_total", "Pairs that have a score; each window and sample counts.",
        e.scored_pairs);
  count("erank_pairs_failed_total", "Pairs that could not be scored.", e.failed_pairs);
  count("erank_pairs_cancelled_total", "Pairs whose client left or whose time ran out.",
        e.cancelled_pairs);
  return out;
}

}  // namespace

struct Metrics::State {
  std::vector<std::string> routes;
  std::function<EngineFigures()> engine;
  pm::Registry registry;
  pm::Family<pm::Counter>& requests = pm::BuildCounter()
                                          .Name("erank_http_requests_total")
                                          .Help("Requests by route, method and status.")
                                          .Register(registry);
  pm::Family<pm::Histogram>& seconds =
      pm::BuildHistogram()
          .Name("erank_http_request_seconds")
          .Help("Time from a request's first byte to its reply's last.")
          .Register(registry);
  pm::Histogram& body_bytes = pm::BuildHistogram()
                                  .Name("erank_http_request_body_bytes")
                                  .Help("Size of the bodies of requests.")
                                  .Register(registry)
                                  .Add({}, kBytes);
  pm::Counter& incomplete = pm::BuildCounter()
                                .Name("erank_http_incomplete_total")
                                .Help("Requests whose client left or was cut before the end.")
                                .Register(registry)
                                .Add({});
  pm::Histogram& call_pairs = pm::BuildHistogram()
                                  .Name("erank_call_pairs")
                                  .Help("Pairs of a call.")
                                  .Register(registry)
                                  .Add({}, kPairs);
  pm::Histogram& first_seconds = pm::BuildHistogram()
                                     .Name("erank_first_result_seconds")
                                     .Help("Time from a call's coming to its first pair's score.")
                                     .Register(registry)
                                     .Add({}, kSeconds);
  pm::Histogram& reasoning = pm::BuildHistogram()
                                 .Name("erank_reasoning_tokens")
                                 .Help("Tokens of reasoning written for a pair.")
                                 .Register(registry)
                                 .Add({}, kTokens);
  pm::Family<pm::Counter>& lookups =
      pm::BuildCounter()
          .Name("erank_cache_lookups_total")
          .Help("Pairs looked for in the cache of results, by outcome.")
          .Register(registry);
  pm::Counter& hits = lookups.Add({{"outcome", "hit"}});
  pm::Counter& misses = lookups.Add({{"outcome", "miss"}});
};

Metrics::Metrics(std::vector<std::string> routes, std::function<EngineFigures()> engine)
    : state_(std::make_unique<State>()) {
  state_->routes = std::move(routes);
  state_->engine = std::move(engine);
}

Metrics::~Metrics() = default;

void Metrics::add(const AccessRecord& record) {
  const auto& routes = state_->routes;
  const bool known = std::find(routes.begin(), routes.end(), record.path) != routes.end();
  const std::string route = known ? record.path : "other";
  const bool usual = std::find(kMethods.begin(), kMethods.end(), record.method) != kMethods.end();
  state_->requests
      .Add({{"route", route},
            {"method", usual ? record.method : "other"},
            {"status", std::to_string(record.status)}})
      .Increment();
  state_->seconds.Add({{"route", route}}, kSeconds).Observe(record.seconds);
  if (record.bytes_in > 0) state_->body_bytes.Observe(static_cast<double>(record.bytes_in));
  if (!record.complete) state_->incomplete.Increment();
}

void Metrics::add_call(int64_t pairs, double first_seconds) {
  state_->call_pairs.Observe(static_cast<double>(pairs));
  if (first_seconds > 0) state_->first_seconds.Observe(first_seconds);
}

void Metrics::add_reasoning(int64_t tokens) {
  state_->reasoning.Observe(static_cast<double>(tokens));
}

void Metrics::add_cache_lookup(bool hit) { (hit ? state_->hits : state_->misses).Increment(); }

std::string Metrics::text() const {
  std::vector<pm::MetricFamily> families = state_->registry.Collect();
  for (auto& f : engine_families(state_->engine())) families.push_back(std::move(f));
  return pm::TextSerializer().Serialize(families);
}

}  // namespace erank::serve
