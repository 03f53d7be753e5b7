#include "erank/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/random.h"

namespace erank::engine {
namespace {

struct Largest {
  int32_t id = -1;  // -1: a logit is not a number, or none is finite
  float value = -std::numeric_limits<float>::infinity();
};

Largest largest(std::span<const float> logits) {
  Largest found;
  bool numbers = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    numbers &= logits[i] == logits[i];
    if (logits[i] > found.value) found = {static_cast<int32_t>(i), logits[i]};
  }
  if (!numbers || !std::isfinite(found.value)) found.id = -1;
  return found;
}

struct Candidate {
  int32_t id;
  float logit;
};

bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

}  // namespace

Softmax::Softmax(std::span<const float> logits) {
  const Largest top = largest(logits);
  valid = top.id >= 0;
  if (!valid) return;
  max = top.value;
  argmax = top.id;
  for (const float x : logits) sum += std::exp(x - max);
}

double Softmax::p(float logit) const {
  return std::exp(static_cast<double>(logit) - static_cast<double>(max)) / sum;
}

int32_t sample(std::span<const float> logits, const Sampling& sampling, uint64_t draw) {
  const Largest top = largest(logits);
  if (top.id < 0 || sampling.temperature == 0) return top.id;
  const auto weight = [&](float logit) -> double {
    return std::exp(static_cast<float>((double{logit} - top.value) / sampling.temperature));
  };
  const double u = base::Random(base::derived_seed(sampling.seed, draw)).uniform();

  std::vector<Candidate> kept(logits.size());
  for (size_t i = 0; i < kept.size(); ++i) kept[i] = {static_cast<int32_t>(i), logits[i]};
  if (sampling.top_k > 0 && sampling.top_k < std::ssize(kept)) {
    std::nth_element(kept.begin(), kept.begin() + sampling.top_k, kept.end(), before);
    kept.resize(sampling.top_k);
    // The draw must not depend on the order in which a library's nth_element leaves them.
    std::sort(kept.begin(), kept.end(), before);
  }
  double total = 0;
  for (const Candidate& c : kept) total += weight(c.logit);
  if (sampling.top_p < 1) {
    // The most probable ones come off a heap until they weigh enough: few of many.
    const auto after = [](const Candidate& a, const Candidate& b) { return before(b, a); };
    std::make_heap(kept.begin(), kept.end(), after);
    const double enough = sampling.top_p * total;
    double weighed = 0;
    auto end = kept.end();
    while (end != kept.begin() && weighed < enough) {
      std::pop_heap(kept.begin(), end, after);
      weighed += weight((--end)->logit);
    }
    kept.erase(kept.begin(), end);
    std::reverse(kept.begin(), kept.end());
    total = weighed;
  }
  double left = u * total;
  for (const Candidate& c : kept) {
    left -= weight(c.logit);
    if (left < 0) return c.id;
  }
  return top.id;  // the rounding of `total` left nothing to draw from
}

void check(const Sampling& sampling) {
  const auto refuse = [](const char* field, const auto& value, const char* expected) {
    base::fail(base::ErrorKind::kInvalidInput, "engine", field, " is ", value, ", expected ",
               expected);
  };
  if (!(sampling.temperature >= 0 && std::isfinite(sampling.temperature))) {
    refuse("temperature", sampling.temperature, "0 (greedy) or more");
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    refuse("top_p", sampling.top_p, "more than 0 and at most 1 (all)");
  }
  if (sampling.top_k < 0) refuse("top_k", sampling.top_k, "0 (all) or more");
}

}  // namespace erank::engine
