#include "erank/rank/fusion.h"

#include <cmath>

#include "erank/base/error.h"

namespace erank::rank {

std::vector<double> z_scores(std::span<const double> values) {
  const double n = static_cast<double>(values.size());
  double mean = 0, variance = 0;
  for (double x : values) mean += x / n;
  for (double x : values) variance += (x - mean) * (x - mean) / n;
  const double deviation = std::sqrt(variance);
  std::vector<double> z(values.size(), 0.0);
  // A list that is constant up to rounding carries no order.
  if (deviation > 1e-12 * (1 + std::abs(mean)))
    for (size_t i = 0; i < z.size(); ++i) z[i] = (values[i] - mean) / deviation;
  return z;
}

std::vector<double> blend_z_scores(std::span<const double> first_stage,
                                   std::span<const double> model, double w) {
  ERANK_CHECK(first_stage.size() == model.size() && w >= 0 && w <= 1);
  const std::vector<double> a = z_scores(first_stage), b = z_scores(model);
  std::vector<double> out(a.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = w * a[i] + (1 - w) * b[i];
  return out;
}

}  // namespace erank::rank
