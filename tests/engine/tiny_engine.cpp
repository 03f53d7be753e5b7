#include "tests/engine/tiny_engine.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/model/config.h"
#include "erank/model/cuda/cuda_network.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"

namespace erank::engine {

TinyModel::TinyModel(const model::ModelConfig& config, Precision precision, uint64_t seed)
    // Weights that the precision holds exactly: what differs from the reference is arithmetic
    // alone.
    : parameters(config, precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat) {
  at::set_num_threads(1);  // on a busy machine threads wait for each other longer than they compute
  parameters.init_random(seed, kTinyScale);
  const model::ParametersSource source(parameters);
  network = model::make_network(source, {.precision = precision, .threads = 1});
  reference = std::make_unique<model::cuda::CudaNetwork>(source, Precision::kFp32, at::kCPU);
}

std::unique_ptr<Network> tiny_network(Precision precision) {
  return std::move(TinyModel(precision).network);
}

// As model/cuda reports an allocation that has failed.
void WrappedNetwork::exhaust() {
  ++num_exhausted;
  throw base::Error(base::ErrorKind::kExhausted, "the pass found no memory");
}

void WrappedNetwork::forward(const model::Batch& batch, model::KvCache& cache) {
  if (breaks) throw std::runtime_error("the pass broke");
  if (batch.tokens.size() > most_tokens) exhaust();
  inner_.forward(batch, cache);
}

void WrappedNetwork::read_rows(int64_t first, std::span<const model::RowRequest> requests,
                               std::span<model::RowResult> results) {
  if (good_reads-- == 0) exhaust();
  for (const auto& request : requests) {
    ++num_rows;
    num_whole_rows += request.logits != nullptr;
    num_sums += request.sum;
  }
  inner_.read_rows(first, requests, results);
}

std::vector<float> logits_after(Network& network, const Ids& ids) {
  model::Batch batch;
  batch.tokens = ids;
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.starts = {0, static_cast<int32_t>(ids.size())};
  batch.pages.resize((ids.size() + model::kPageTokens - 1) / model::kPageTokens);
  std::iota(batch.pages.begin(), batch.pages.end(), 0);
  batch.page_starts = {0, static_cast<int32_t>(batch.pages.size())};
  batch.rows = {static_cast<int32_t>(ids.size()) - 1};
  const auto cache = network.make_cache(std::ssize(batch.pages));
  network.forward(batch, *cache);
  std::vector<float> logits(network.config().vocab_size);
  model::RowResult result;
  const model::RowRequest request{.logits = logits.data()};
  network.read_rows(0, {&request, 1}, {&result, 1});
  return logits;
}

Expected expected_choices(Network& network, const Ids& ids, const std::vector<Ids>& choices) {
  Expected expected;
  for (const Ids& choice : choices) {
    Ids known = ids;
    double p = 1;
    bool is_argmax = false;
    for (const int32_t id : choice) {
      const auto logits = logits_after(network, known);
      const auto max = std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const float x : logits) sum += std::exp(double{x} - *max);
      p *= std::exp(double{logits[id]} - *max) / sum;
      is_argmax = max - logits.begin() == id;
      known.push_back(id);
    }
    expected.p.push_back(p);
    expected.last_is_argmax.push_back(is_argmax);
  }
  return expected;
}

std::vector<Ids> digit_choices() {
  std::vector<Ids> choices;
  for (int32_t digit = 0; digit < 10; ++digit) choices.push_back({100 + 7 * digit});
  choices.push_back({107, 100});
  return choices;
}

