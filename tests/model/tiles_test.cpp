// The products by tile registers, emulated on every processor, and by the processor's own where it
// has them.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <string_view>
#include <vector>

#include "erank/base/random.h"
#include "erank/model/cpu/kernels.h"
#include "tests/model/tiles_emulated.h"

namespace erank::model::cpu {
namespace {

using Matmul = void (*)(const MatmulArgs&);

const std::vector<int64_t> kRows = {1, 2, 15, 16, 17, 31, 33, 64, 100};

float bf16_value(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
uint16_t bf16_bits(float value) {  // rounds towards zero
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

// Rows of random x times one panel. Vectors have no byte to spare, so that reading outside of them
// is seen by the address sanitizer; between rows of x is what must not count.
template <typename X, typename W>
struct Product {
  static constexpr int kGroup = 4 / sizeof(X);

  Product(int64_t rows, int64_t inputs, int64_t gap)
      : rows(rows),
        inputs(inputs),
        ldx(inputs + gap),
        x((rows - 1) * ldx + inputs),
        panel(inputs * kPanel) {}
  X& x_at(int64_t r, int64_t k) { return x[r * ldx + k]; }
  W& w_at(int64_t k, int64_t n) {
    return panel[k / kGroup * kGroup * kPanel + n * kGroup + k % kGroup];
  }
  // Rows [first, first + n) of y.
  std::vector<float> multiply(Matmul matmul, int64_t first, int64_t n) const {
    const int64_t ldy = kPanel + 3;
    std::vector<float> y((n - 1) * ldy + kPanel, 7.0f), out;
    const std::vector<X> own(x.begin() + first * ldx, x.begin() + (first + n - 1) * ldx + inputs);
    MatmulArgs args{};
    args.x = own.data();
    args.ldx = ldx;
    args.panel = panel.data();
    args.groups = inputs / kGroup;
    args.rows = n;
    args.y = y.data();
    args.ldy = ldy;
    args.section_groups = section_groups.data();
    args.num_sections = std::ssize(section_groups);
    args.x_scale = x_scale.data() + first * std::ssize(section_groups);
    args.w_scale = w_scale.data();
    args.w_offset = w_offset.data();
    matmul(args);
    for (int64_t i = 0; i < std::ssize(y); ++i)
      if (i % ldy < kPanel)
        out.push_back(y[i]);
      else
        EXPECT_EQ(y[i], 7.0f) << "written beside the panel";
    return out;
  }

  int64_t rows, inputs, ldx;
  std::vector<X> x;
  std::vector<W> panel;
  std::vector<int32_t> section_groups;
  std::vector<float> x_scale, w_scale;
  std::vector<int32_t> w_offset;
};

using Bf16Product = Product<uint16_t, uint16_t>;
using Int8Product = Product<uint8_t, int8_t>;

Bf16Product random_bf16(int64_t rows, int64_t inputs, int64_t gap) {
  base::Random random(inputs);
  Bf16Product p(rows, inputs, gap);
  for (uint16_t& x : p.x) x = bf16_bits(static_cast<float>(random.uniform() - 0.5));
  for (uint16_t& w : p.panel) w = bf16_bits(static_cast<float>(random.uniform() - 0.5));
  for (int64_t r = 0; r + 1 < rows; ++r)
    for (int64_t k = inputs; k < p.ldx; ++k) p.x_at(r, k) = bf16_bits(NAN);
  return p;
}

Int8Product random_int8(int64_t rows, const std::vector<int32_t>& section_groups) {
  base::Random random(section_groups.size());
  const int64_t groups = std::accumulate(section_groups.begin(), section_groups.end(), int64_t{0});
  Int8Product p(rows, 4 * groups, 5);
  for (uint8_t& x : p.x) x = static_cast<uint8_t>(1 + random.below(255));
  for (int8_t& w : p.panel) w = static_cast<int8_t>(static_cast<int>(random.below(255)) - 127);
  p.section_groups = section_groups;
  for (int64_t i = 0; i < rows * std::ssize(section_groups); ++i)
    p.x_scale.push_back(static_cast<float>(random.uniform()));
  for (int64_t s = 0, k = 0; s < std::ssize(section_groups); k += 4 * section_groups[s++])
    for (int64_t n = 0; n < kPanel; ++n) {
      p.w_scale.push_back(static_cast<float>(random.uniform()));
      int32_t sum = 0;
      for (int64_t i = k; i < k + 4 * section_groups[s]; ++i) sum += p.w_at(i, n);
      p.w_offset.push_back(-128 * sum);
    }
  return p;
}

const std::vector<std::vector<int32_t>> kSections = {
    {4},
    {8, 4},  // smaller than a tile
    {16},
    {72, 72, 16, 16},          // 576 inputs of the residual stream and 64 outliers
    {80, 80, 80, 4, 4},        // the last sections end with the panel
    {16, 16, 16, 16, 16, 16},  // a gate's
    {4, 20, 12},               // before the first whole tile, after it
};
const std::vector<int64_t> kInputs = {2, 10, 32, 34, 64, 94, 96, 576, 1536};

// What any matmul of bf16 by tiles must give.
void expect_bf16_products(Matmul matmul) {
  for (const int64_t inputs : kInputs) {
    Bf16Product p = random_bf16(kRows.back(), inputs, 6);
    const std::vector<float> all = p.multiply(matmul, 0, p.rows);
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t n = 0; n < kPanel; ++n) {
        double exact = 0, sizes = 0;
        for (int64_t k = 0; k < inputs; ++k) {
          const double term = double{bf16_value(p.x_at(r, k))} * bf16_value(p.w_at(k, n));
          exact += term;
          sizes += std::abs(term);
        }
        // 16 sums of a tile, that of even and odd, one for each tile.
        const double roundings = 17 + static_cast<double>(inputs + 31) / 32;
        EXPECT_NEAR(all[r * kPanel + n], exact, roundings * 0x1p-24 * sizes)
            << inputs << " inputs, row " << r << ", output " << n;
      }
    for (const int64_t rows : kRows)
      for (const int64_t first : {int64_t{0}, p.rows - rows})
        EXPECT_EQ(
            p.multiply(matmul, first, rows),
            std::vector<float>(all.begin() + first * kPanel, all.begin() + (first + rows) * kPanel))
            << inputs << " inputs, " << rows << " rows from " << first;
  }
}

// Numbers for which the order of additions, or denormals taken as they are, would show.
void expect_order_of_bf16(Matmul matmul) {
  Bf16Product p(1, 64, 0);
  for (uint16_t& x : p.x) x = bf16_bits(1.0f);
  const auto set = [&](int64_t k, float w) {
    for (int64_t n = 0; n < kPanel; ++n) p.w_at(k, n) = bf16_bits(w);
  };
  set(0, 0x1p24f);
  set(1, -0x1p24f);
  set(2, 1);
  set(3, 1);
  EXPECT_EQ(p.multiply(matmul, 0, 1)[5], 1.0f);  // (2^24 + 1) + (-2^24 + 1), the first rounded
  set(2, 0);
  set(3, 0);
  set(32, 0x1p-130f);  // a denormal number
  EXPECT_EQ(p.multiply(matmul, 0, 1)[5], 0.0f);
  p.x_at(0, 32) = bf16_bits(0x1p-70f);
  set(32, 0x1p-70f);
  EXPECT_EQ(p.multiply(matmul, 0, 1)[5], 0.0f);
  p.x_at(0, 0) = 0;
  p.x_at(0, 1) = bf16_bits(0x1p-24f);  // the first tile's sum is -1
  p.x_at(0, 32) = bf16_bits(1.0f);
  set(32, 1);
  set(33, 0x1p-24f);
  EXPECT_EQ(p.multiply(matmul, 0, 1)[5], 0.0f);  // -1 + (1 + 2^-24), the second rounded
}

void expect_int8_products(Matmul matmul) {
  for (const std::vector<int32_t>& sections : kSections) {
    Int8Product p = random_int8(kRows.back(), sections);
    const int64_t num_sections = std::ssize(sections);
    const std::vector<float> all = p.multiply(matmul, 0, p.rows);
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t n = 0; n < kPanel; ++n) {
        float expected = 0;
        for (int64_t s = 0, k = 0; s < num_sections; ++s) {
          int32_t sum = 0;
          for (const int64_t end = k + 4 * sections[s]; k < end; ++k)
            sum += (p.x_at(r, k) - 128) * p.w_at(k, n);
          const float scale = p.w_scale[s * kPanel + n] * p.x_scale[r * num_sections + s];
          const auto part = static_cast<float>(sum);
          expected = s == 0 ? part * scale : std::fma(part, scale, expected);
        }
        EXPECT_EQ(all[r * kPanel + n], expected)
            << num_sections << " sections, row " << r << ", output " << n;
      }
    for (const int64_t rows : kRows)
      for (const int64_t first : {int64_t{0}, p.rows - rows})
        EXPECT_EQ(
            p.multiply(matmul, first, rows),
            std::vector<float>(all.begin() + first * kPanel, all.begin() + (first + rows) * kPanel))
            << num_sections << " sections, " << rows << " rows from " << first;
  }
}

// Two heads that share keys and values of 300 positions in pages out of order; what no query may
// see is NaN.
struct AttentionCase {
  static constexpr int64_t kGroup = 2, kPage = 16, kPages = 19, kTokens = 300;
  using Attention = void (*)(const AttentionArgs&);

