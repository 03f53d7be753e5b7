// Statistics over values per query: intervals, paired tests, corrections. Pure functions;
// thread-safe. What draws random numbers takes a seed, and gives the same result for the same seed
// on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace erank::eval {

double mean(std::span<const double> values);  // 0 of none

struct Interval {
  double low = 0, high = 0;
};

// How many resamples are drawn where no number is given.
inline constexpr int64_t kResamples = 10'000;

// The quantile `q`, 0 to 1, linear between order statistics. REQUIRES: ascending values, at least
// one.
double quantile(const std::vector<double>& sorted, double q);

// Percentile bootstrap interval of the mean (Efron 1979; for retrieval Sakai 2006): the quantiles
// (1 - confidence) / 2 and (1 + confidence) / 2 of the means of `resamples` samples drawn with
// replacement, interpolated linearly between order statistics. One value gives itself twice.
// REQUIRES: at least one value, 0 < confidence < 1.
Interval bootstrap_mean(std::span<const double> values, double confidence, uint64_t seed,
                        int64_t resamples = kResamples);

// Two-sided p-value of Student's paired t test on the differences: P(|T| >= |mean| / (s /
// sqrt(n))), T with n - 1 degrees of freedom. 1 for fewer than two differences or when all are 0; 0
// when all are equal and not 0.
double paired_t_test(std::span<const double> differences);

// P(|T| >= t) of Student's t distribution. REQUIRES: degrees > 0.
double student_t_two_sided(double t, double degrees);

// Two-sided p-value of the paired randomisation test (Fisher; Smucker, Allan, Carterette 2007): how
// often the absolute mean difference is at least as large when each sign is drawn anew. Exact, over
// all 2^n choices of signs, for up to 16 differences; else (1 + number as large) / (1 + resamples)
// over `resamples` draws.
double paired_randomization_test(std::span<const double> differences, uint64_t seed,
                                 int64_t resamples = 10 * kResamples);

// Holm's step-down correction (1979) of the p-values of one family, in their order: the k-th
// smallest of m times (m - k + 1), at most 1, never below a smaller one's.
std::vector<double> holm(std::span<const double> p_values);

// About how many differences like these a two-sided test at 0.05 needs to find their mean with a
// probability of 0.8, by the normal approximation: ((1.95996 + 0.84162) s / mean)^2, rounded up. 0
// when the mean is 0 or there are fewer than two.
int64_t queries_needed(std::span<const double> differences);

}  // namespace erank::eval