std::vector<Request> make_requests(int n, bool think, uint64_t seed) {
  base::Random random(seed);
  const auto text = [&](int64_t length) {
    Ids ids(length);
    for (int32_t& id : ids) id = static_cast<int32_t>(300 + random.below(200));
    return ids;
  };
  const auto append = [](Ids& to, const Ids& ids) { to.insert(to.end(), ids.begin(), ids.end()); };
  const Ids begin = text(21), end = text(6);
  std::vector<Ids> queries;
  for (int i = 0; i < 3; ++i) queries.push_back(text(5 + random.below(20)));
  std::vector<Request> requests;
  for (int i = 0; i < n; ++i) {
    Request request;
    request.prompt = begin;
    append(request.prompt, queries[random.below(queries.size())]);
    append(request.prompt, text(1 + random.below(50)));
    append(request.prompt, end);
    request.answer_prefix = {11, 12, 13, 14};
    request.choices = digit_choices();
    if (think) {
      request.max_new_tokens = 1 + static_cast<int>(random.below(10));
      if (i % 2 == 0) {
        request.sampling = {.temperature = 1.0, .top_p = 0.9, .top_k = 50, .seed = random.next()};
      }
      request.stop_ids = {20, 21, 22};
      if (i % 3 == 0) {
        request.watch = [](int, std::span<const int32_t> ids) {
          const bool stop = ids.back() % 4 == 0;
          return Verdict{stop, stop ? static_cast<int>(ids.size()) - 1 : -1, ids.size() % 2 == 0};
        };
      }
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

Ids known_ids(const Request& request, const Completion& completion) {
  Ids ids = request.prompt;
  ids.insert(ids.end(), completion.new_tokens.begin(), completion.new_tokens.end());
  if (completion.forced)
    ids.insert(ids.end(), request.answer_prefix.begin(), request.answer_prefix.end());
  return ids;
}

std::vector<Completion> run_requests(Network& network, const std::vector<Request>& requests,
                                     const RunOptions& options) {
  Engine engine(network, options.engine);
  std::vector<Completion> completions(requests.size());
  std::vector<int> num_done(requests.size()), order = options.order;
  if (order.empty()) {
    order.resize(requests.size());
    std::iota(order.begin(), order.end(), 0);
  }
  for (const int i : order) {
    engine.submit(requests[i], [&, i](Completion completion) {
      completions[i] = std::move(completion);
      ++num_done[i];
    });
    for (int s = 0; s < options.steps_between; ++s) {
      engine.step();
      engine.check_integrity();
    }
  }
  while (engine.step()) {
    engine.check_integrity();
    EXPECT_LE(engine.stats().num_running, options.engine.max_sequences);
  }
  EXPECT_EQ(num_done, std::vector<int>(requests.size(), 1));
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.pages_used, 0);
  EXPECT_EQ(stats.num_done + stats.num_failed, std::ssize(requests));
  if (options.engine.kv_cache_bytes > 0) {
    EXPECT_LE(stats.pages * stats.page_bytes, options.engine.kv_cache_bytes);
  }
  return completions;
}

std::vector<Completion> run_alone(Network& network, const std::vector<Request>& requests) {
  std::vector<Completion> completions;
  for (const Request& request : requests) {
    completions.push_back(run_requests(network, {request})[0]);
  }
  return completions;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  const double sum_a = std::accumulate(a.begin(), a.end(), 0.0);
  const double sum_b = std::accumulate(b.begin(), b.end(), 0.0);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], tolerance) << "choice " << i;
    EXPECT_NEAR(a[i] / sum_a, b[i] / sum_b, tolerance) << "choice " << i << ", normalised";
  }
}

void expect_same(const Completion& a, const Completion& b, double tolerance) {
  EXPECT_EQ(fault_of(a), fault_of(b));
  EXPECT_EQ(a.new_tokens, b.new_tokens);
  EXPECT_EQ(a.finish, b.finish);
  EXPECT_EQ(a.forced, b.forced);
  expect_near(a.p_choices, b.p_choices, tolerance);
}

void expect_same(const std::vector<Completion>& a, const std::vector<Completion>& b,
                 double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(base::str("request ", i));
    expect_same(a[i], b[i], tolerance);
  }
}

std::string fault_of(const Completion& completion) {
  if (!completion.fault) return "";
  try {
    std::rethrow_exception(completion.fault);
  } catch (const std::exception& e) {
    return e.what();
  }
}

}  // namespace erank::engine