  explicit AttentionCase(int64_t dim)
      : dim(dim),
        q(random(kTokens * kGroup * dim)),
        keys(kPages * kPage * dim, bf16_bits(NAN)),
        values(kPages * kPage * dim, bf16_bits(NAN)) {
    for (int64_t p = 0; p < kPages; ++p) pages.push_back(static_cast<int32_t>(p * 7 % kPages));
    const std::vector<uint16_t> k = random(kTokens * dim), v = random(kTokens * dim);
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t i = 0; i < dim; ++i) {
        keys[key_at(t, i)] = k[t * dim + i];
        values[value_at(t, i)] = v[t * dim + i];
      }
  }
  static std::vector<uint16_t> random(int64_t n) {
    base::Random random(n);
    std::vector<uint16_t> values(n);
    for (uint16_t& x : values) x = bf16_bits(static_cast<float>(random.uniform() - 0.5));
    return values;
  }
  int64_t key_at(int64_t t, int64_t i) const {
    return (pages[t / kPage] * dim + i / 2 * 2) * kPage + t % kPage * 2 + i % 2;
  }
  int64_t value_at(int64_t t, int64_t i) const {
    return (pages[t / kPage] * kPage + t % kPage / 2 * 2) * dim + i * 2 + t % 2;
  }
  // Queries [first, first + n) of the 300, cut into members.
  std::vector<uint16_t> run(Attention attention, const std::vector<int32_t>& members,
                            int32_t first) const {
    std::vector<AttentionMember> list;
    int32_t n = 0;
    for (const int32_t tokens : members) {
      list.push_back({first + n, n, tokens, first + n, pages.data()});
      n += tokens;
    }
    std::vector<float> work(attention_work(dim));
    std::vector<uint16_t> out(n * kGroup * dim);
    AttentionArgs args{};
    args.members = list.data();
    args.num_members = std::ssize(list);
    args.q = q.data();
    args.out = out.data();
    args.stride = kGroup * dim;
    args.keys = keys.data();
    args.values = values.data();
    args.page_stride = kPage * dim;
    args.group = kGroup;
    args.padded_dim = dim;
    args.scale = 3;
    args.work = work.data();
    attention(args);
    return out;
  }

