#include "erank/engine/sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/model/cpu/kernels.h"

namespace erank::engine {
namespace {

using model::cpu::exp_sums;
using model::cpu::kChunk;

int64_t num_chunks(int64_t n, int64_t chunk) { return (n + chunk - 1) / chunk; }

float largest(const float* x, int64_t n) {
  float lanes[16];
  std::fill_n(lanes, 16, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t k = 0; k < 16; ++k) lanes[k] = x[i + k] > lanes[k] ? x[i + k] : lanes[k];
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes, lanes + 16);
}

struct Candidate {
  int32_t id;
  float logit;
};
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}
bool after(const Candidate& a, const Candidate& b) { return before(b, a); }

double uniform(const Sampling& sampling, uint64_t index) {
  return base::Random(base::derived_seed(sampling.seed, index)).uniform();
}

// One draw, and the memory that the next one on this thread uses again.
class Drawing {
 public:
  Draw run(std::span<const float> logits, float max, const Sampling& sampling, uint64_t index) {
    logits_ = logits;
    maxima_of_ = nullptr;
    max_ = max;
    // Any temperature is a scale that keeps 0 * scale and -inf * scale apart.
    scale_ =
        static_cast<float>(std::clamp(1 / sampling.temperature, double{FLT_MIN}, double{FLT_MAX}));
    const auto n = std::ssize(logits);
    sums_.resize(num_chunks(n, kChunk));
    exp_sums(logits.data(), n, max, scale_, sums_.data());
    double total = 0;
    for (const float sum : sums_) total += sum;
    const double u = uniform(sampling, index);
    const int32_t token = sampling.top_p < 1 || (sampling.top_k > 0 && sampling.top_k < n)
                              ? pick_of_kept(u, total, sampling)
                              : pick_of_all(u * total);
    return {token, double{(logits[token] - max) * scale_} - std::log(total)};
  }

 private:
  double weight(float logit) const { return std::exp((logit - max_) * scale_); }

  // The first token at which the running sum of weights exceeds `left`.
  int32_t pick_of_all(double left) const {
    const auto n = std::ssize(logits_);
    int64_t chunk = 0, last = 0;  // the chunk, and the last one that has any weight
    for (; chunk < std::ssize(sums_); ++chunk) {
      if (sums_[chunk] > 0) last = chunk;
      if (left < sums_[chunk]) break;
      left -= sums_[chunk];
    }
    chunk = std::min(chunk, last);
    auto token = static_cast<int32_t>(chunk * kChunk);
    for (int64_t i = chunk * kChunk; i < std::min(n, (chunk + 1) * kChunk); ++i) {
      const double w = weight(logits_[i]);
      if (w > 0) token = static_cast<int32_t>(i);
      left -= w;
      if (left < 0) break;
    }
    return token;  // at the end of the chunk when the rounding of its sum left too much
  }

  int32_t pick_of_kept(double u, double total, const Sampling& sampling) {
    const auto n = std::ssize(logits_);
    const bool cut = sampling.top_k > 0 && sampling.top_k < n;
    if (cut) {
      keep_largest(sampling.top_k);
      total = 0;
      for (const Candidate& c : kept_) total += weight(c.logit);
    }
    if (sampling.top_p < 1) {
      const double enough = sampling.top_p * total;
      if (cut) {
        keep_weight(enough);
      } else {
        // Most of the weight is near the maximum: a lower threshold is tried until it is enough.
        for (float depth = 4;; depth *= 2) {
          const bool all =
              gather(depth / scale_ < FLT_MAX ? max_ - depth / scale_
                                              : -std::numeric_limits<float>::infinity());
          if (keep_weight(enough) || all) break;
        }
      }
      total = 0;
      for (const Candidate& c : kept_) total += weight(c.logit);
    }
    double left = u * total;
    for (const Candidate& c : kept_) {
      left -= weight(c.logit);
      if (left < 0) return c.id;
    }
    return kept_.front().id;  // the rounding of `total` left nothing to draw from
  }

