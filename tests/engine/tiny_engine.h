// What the engine's tests share: a small random model, requests that look like a reranker's, and
// what they must give, computed by passes over all ids without the engine.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/engine/engine.h"
#include "erank/model/decoder.h"

namespace erank::engine {

using model::Decoder;
using model::DecoderOptions;

// The model of shape "tiny" (vocabulary 512, context 2048) with weights so large (their standard
// deviation) that its probabilities are far from equal. libtorch computes on one
// thread from here on.
constexpr double kTinyScale = 0.25;
std::unique_ptr<Decoder> tiny_decoder(const DecoderOptions& options = {}, uint64_t seed = 1);

// The logits behind `ids`, by one pass over all of them: without a cache, or (`cached`) with a
// fresh one, as the deterministic kernels need it.
std::vector<float> logits_behind(Decoder& decoder, const Ids& ids, bool cached = false);

// The probability of each choice behind `ids`, and whether its last id is the most probable there.
struct Expected {
  std::vector<double> p;
  std::vector<bool> last_is_argmax;
};
Expected expected_choices(Decoder& decoder, const Ids& ids, const std::vector<Ids>& choices,
                          bool cached = false);

// "0" to "10" with arbitrary ids, "10" as two.
std::vector<Ids> digit_choices();

// `n` requests about few queries: frame, query, passage, frame. `think`: with up to 10 new tokens,
// partly drawn, ended by stop ids, watchers and budgets in turn.
std::vector<Request> make_requests(int n, bool think, uint64_t seed = 3);

// All ids that stand before the choices.
Ids known_ids(const Request& request, const Completion& completion);

struct RunOptions {
  EngineOptions engine = {};
  std::vector<int> order = {};  // of submission; empty: 0, 1, ...
  int steps_between = 0;        // steps after each submission
};
// Runs the requests in one engine with check_integrity() after each step. Completions by request.
std::vector<Completion> run_requests(Decoder& decoder, const std::vector<Request>& requests,
                                     const RunOptions& options = {});
// Each in an engine of its own.
std::vector<Completion> run_alone(Decoder& decoder, const std::vector<Request>& requests);

// The same tokens, and probabilities within `tolerance` both as they are and normalised over the
// choices. Tolerance 0: equal bit for bit.
void expect_same(const Completion& a, const Completion& b, double tolerance);
void expect_same(const std::vector<Completion>& a, const std::vector<Completion>& b,
                 double tolerance);
void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance);

// The text of a completion's fault, "" without one.
std::string fault_of(const Completion& completion);

}  // namespace erank::engine
