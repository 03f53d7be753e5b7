#include "erank/eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"
#include "erank/base/random.h"

namespace erank::eval {
namespace {

// Sample standard deviation, with n - 1.
double deviation(std::span<const double> values) {
  const double middle = mean(values);
  double sum = 0;
  for (const double x : values) sum += (x - middle) * (x - middle);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

// The regularised incomplete beta function I_x(a, b), by the continued fraction of Abramowitz and
// Stegun 26.5.8, evaluated by Lentz's method. REQUIRES: x <= (a + 1) / (a + b + 2), where it
// converges fast.
double incomplete_beta_small(double a, double b, double x) {
  if (x <= 0) return 0;
  constexpr double kTiny = 1e-300;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x)) /
                       a;
  double fraction = 1, c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (std::abs(d) < kTiny ? kTiny : d);
  fraction = d;
  const auto step = [&](double numerator) {
    d = 1 + numerator * d;
    d = 1 / (std::abs(d) < kTiny ? kTiny : d);
    c = 1 + numerator / c;
    if (std::abs(c) < kTiny) c = kTiny;
    fraction *= c * d;
    return std::abs(c * d - 1);
  };
  for (int m = 1; m < 10'000; ++m) {
    step(m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)));
    if (step(-(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))) < 1e-16) break;
  }
  return front * fraction;
}

}  // namespace

double mean(std::span<const double> values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const size_t i = static_cast<size_t>(at);
  if (i + 1 >= sorted.size()) return sorted.back();
  return sorted[i] + (at - static_cast<double>(i)) * (sorted[i + 1] - sorted[i]);
}

Interval bootstrap_mean(std::span<const double> values, double confidence, uint64_t seed,
                        int64_t resamples) {
  ERANK_CHECK(!values.empty() && confidence > 0 && confidence < 1 && resamples > 0);
  base::Random random(seed);
  std::vector<double> means(static_cast<size_t>(resamples));
  for (double& drawn : means) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[random.below(values.size())];
    drawn = sum / static_cast<double>(values.size());
  }
  std::sort(means.begin(), means.end());
  return {quantile(means, (1 - confidence) / 2), quantile(means, (1 + confidence) / 2)};
}

double student_t_two_sided(double t, double degrees) {
  ERANK_CHECK(degrees > 0);
  const double a = degrees / 2, b = 0.5, x = degrees / (degrees + t * t);
  if (x <= (a + 1) / (a + b + 2)) return incomplete_beta_small(a, b, x);
  return 1 - incomplete_beta_small(b, a, t * t / (degrees + t * t));
}

double paired_t_test(std::span<const double> differences) {
  if (differences.size() < 2) return 1;
  const double middle = mean(differences), s = deviation(differences);
  // Equal differences leave a deviation of rounding errors alone.
  if (s <= 1e-15 * std::abs(middle)) return middle == 0 ? 1 : 0;
  const double n = static_cast<double>(differences.size());
  return student_t_two_sided(middle / (s / std::sqrt(n)), n - 1);
}

double paired_randomization_test(std::span<const double> differences, uint64_t seed,
                                 int64_t resamples) {
  constexpr size_t kExact = 16;
  const size_t n = differences.size();
  double observed = 0, size = 0;
  for (const double d : differences) observed += d, size += std::abs(d);
  // Sums of the same numbers in another order may differ in their last bits.
  const double least = std::abs(observed) - 1e-12 * size;
  int64_t as_large = 0;
  if (n <= kExact) {
    for (uint64_t signs = 0; signs < uint64_t{1} << n; ++signs) {
      double sum = 0;
      for (size_t i = 0; i < n; ++i) sum += signs >> i & 1 ? differences[i] : -differences[i];
      as_large += std::abs(sum) >= least;
    }
    return static_cast<double>(as_large) / static_cast<double>(uint64_t{1} << n);
  }
  base::Random random(seed);
  for (int64_t draw = 0; draw < resamples; ++draw) {
    double sum = 0;
    uint64_t signs = 0;
    for (size_t i = 0; i < n; ++i) {
      if (i % 64 == 0) signs = random.next();
      sum += signs & 1 ? differences[i] : -differences[i];
      signs >>= 1;
    }
    as_large += std::abs(sum) >= least;
  }
  return static_cast<double>(1 + as_large) / static_cast<double>(1 + resamples);
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> corrected(p_values.size());
  double largest = 0;
  for (size_t k = 0; k < order.size(); ++k) {
    largest = std::max(largest, static_cast<double>(order.size() - k) * p_values[order[k]]);
    corrected[order[k]] = std::min(1.0, largest);
  }
  return corrected;
}

int64_t queries_needed(std::span<const double> differences) {
  if (differences.size() < 2 || mean(differences) == 0) return 0;
  const double ratio =
      (1.959963984540054 + 0.8416212335729143) * deviation(differences) / mean(differences);
  return static_cast<int64_t>(std::ceil(std::min(ratio * ratio, 1e15)));
}

}  // namespace erank::eval
