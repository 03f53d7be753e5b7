#include "erank/model/weight_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "erank/base/random.h"

namespace erank::model {

namespace generic {
extern const WeightKernels kWeightKernels;
}

namespace {

std::vector<float> random_values(size_t n, uint64_t seed) {
  base::Random random(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(2 * random.uniform() - 1);
  return values;
}

TEST(WeightKernels, MergeAddsTheProductWhateverTheShape) {
  for (const int64_t rows : {1, 3, 4, 9})
    for (const int64_t columns : {1, 5, 16, 64, 83, 576})
      for (const int64_t rank : {1, 7, 16}) {
        const auto w = random_values(rows * columns, 1), a = random_values(rank * columns, 2),
                   b = random_values(rows * rank, 3);
        std::vector<float> out(rows * columns), in_place = w;
        weight_kernels().merge({w.data(), b.data(), a.data(), rows, rank, columns, out.data()});
        weight_kernels().merge(
            {in_place.data(), b.data(), a.data(), rows, rank, columns, in_place.data()});
        EXPECT_EQ(out, in_place);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < columns; ++c) {
            double want = w[r * columns + c];
            for (int64_t k = 0; k < rank; ++k)
              want += double{b[r * rank + k]} * double{a[k * columns + c]};
            ASSERT_NEAR(out[r * columns + c], want, 1e-5) << rows << ' ' << columns << ' ' << rank;
          }
      }
}

// How rows are divided among threads must not change a bit.
TEST(WeightKernels, MergeOfARowIsTheSameBitsAloneAndAmongOthers) {
  constexpr int64_t kRows = 11, kColumns = 83, kRank = 16;
  const auto w = random_values(kRows * kColumns, 1), a = random_values(kRank * kColumns, 2),
             b = random_values(kRows * kRank, 3);
  std::vector<float> all(kRows * kColumns), alone(kColumns);
  weight_kernels().merge({w.data(), b.data(), a.data(), kRows, kRank, kColumns, all.data()});
  for (int64_t r = 0; r < kRows; ++r) {
    weight_kernels().merge({w.data() + r * kColumns, b.data() + r * kRank, a.data(), 1, kRank,
                            kColumns, alone.data()});
    EXPECT_EQ(std::memcmp(alone.data(), all.data() + r * kColumns, kColumns * sizeof(float)), 0);
  }
}

TEST(WeightKernels, RoundingIsTheSameBitsWithEveryInstructionSet) {
  const auto values = random_values(592, 4);
  const auto n = static_cast<int64_t>(values.size());
  std::vector<int8_t> own(n), plain(n);
  for (const int64_t count : {n, n - 5, int64_t{16}, int64_t{3}}) {
    const float scale = weight_kernels().quantize(values.data(), count, own.data());
    EXPECT_EQ(scale, generic::kWeightKernels.quantize(values.data(), count, plain.data()));
    EXPECT_EQ(own, plain);
    for (int64_t i = 0; i < count; ++i)
      ASSERT_NEAR(static_cast<float>(own[i]) * scale, values[i], 0.501f * scale);
  }
  std::vector<int64_t> sums(74), plain_sums(74);
  weight_kernels().add_squares(values.data(), 8, 74, sums.data());
  generic::kWeightKernels.add_squares(values.data(), 8, 74, plain_sums.data());
  EXPECT_EQ(sums, plain_sums);
}

TEST(WeightKernels, PackedBytesAreTheQuantizedOnesFourByFour) {
  const auto values = random_values(64, 5);
  constexpr int64_t kStride = 12;
  std::vector<int8_t> quantized(64), packed(16 * kStride, 99);
  int32_t sum = 0;
  EXPECT_EQ(weight_kernels().pack_int8(values.data(), 64, packed.data(), kStride, &sum),
            weight_kernels().quantize(values.data(), 64, quantized.data()));
  int32_t expected = 0;
  for (int64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(packed[i / 4 * kStride + i % 4], quantized[i]);
    expected += quantized[i];
  }
  EXPECT_EQ(sum, expected);
  std::vector<int8_t> gaps;
  for (int64_t i = 0; i < 16 * kStride; ++i)
    if (i % kStride >= 4) gaps.push_back(packed[i]);
  EXPECT_EQ(gaps, std::vector<int8_t>(gaps.size(), 99)) << "only its own bytes are written";
}

// A scale that is no number makes every output none: a damaged model must not rank.
TEST(WeightKernels, WeightsThatAreNoNumbersHaveNoScale) {
  for (const size_t place : {0, 17, 63, 64}) {
    auto values = random_values(65, 5);
    values[place] = std::numeric_limits<float>::quiet_NaN();
    std::vector<int8_t> out(65);
    EXPECT_TRUE(std::isnan(weight_kernels().quantize(values.data(), 65, out.data()))) << place;
    int32_t sum = 0;
    const float scale = weight_kernels().pack_int8(values.data(), 64, out.data(), 4, &sum);
    EXPECT_EQ(std::isnan(scale), place < 64) << place;
  }
}

TEST(WeightKernels, Bf16IsTheNearestAndNanStaysNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {1.0f, 1.00390625f, 1.01171875f, -2.5f, nan, 3e38f};
  std::vector<uint16_t> out(values.size());
  weight_kernels().to_bf16(values.data(), out.data(), out.size());
  EXPECT_EQ(out, (std::vector<uint16_t>{0x3f80, 0x3f80, 0x3f82, 0xc020, 0x7fc0, 0x7f62}));
}

}  // namespace
}  // namespace erank::model
