#include "erank/model/cpu/stored_rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "erank/base/random.h"
#include "erank/model/cpu/packed_matrix.h"
#include "erank/model/dequantize.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_kernels.h"
#include "tests/model/random_gguf.h"

namespace erank::model {

namespace generic {
extern const WeightKernels kWeightKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const WeightKernels kWeightKernels;
}
#endif

namespace cpu {
namespace {

using data::DType;

constexpr DType kBlocks[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                             DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// The same weights kept in blocks and unpacked before.
struct Pair {
  Pair(Precision precision, int64_t inputs, const std::vector<DType>& formats) {
    MatrixPlan plan;
    plan.outputs = std::ssize(formats) * StoredRows::kStrip;
    plan.inputs = inputs;
    plan.precision = precision;
    plain = PackedMatrix(plan);
    plan.stored = formats;
    stored = PackedMatrix(plan);
    std::vector<float> values(inputs);
    std::vector<uint16_t> halves(inputs);
    for (int64_t n = 0; n < plan.outputs; ++n) {
      const DType format = formats[n / StoredRows::kStrip];
      const std::string row =
          random_blocks(format, inputs / data::dtype_block_values(format), 100 + n);
      const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(row.data()),
                                           row.size());
      stored.set(n, row.data(), inputs, nullptr);
      dequantize(format, bytes, values.data(), inputs);
      dequantize_bf16(format, bytes, halves.data(), inputs);
      plain.set(
          n,
          precision == Precision::kFp32 ? static_cast<const void*>(values.data()) : halves.data(),
          inputs, nullptr);
    }
  }
  PackedMatrix stored, plain;
};

std::vector<float> product(const PackedMatrix& matrix, int64_t rows) {
  base::Random random(7);
  std::vector<float> x(rows * matrix.inputs());
  for (float& value : x) value = static_cast<float>(random.uniform() - 0.5);
  std::vector<uint16_t> halves(x.size());
  weight_kernels().to_bf16(x.data(), halves.data(), x.size());
  const bool fp32 = matrix.precision() == Precision::kFp32;
  const int64_t width = matrix.num_panels() * kPanel;
  std::vector<float> y(rows * width);
  for (int64_t p = 0; p < matrix.num_panels(); ++p)
    matrix.multiply(
        {fp32 ? static_cast<const void*>(x.data()) : halves.data(), matrix.inputs(), nullptr, rows},
        p, y.data() + p * kPanel, width);
  return y;
}

void expect_same(const Pair& pair, const char* what) {
  ASSERT_TRUE(pair.stored.is_stored());
  std::vector<float> a(pair.plain.inputs()), b(a);
  for (const int64_t n : {0, 1, 15, 16, 31}) {
    pair.stored.get(n, a.data(), std::ssize(a));
    pair.plain.get(n, b.data(), std::ssize(b));
    EXPECT_EQ(a, b) << what << ", output " << n;
  }
  for (const int64_t rows : {1, 5, 37}) {
    const std::vector<float> expected = product(pair.plain, rows);
    EXPECT_EQ(product(pair.stored, rows), expected) << what << ", " << rows << " rows";
    EXPECT_GT(std::abs(expected[3]), 1e-4f);
  }
}

TEST(StoredRows, MultiplyAsTheirUnpackedValuesBitForBit) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16})
    for (const DType format : kBlocks) {
      // Rows of whole parts and, of the formats that allow it, of a part less.
      std::vector<int64_t> widths = {768};
      if (data::dtype_block_values(format) == 32) widths.push_back(608);
      for (const int64_t inputs : widths)
        expect_same(Pair(precision, inputs, std::vector<DType>(4, format)),
                    data::dtype_name(format));
    }
}

TEST(StoredRows, EachStripHasAFormatOfItsOwn) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const DType plain = precision == Precision::kFp32 ? DType::kF32 : DType::kBF16;
    const Pair pair(precision, 512, {DType::kQ4_K, DType::kQ6_K, plain, DType::kQ4_0});
    expect_same(pair, "mixed");
    const int64_t expected = 16 * 512 / 256 * (144 + 210) +
                             16 * 512 * (precision == Precision::kFp32 ? 4 : 2) +
                             16 * 512 / 32 * 18;
    EXPECT_EQ(pair.stored.bytes(), expected);
  }
}

TEST(StoredRows, ColumnsOfEveryInstructionSet) {
  base::Random random(3);
  constexpr int64_t kUnits = 48, kStride = 6 * 16;
  std::vector<uint32_t> rows(16 * kUnits);
  for (uint32_t& unit : rows) unit = static_cast<uint32_t>(random.next());
  std::vector<const WeightKernels*> all = {&weight_kernels(), &generic::kWeightKernels};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) all.push_back(&avx2::kWeightKernels);
#endif
  for (const WeightKernels* kernels : all) {
    std::vector<uint32_t> out(kUnits * kStride / 4, 5);
    kernels->transpose16(rows.data(), kUnits, out.data(), kStride);
    for (int64_t k = 0; k < kUnits; ++k)
      for (int64_t r = 0; r < kStride / 4; ++r)
        ASSERT_EQ(out[k * kStride / 4 + r], r < 16 ? rows[r * kUnits + k] : 5u) << k << ' ' << r;
  }
}

}  // namespace
}  // namespace cpu
}  // namespace erank::model
