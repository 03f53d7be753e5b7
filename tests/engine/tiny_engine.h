// What the engine's tests share: a small random model, requests that look like a reranker's, and
// what they must give, computed by passes over all ids without the engine.
#pragma once

#include <gtest/gtest.h>

#include <climits>
#include <memory>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/engine/engine.h"
#include "erank/model/network.h"
#include "erank/model/parameters.h"
#include "tests/exact_bits.h"

namespace erank::engine {

using model::Network;
using model::Parameters;
using model::Precision;

// How far equal results of the CPU's network may be apart.
constexpr double kSame = kExactBits ? 0 : 1e-5;

// Weights of the model of shape "tiny" (vocabulary 512, context 2048), so large (their standard
// deviation) that its probabilities are far from equal. libtorch computes on one thread from here
// on.
constexpr double kTinyScale = 0.25;
struct TinyModel {
  explicit TinyModel(Precision precision = Precision::kFp32, uint64_t seed = 1)
      : TinyModel(model::config_of_shape("tiny"), precision, seed) {}
  TinyModel(const model::ModelConfig& config, Precision precision, uint64_t seed = 1);

  Parameters parameters;
  std::unique_ptr<Network> network;    // what serving computes with, on the CPU
  std::unique_ptr<Network> reference;  // the same weights by libtorch's own operations
};
std::unique_ptr<Network> tiny_network(Precision precision = Precision::kFp32);

// Another network's results, counted; forward() throws while `breaks`. Memory is short for more
// tokens than `most_tokens`, and in read_rows() once after `good_reads` calls.
class WrappedNetwork : public Network {
 public:
  explicit WrappedNetwork(Network& inner)
      : Network(inner.config(), inner.precision()), inner_(inner) {}
  void load(const model::WeightSource& source, base::ProgressSink* progress) override {
    inner_.load(source, progress);
  }
  int64_t page_bytes() const override { return inner_.page_bytes(); }
  int64_t usual_cache_bytes() const override { return cache_bytes; }
  std::unique_ptr<model::KvCache> make_cache(int64_t num_pages) const override {
    return inner_.make_cache(num_pages);
  }
  void forward(const model::Batch& batch, model::KvCache& cache) override;
  void read_rows(int64_t first, std::span<const model::RowRequest> requests,
                 std::span<model::RowResult> results) override;
  int64_t weight_bytes() const override { return inner_.weight_bytes(); }
  bool draws() const override { return inner_.draws(); }

  bool breaks = false;
  size_t most_tokens = SIZE_MAX;
  int good_reads = INT_MAX;
  int num_exhausted = 0;  // times that memory was short
  int64_t cache_bytes = model::kUsualCacheBytes;
  int64_t num_rows = 0, num_whole_rows = 0, num_sums = 0;  // asked so far

 private:
  [[noreturn]] void exhaust();
  Network& inner_;
};

// The logits after `ids`, by one pass over all of them with a fresh cache.
std::vector<float> logits_after(Network& network, const Ids& ids);

// The probability of each choice after `ids`, and whether its last id is the most probable there.
struct Expected {
  std::vector<double> p;
  std::vector<bool> last_is_argmax;
};
Expected expected_choices(Network& network, const Ids& ids, const std::vector<Ids>& choices);

// "0" to "10" with arbitrary ids, "10" as two.
std::vector<Ids> digit_choices();

// `n` requests about few queries: frame, query, passage, frame. `think`: with up to 10 new tokens,
// partly drawn, ended by stop ids, watchers and budgets in turn.
std::vector<Request> make_requests(int n, bool think, uint64_t seed = 3);

// All ids before the choices.
Ids known_ids(const Request& request, const Completion& completion);

struct RunOptions {
  EngineOptions engine = {};
  std::vector<int> order = {};  // of submission; empty: 0, 1, ...
  int steps_between = 0;        // steps after each submission
};
// Runs the requests in one engine with check_integrity() after each step. Completions by request.
std::vector<Completion> run_requests(Network& network, const std::vector<Request>& requests,
                                     const RunOptions& options = {});
// Each in an engine of its own.
std::vector<Completion> run_alone(Network& network, const std::vector<Request>& requests);

// The same tokens, and probabilities within `tolerance` both as they are and normalised over the
// choices. Tolerance 0: equal bit for bit.
void expect_same(const Completion& a, const Completion& b, double tolerance);
void expect_same(const std::vector<Completion>& a, const std::vector<Completion>& b,
                 double tolerance);
void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance);

// The text of a completion's fault, "" without one.
std::string fault_of(const Completion& completion);

}  // namespace erank::engine
