#include "erank/synth/strengths.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"
#include "erank/base/random.h"

namespace erank::synth {
namespace {

constexpr int kMaxSteps = 200, kMaxHalvings = 60;

double sigmoid(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
// log(1 / (1 + exp(-x)))
double log_sigmoid(double x) {
  return x >= 0 ? -std::log1p(std::exp(-x)) : x - std::log1p(std::exp(x));
}

// What is maximised, and with `gradient` its derivatives, with `curvature` the negative second ones
// ([count, count], symmetric, positive definite).
double objective(std::span<const double> s, std::span<const Comparison> comparisons, double prior,
                 std::vector<double>* gradient, std::vector<double>* curvature) {
  const size_t n = s.size();
  if (gradient) gradient->assign(n, 0);
  if (curvature) curvature->assign(n * n, 0);
  double sum = 0;
  for (const Comparison& c : comparisons) {
    const double x = s[c.first] - s[c.second];
    sum += c.share * log_sigmoid(x) + (1 - c.share) * log_sigmoid(-x);
    if (!gradient) continue;
    const double p = sigmoid(x), slope = c.share - p, weight = p * sigmoid(-x);
    (*gradient)[c.first] += slope;
    (*gradient)[c.second] -= slope;
    (*curvature)[c.first * n + c.first] += weight;
    (*curvature)[c.second * n + c.second] += weight;
    (*curvature)[c.first * n + c.second] -= weight;
    (*curvature)[c.second * n + c.first] -= weight;
  }
  for (size_t i = 0; i < n; ++i) {
    sum += prior * (log_sigmoid(s[i]) + log_sigmoid(-s[i]));
    if (!gradient) continue;
    (*gradient)[i] += prior * (1 - 2 * sigmoid(s[i]));
    (*curvature)[i * n + i] += 2 * prior * sigmoid(s[i]) * sigmoid(-s[i]);
  }
  return sum;
}

// Solves a x = b by Cholesky's decomposition, in place of a and b.
void solve(std::vector<double>& a, std::vector<double>& b) {
  const size_t n = b.size();
  for (size_t j = 0; j < n; ++j) {
    for (size_t k = 0; k < j; ++k) a[j * n + j] -= a[j * n + k] * a[j * n + k];
    // Rounding alone can bring it to 0; the step is then too long, and halved.
    a[j * n + j] = std::sqrt(std::max(a[j * n + j], 1e-300));
    for (size_t i = j + 1; i < n; ++i) {
      for (size_t k = 0; k < j; ++k) a[i * n + j] -= a[i * n + k] * a[j * n + k];
      a[i * n + j] /= a[j * n + j];
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
}

}  // namespace

std::vector<Comparison> random_cycles(size_t count, int64_t num_cycles, uint64_t seed) {
  std::vector<Comparison> comparisons;
  if (count < 2) return comparisons;
  for (int64_t c = 0; c < num_cycles; ++c) {
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    base::Random random(base::derived_seed(seed, static_cast<uint64_t>(c)));
    base::shuffle(order, random);
    for (size_t i = 0; i < count; ++i) comparisons.push_back({order[i], order[(i + 1) % count], 0});
  }
  return comparisons;
}

std::vector<double> fit_strengths(size_t count, std::span<const Comparison> comparisons,
                                  double prior) {
  ERANK_CHECK(prior > 0);
  for (const Comparison& c : comparisons)
    ERANK_CHECK(c.first != c.second && std::max(c.first, c.second) < count && c.share >= 0 &&
                c.share <= 1);
  std::vector<double> s(count, 0.0), gradient, curvature, next(count);
  const double tolerance = 1e-10 * std::max<double>(1, static_cast<double>(comparisons.size()));
  for (int step = 0; step < kMaxSteps; ++step) {
    const double value = objective(s, comparisons, prior, &gradient, &curvature);
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    if (largest <= tolerance) return s;
    solve(curvature, gradient);  // the gradient becomes Newton's step
    // Halved until it does not go down, but for rounding.
    double part = 1;
    for (int i = 0; i < kMaxHalvings; ++i, part /= 2) {
      for (size_t k = 0; k < count; ++k) next[k] = s[k] + part * gradient[k];
      if (objective(next, comparisons, prior, nullptr, nullptr) >= value - 1e-13 * std::abs(value))
        break;
    }
    s = next;
  }
  return s;
}

std::vector<double> scores_of_strengths(std::span<const double> strengths) {
  if (strengths.empty()) return {};
  const auto [low, high] = std::minmax_element(strengths.begin(), strengths.end());
  const double range = *high - *low;
  std::vector<double> scores;
  for (const double s : strengths) scores.push_back(range < 1e-9 ? 5 : 10 * (s - *low) / range);
  return scores;
}

}  // namespace erank::synth