  // Those of at least `threshold` into kept_, by id; whether that is all.
  bool gather(float threshold, int64_t chunk = kChunk) {
    const auto n = std::ssize(logits_);
    if (std::ssize(maxima_) != num_chunks(n, chunk) || maxima_of_ != logits_.data())
      find_maxima(chunk);
    kept_.clear();
    for (int64_t c = 0; c < std::ssize(maxima_); ++c) {
      if (maxima_[c] < threshold) continue;
      for (int64_t i = c * chunk; i < std::min(n, (c + 1) * chunk); ++i)
        if (logits_[i] >= threshold) kept_.push_back({static_cast<int32_t>(i), logits_[i]});
    }
    return std::ssize(kept_) == n;
  }

  void find_maxima(int64_t chunk) {
    const auto n = std::ssize(logits_);
    maxima_.resize(num_chunks(n, chunk));
    maxima_of_ = logits_.data();
    for (int64_t c = 0; c < std::ssize(maxima_); ++c)
      maxima_[c] = largest(logits_.data() + c * chunk, std::min(chunk, n - c * chunk));
  }

  // The k first by `before` into kept_, in that order. Of at least k chunks, the k-th largest
  // maximum is no larger than the k-th largest logit. REQUIRES: 0 < k < n.
  void keep_largest(int64_t k) {
    const auto n = std::ssize(logits_);
    const int64_t chunk = std::clamp<int64_t>(n / (2 * k), 1, kChunk);
    find_maxima(chunk);
    order_ = maxima_;
    std::nth_element(order_.begin(), order_.begin() + (k - 1), order_.end(), std::greater<>());
    gather(order_[k - 1], chunk);
    std::nth_element(kept_.begin(), kept_.begin() + (k - 1), kept_.end(), before);
    kept_.resize(k);
    std::sort(kept_.begin(), kept_.end(), before);
  }

  // Of kept_ the first by `before` that weigh `enough` together, in that order. False, and all are
  // left: they do not.
  bool keep_weight(double enough) {
    std::make_heap(kept_.begin(), kept_.end(), after);
    double weighed = 0;
    auto end = kept_.end();
    while (end != kept_.begin() && weighed < enough) {
      std::pop_heap(kept_.begin(), end, after);
      weighed += weight((--end)->logit);
    }
    if (weighed >= enough) kept_.erase(kept_.begin(), end);
    std::reverse(kept_.begin(), kept_.end());
    return weighed >= enough;
  }

  std::span<const float> logits_;
  float max_ = 0, scale_ = 1;
  std::vector<float> sums_, maxima_, order_;
  const float* maxima_of_ = nullptr;
  std::vector<Candidate> kept_;
};

}  // namespace

Draw sample(std::span<const float> logits, float max, const Sampling& sampling, uint64_t index) {
  ERANK_CHECK(sampling.temperature > 0 && !logits.empty() && std::isfinite(max));
  thread_local Drawing drawing;
  return drawing.run(logits, max, sampling, index);
}

model::Drawing drawing(const Sampling& sampling, uint64_t index) {
  return {sampling.temperature, sampling.top_p, sampling.top_k, uniform(sampling, index)};
}

uint64_t sample_seed(uint64_t seed, int index) {
  return index == 0 ? seed : base::derived_seed(seed ^ 0x73616d706c65ull, index);
}

double probability(const model::RowResult& row, float logit) {
  return std::exp(double{logit} - row.max) / row.sum;
}

double log_probability(const model::RowResult& row, float logit) {
  return double{logit} - row.max - std::log(row.sum);
}

void check(const Sampling& sampling) {
  const auto refuse = [](const char* field, const auto& value, const char* expected) {
    base::fail(base::ErrorKind::kInvalidInput, "engine", field, " is ", value, ", expected ",
               expected);
  };
  if (!(sampling.temperature >= 0 && std::isfinite(sampling.temperature)))
    refuse("temperature", sampling.temperature, "0 (greedy) or more");
  if (!(sampling.top_p > 0 && sampling.top_p <= 1))
    refuse("top_p", sampling.top_p, "more than 0 and at most 1 (all)");
  if (sampling.top_k < 0) refuse("top_k", sampling.top_k, "0 (all) or more");
}

}  // namespace erank::engine
