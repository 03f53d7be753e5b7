#include "tests/engine/tiny_engine.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/model/config.h"
#include "erank/model/kv_cache.h"

namespace erank::engine {

std::unique_ptr<Decoder> tiny_decoder(const DecoderOptions& options, uint64_t seed) {
  at::set_num_threads(1);  // on a busy machine threads wait for each other longer than they compute
  auto decoder = std::make_unique<Decoder>(model::config_of_shape("tiny"), options);
  decoder->init_random(seed, kTinyScale);
  return decoder;
}

std::vector<float> logits_behind(Decoder& decoder, const Ids& ids, bool cached) {
  const c10::InferenceMode guard;
  model::Batch batch;
  batch.tokens = ids;
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.starts = {0, static_cast<int32_t>(ids.size())};
  batch.rows = {static_cast<int32_t>(ids.size()) - 1};
  at::Tensor logits;
  if (cached) {
    const int64_t num_pages = (std::ssize(ids) + 15) / 16;
    model::KvCache cache(decoder.config(), num_pages, decoder.options().dtype,
                         decoder.options().device);
    batch.pages.emplace_back(num_pages);
    std::iota(batch.pages[0].begin(), batch.pages[0].end(), 0);
    logits = decoder.forward(batch, &cache);
  } else {
    logits = decoder.forward(batch, nullptr);
  }
  logits = logits.to(at::kCPU).contiguous();
  const float* data = logits.const_data_ptr<float>();
  return {data, data + logits.numel()};
}

Expected expected_choices(Decoder& decoder, const Ids& ids, const std::vector<Ids>& choices,
                          bool cached) {
  Expected expected;
  for (const Ids& choice : choices) {
    Ids known = ids;
    double p = 1;
    bool is_argmax = false;
    for (const int32_t id : choice) {
      const auto logits = logits_behind(decoder, known, cached);
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
    request.closing = {11, 12, 13, 14};
    request.choices = digit_choices();
    if (think) {
      request.max_new_tokens = 1 + static_cast<int>(random.below(10));
      if (i % 2 == 0) {
        request.sampling = {.temperature = 1.0, .top_p = 0.9, .top_k = 50, .seed = random.next()};
      }
      request.stop_ids = {20, 21, 22};
      if (i % 3 == 0) {
        request.watch = [](std::span<const int32_t> ids) {
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
  if (completion.closed) ids.insert(ids.end(), request.closing.begin(), request.closing.end());
  return ids;
}

std::vector<Completion> run_requests(Decoder& decoder, const std::vector<Request>& requests,
                                     const RunOptions& options) {
  Engine engine(decoder, options.engine);
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
  EXPECT_LE(engine.stats().kv_cache_bytes, options.engine.kv_cache_bytes);
  return completions;
}

std::vector<Completion> run_alone(Decoder& decoder, const std::vector<Request>& requests) {
  std::vector<Completion> completions;
  for (const Request& request : requests) {
    completions.push_back(run_requests(decoder, {request})[0]);
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
  EXPECT_EQ(a.closed, b.closed);
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