  int64_t dim;
  std::vector<uint16_t> q, keys, values;
  std::vector<int32_t> pages;
};

void expect_attention(AttentionCase::Attention attention) {
  for (const int64_t dim : {int64_t{32}, int64_t{96}, int64_t{256}}) {
    const AttentionCase c(dim);
    const int64_t width = c.kGroup * dim;
    for (const auto& [members, first] :
         {std::pair(std::vector<int32_t>{48}, 252), std::pair(std::vector<int32_t>{3, 1, 20}, 50),
          std::pair(std::vector<int32_t>{1}, 0), std::pair(std::vector<int32_t>{5, 36, 7}, 0)}) {
      const std::vector<uint16_t> out = c.run(attention, members, first);
      for (int32_t t = 0; t * width < std::ssize(out); ++t) {
        EXPECT_EQ(c.run(attention, {1}, first + t),
                  std::vector<uint16_t>(out.begin() + t * width, out.begin() + (t + 1) * width))
            << dim << ", query " << first + t << " alone";
        for (int64_t g = 0; g < c.kGroup; ++g) {
          std::vector<double> weights;
          double total = 0;
          for (int64_t p = 0; p <= first + t; ++p) {
            double score = 0;
            for (int64_t i = 0; i < dim; ++i)
              score += double{bf16_value(c.q[((first + t) * c.kGroup + g) * dim + i])} *
                       bf16_value(c.keys[c.key_at(p, i)]);
            weights.push_back(std::exp(3 * score));
            total += weights.back();
          }
          for (int64_t i = 0; i < dim; ++i) {
            double exact = 0;
            for (int64_t p = 0; p <= first + t; ++p)
              exact += weights[p] / total * bf16_value(c.values[c.value_at(p, i)]);
            // Weights and the result are rounded to 8 bits; values are at most 1/2.
            EXPECT_NEAR(bf16_value(out[t * width + g * dim + i]), exact, 0x1p-9)
                << dim << ", query " << first + t << ", head " << g << ", place " << i;
          }
        }
      }
    }
  }
}

class EmulatedTiles : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("avx2"))
      GTEST_SKIP() << "the emulation is compiled for AVX2 and FMA, which this processor lacks";
