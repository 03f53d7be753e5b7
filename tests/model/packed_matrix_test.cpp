#include "erank/model/cpu/packed_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "erank/base/random.h"

namespace erank::model::cpu {
namespace {

constexpr int64_t kInputs = 150, kOutputs = 40, kRows = 29;
const std::vector<int32_t> kOutliers = {3,  7,  8,  19, 20,  31,  40,  63,
                                        64, 65, 90, 99, 120, 127, 140, 149};

std::vector<float> random_values(int64_t n, uint64_t seed) {
  base::Random random(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(random.uniform() - 0.5);
  return values;
}

// int8 products of random rows in which the inputs of kOutliers are `outlier` times larger.
struct Product {
  Product(const Int8Layout& layout, float outlier)
      : matrix(kOutputs, kInputs, Precision::kInt8, layout),
        x(random_values(kRows * matrix.inputs(), 1)) {
    const std::vector<float> weights = random_values(kOutputs * kInputs, 2);
    for (int64_t n = 0; n < kOutputs; ++n)
      matrix.set(n, weights.data() + n * kInputs, kInputs, nullptr);
    for (int64_t r = 0; r < kRows; ++r) {
      float* row = x.data() + r * matrix.inputs();
      for (const int32_t k : kOutliers) row[k] *= outlier;
      std::fill(row + kInputs, row + matrix.inputs(), 0.0f);
    }
    exact.resize(kRows * kOutputs);
    std::vector<float> w(kInputs);
    for (int64_t n = 0; n < kOutputs; ++n) {
      matrix.get(n, w.data(), kInputs);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t k = 0; k < kInputs; ++k)
          exact[r * kOutputs + n] += double{x[r * matrix.inputs() + k]} * w[k];
    }
    bytes.resize(kRows * matrix.row_width());
    scales.resize(kRows * matrix.num_sections());
    matrix.quantize(x.data(), matrix.inputs(), kRows, bytes.data(), scales.data());
  }

  std::vector<float> multiply(int64_t first, int64_t rows) const {
    std::vector<float> y(rows * matrix.num_panels() * kPanel);
    for (int64_t p = 0; p < matrix.num_panels(); ++p)
      matrix.multiply({bytes.data() + first * matrix.row_width(), matrix.row_width(),
                       scales.data() + first * matrix.num_sections(), rows},
                      p, y.data() + p * kPanel, matrix.num_panels() * kPanel);
    return y;
  }
  // Of all products, as a share of their root mean square.
  double error() const {
    const std::vector<float> y = multiply(0, kRows);
    double squares = 0, all = 0;
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t n = 0; n < kOutputs; ++n) {
        const double value = exact[r * kOutputs + n];
        squares += std::pow(y[r * matrix.num_panels() * kPanel + n] - value, 2);
        all += value * value;
      }
    return std::sqrt(squares / all);
  }

  PackedMatrix matrix;
  std::vector<float> x;
  std::vector<double> exact;  // of the weights as they are held
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
};

TEST(PackedMatrixInt8, SectionsAndOutliersKeepSmallActivationsExact) {
  const double whole = Product({}, 1).error();
  EXPECT_LT(whole, 0.006);
  EXPECT_LT(Product({.section = 48}, 1).error(), whole);
  EXPECT_LT(Product({.outliers = kOutliers}, 1).error(), whole);
  // What is left of the small ones after rounding by the large ones' scale is lost; taken out, the
  // large ones are held to 1 / (127 * 254) of themselves.
  const double lost = Product({}, 300).error(),
               kept = Product({.outliers = kOutliers}, 300).error();
  EXPECT_GT(lost, 0.002);
  EXPECT_LT(kept, 1e-4);
}

TEST(PackedMatrixInt8, AProductDoesNotDependOnTheRowsBesideIt) {
  const Product product({.section = 32, .outliers = kOutliers}, 20);
  const std::vector<float> all = product.multiply(0, kRows);
  const int64_t width = product.matrix.num_panels() * kPanel;
  for (int64_t r = 0; r < kRows; ++r)
    EXPECT_EQ(product.multiply(r, 1),
              std::vector<float>(all.begin() + r * width, all.begin() + (r + 1) * width))
        << r;
}

TEST(PackedMatrixInt8, WeightsOfOutliersHaveAScaleOfTheirOwn) {
  PackedMatrix matrix(1, kInputs, Precision::kInt8, {.outliers = kOutliers});
  std::vector<float> weights(kInputs, 1.0f), held(kInputs);
  for (const int32_t k : kOutliers) weights[k] = 1e-4f * static_cast<float>(1 + k % 7);
  matrix.set(0, weights.data(), kInputs, nullptr);
  matrix.get(0, held.data(), kInputs);
  for (int64_t k = 0; k < kInputs; ++k) EXPECT_NEAR(held[k], weights[k], 0.03 * weights[k]) << k;
}

TEST(PackedMatrixInt8, AValueThatIsNoneSpoilsItsRowAlone) {
  Product product({.outliers = kOutliers}, 1);
  for (const int64_t place : {int64_t{0}, int64_t{kOutliers[2]}}) {
    std::vector<float> x = random_values(2 * product.matrix.inputs(), 5);
    x[product.matrix.inputs() + place] = std::nanf("");
    product.matrix.quantize(x.data(), product.matrix.inputs(), 2, product.bytes.data(),
                            product.scales.data());
    const std::vector<float> y = product.multiply(0, 2);
    EXPECT_TRUE(std::isfinite(y[0]));
    EXPECT_TRUE(std::isnan(y[product.matrix.num_panels() * kPanel]));
  }
}

}  // namespace
}  // namespace erank::model::cpu
