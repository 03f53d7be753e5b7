#include "erank/serve/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <thread>

namespace erank::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

AccessRecord record(const std::string& path, int status, double seconds) {
  AccessRecord r;
  r.method = "POST", r.path = path, r.status = status, r.seconds = seconds;
  return r;
}

TEST(Metrics, CountRequestsByRouteAndStatus) {
  Metrics metrics({"/v1/rerank"}, [] { return EngineFigures{}; });
  metrics.add(record("/v1/rerank", 200, 0.02));
  metrics.add(record("/v1/rerank", 200, 0.4));
  AccessRecord left = record("/v1/rerank", 499, 3);
  left.complete = false, left.bytes_in = 500;
  metrics.add(left);
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr("# TYPE erank_http_requests_total counter"));
  EXPECT_THAT(text, HasSubstr("erank_http_requests_total{method=\"POST\",route=\"/v1/rerank\","
                              "status=\"200\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("erank_http_requests_total{method=\"POST\",route=\"/v1/rerank\","
                              "status=\"499\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("erank_http_request_seconds_bucket{route=\"/v1/rerank\",le=\"0.025\"}"
                              " 1\n"));
  EXPECT_THAT(text,
              HasSubstr("erank_http_request_seconds_bucket{route=\"/v1/rerank\",le=\"0.5\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("erank_http_request_seconds_count{route=\"/v1/rerank\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("erank_http_request_body_bytes_count 1\n"));
  EXPECT_THAT(text, HasSubstr("erank_http_incomplete_total 1\n"));
}

// Whatever clients send, there is a bounded number of series.
TEST(Metrics, TakeNoLabelFromAClient) {
  Metrics metrics({"/v1/rerank"}, [] { return EngineFigures{}; });
  for (int i = 0; i < 1000; ++i) {
    AccessRecord r = record("/guess" + std::to_string(i), 404, 0.1);
    r.method = "M" + std::to_string(i);
    metrics.add(r);
  }
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr("erank_http_requests_total{method=\"other\",route=\"other\","
                              "status=\"404\"} 1000\n"));
  EXPECT_THAT(text, Not(HasSubstr("guess")));
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 100);
}

TEST(Metrics, ReadTheEngineWhenTheyAreAskedFor) {
  EngineFigures figures;
  Metrics metrics({}, [&] { return figures; });
  EXPECT_THAT(metrics.text(), HasSubstr("erank_ready 0\n"));
  EXPECT_THAT(metrics.text(), Not(HasSubstr("erank_queued_pairs")));
  figures.ready = true;
  figures.queued_pairs = 7, figures.computed_tokens = 300, figures.reused_tokens = 100;
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr("erank_ready 1\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE erank_queued_pairs gauge\nerank_queued_pairs 7\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE erank_needed_tokens_total counter\n"
                              "erank_needed_tokens_total 400\n"));
  EXPECT_THAT(text, HasSubstr("erank_computed_tokens_total 300\n"));
}

TEST(Metrics, HaveTheSizesOfPasses) {
  EngineFigures figures{.ready = true, .computed_tokens = 1000};
  figures.passes_by_sequences = {2, 0, 3};
  figures.pass_sequences = 13;
  figures.passes_by_tokens[15] = 1;  // of more than there is a bound for
  figures.passes_by_tokens[11] = 4;
  const std::string text = Metrics({}, [&] { return figures; }).text();
  EXPECT_THAT(text, HasSubstr("# TYPE erank_batch_sequences histogram\n"));
  EXPECT_THAT(text, HasSubstr("erank_batch_sequences_bucket{le=\"1\"} 2\n"
                              "erank_batch_sequences_bucket{le=\"2\"} 2\n"
                              "erank_batch_sequences_bucket{le=\"4\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("erank_batch_sequences_bucket{le=\"256\"} 5\n"
                              "erank_batch_sequences_bucket{le=\"+Inf\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("erank_batch_sequences_count 5\nerank_batch_sequences_sum 13\n"));
  EXPECT_THAT(text, HasSubstr("erank_batch_tokens_bucket{le=\"1024\"} 0\n"
                              "erank_batch_tokens_bucket{le=\"2048\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("erank_batch_tokens_bucket{le=\"16384\"} 4\n"
                              "erank_batch_tokens_bucket{le=\"+Inf\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("erank_batch_tokens_sum 1000\n"));
}

TEST(Metrics, CountCallsFromAnyThread) {
  Metrics metrics({}, [] { return EngineFigures{}; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        metrics.add_reasoning(20);
        metrics.add_call(20, i % 2 == 0 ? 0.3 : 0);
        metrics.add_cache_lookup(i % 4 == 0);
        metrics.add(record("/x", 200 + i % 3, 0.1));
      }
    });
  for (auto& thread : threads) thread.join();
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr("erank_reasoning_tokens_bucket{le=\"16\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("erank_reasoning_tokens_bucket{le=\"32\"} 400\n"));
  EXPECT_THAT(text, HasSubstr("erank_reasoning_tokens_sum 8000\n"));
  EXPECT_THAT(text, HasSubstr("erank_call_pairs_bucket{le=\"20\"} 400\n"));
  EXPECT_THAT(text, HasSubstr("erank_first_result_seconds_count 200\n"));
  EXPECT_THAT(text, HasSubstr("erank_cache_lookups_total{outcome=\"hit\"} 100\n"));
  EXPECT_THAT(text, HasSubstr("erank_cache_lookups_total{outcome=\"miss\"} 300\n"));
  EXPECT_THAT(text, HasSubstr("status=\"201\"} 132\n"));
}

// Every line is a comment or "name{labels} number" with the project's prefix.
TEST(Metrics, AreInPrometheusTextFormat) {
  EngineFigures figures;
  figures.ready = true;
  Metrics metrics({"/a"}, [&] { return figures; });
  metrics.add(record("/a", 200, 1));
  std::istringstream in(metrics.text());
  int count = 0;
  for (std::string line; std::getline(in, line); ++count)
    EXPECT_TRUE(line.starts_with("# HELP erank_") || line.starts_with("# TYPE erank_") ||
                (line.starts_with("erank_") &&
                 line.find_last_of(' ') + 1 == line.find_last_not_of("+0123456789.eInf-") + 1))
        << line;
  EXPECT_GT(count, 40);
}

}  // namespace
}  // namespace erank::serve