#endif
  }
};

TEST_F(EmulatedTiles, Bf16IsWithinRoundingAndNoRowDependsOnOthers) {
  expect_bf16_products(emulated::kKernels.bf16.matmul);
}
TEST_F(EmulatedTiles, Bf16AddsInTheOrderOfTheInstruction) {
  expect_order_of_bf16(emulated::kKernels.bf16.matmul);
}
TEST_F(EmulatedTiles, Int8IsExactInSectionsAndNoRowDependsOnOthers) {
  expect_int8_products(emulated::kKernels.matmul_int8);
}
TEST_F(EmulatedTiles, AttentionIsWithinRoundingAndNoQueryDependsOnOthers) {
  expect_attention(emulated::kKernels.bf16.attention);
}
TEST_F(EmulatedTiles, Int8HasTheBitsOfTheOtherLevels) {
  if (std::string_view(kernels_level()) == "generic")
    GTEST_SKIP() << "level generic rounds twice where the others have a fused multiply-add";
  for (const std::vector<int32_t>& sections : kSections) {
    const Int8Product p = random_int8(kRows.back(), sections);
    EXPECT_EQ(p.multiply(emulated::kKernels.matmul_int8, 0, p.rows),
              p.multiply(kernels().matmul_int8, 0, p.rows));
  }
}

class ProcessorsTiles : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string_view(kernels_level()) != "amx")
      GTEST_SKIP() << "the kernels are of level " << kernels_level()
                   << ": no AMX here, or ERANK_CPU_LEVEL chooses another";
  }
  void TearDown() override { kernels().release(); }
};

TEST_F(ProcessorsTiles, Bf16IsWithinRoundingAndNoRowDependsOnOthers) {
  expect_bf16_products(kernels().bf16.matmul);
}
TEST_F(ProcessorsTiles, Bf16AddsInTheOrderOfTheInstruction) {
  expect_order_of_bf16(kernels().bf16.matmul);
}
TEST_F(ProcessorsTiles, Int8IsExactInSectionsAndNoRowDependsOnOthers) {
  expect_int8_products(kernels().matmul_int8);
}
TEST_F(ProcessorsTiles, AttentionIsWithinRoundingAndNoQueryDependsOnOthers) {
  expect_attention(kernels().bf16.attention);
}
TEST_F(ProcessorsTiles, Bf16HasTheBitsOfTheEmulation) {
  for (const int64_t inputs : kInputs) {
    const Bf16Product p = random_bf16(kRows.back(), inputs, 0);
    EXPECT_EQ(p.multiply(kernels().bf16.matmul, 0, p.rows),
              p.multiply(emulated::kKernels.bf16.matmul, 0, p.rows));
  }
}

}  // namespace
}  // namespace erank::model::cpu
