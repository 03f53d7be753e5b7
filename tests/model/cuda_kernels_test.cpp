// The GPU kernels' own source, run by emulated threads, against libtorch's operations.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/model/cuda/cuda_network.h"
#include "erank/model/cuda/operations.h"
#include "erank/model/dequantize.h"
#include "tests/model/kernels_emulated.h"
#include "tests/model/random_gguf.h"

namespace erank::model::cuda {
namespace {

constexpr double kEps = 1e-6;
constexpr double kFar = 77;  // beside what a kernel may write

const Operations kReference(nullptr, kEps);
const at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

// Values of very different sizes, rounded to `type`.
at::Tensor values(at::IntArrayRef shape, at::ScalarType type, uint64_t seed) {
  base::Random random(seed);
  at::Tensor tensor = at::empty(shape, at::dtype(at::kFloat));
  float* out = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i)
    out[i] = static_cast<float>((random.uniform() - 0.5) * std::exp(6 * random.uniform() - 3));
  return tensor.to(type);
}

// A copy of x inside a larger tensor, `shift` elements off a multiple of 16 bytes.
struct Guarded {
  explicit Guarded(const at::Tensor& x, int64_t shift = 0)
      : all(at::full({x.numel() + 128}, kFar, x.options())),
        tensor(all.narrow(0, 64 + shift, x.numel()).view(x.sizes())) {
    tensor.copy_(x);
  }
  void expect_untouched_around() const {
    const int64_t first = tensor.storage_offset();
    EXPECT_TRUE(all.narrow(0, 0, first).eq(kFar).all().item<bool>());
    const int64_t end = first + tensor.numel();
    EXPECT_TRUE(all.narrow(0, end, all.numel() - end).eq(kFar).all().item<bool>());
  }
  at::Tensor all, tensor;
};

// Every value is what rounding to its type makes of a number that is at most `apart` times its size
// from `exact`, which is in fp32.
void expect_rounded(const at::Tensor& found, const at::Tensor& exact, double apart) {
  ASSERT_EQ(found.sizes(), exact.sizes());
  const at::Tensor room = exact.abs() * apart + 1e-37;
  const auto type = found.scalar_type();
  EXPECT_TRUE(found.ge((exact - room).to(type)).all().item<bool>());
  EXPECT_TRUE(found.le((exact + room).to(type)).all().item<bool>());
}

// Sums in another order and exp of another library may turn a rounding: of few values, by one step.
void expect_nearly_equal(const at::Tensor& found, const at::Tensor& expected,
                         const at::Tensor& size) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  ASSERT_EQ(found.scalar_type(), expected.scalar_type());
  const bool fp32 = found.scalar_type() == at::kFloat;
  const at::Tensor apart = (found.to(at::kDouble) - expected.to(at::kDouble)).abs();
  EXPECT_TRUE(apart.le(size.to(at::kDouble) * (fp32 ? 1e-6 : 1.0 / 128)).all().item<bool>())
      << (apart / size.to(at::kDouble)).max().item<double>();
  EXPECT_TRUE(fp32 || apart.gt(0).sum().item<int64_t>() <= 1 + apart.numel() / 200);
}

TEST(CudaKernels, AddAndNormAsLibtorchDoes) {
  for (const at::ScalarType type : kTypes)
    for (const int64_t width : {1, 7, 64, 100, 576, 2560, 8200})
      for (const int64_t rows : {1, 3})
        for (const bool adds : {false, true})
          for (const int64_t shift : {0, 1}) {
            SCOPED_TRACE(::testing::Message()
                         << at::toString(type) << " width " << width << " rows " << rows << " adds "
                         << adds << " shift " << shift);
            const at::Tensor x = values({rows, width}, type, 1), weight = values({width}, type, 2);
            at::Tensor added, expected_x = x.clone();
            if (adds) added = Guarded(values({rows, width}, type, 3), shift).tensor;
            kReference.add_norm(expected_x, added, weight);
            const at::Tensor exact = [&] {
              at::Tensor exact_x = expected_x.to(at::kFloat);
              return kReference.add_norm(exact_x, {}, weight.to(at::kFloat));
            }();
            at::Tensor first;
            for (const Kernels* kernels : {&emulated::kForwards, &emulated::kBackwards}) {
              Guarded own(x, shift);
              const at::Tensor out = Operations(kernels, kEps).add_norm(own.tensor, added, weight);
              EXPECT_TRUE(at::equal(own.tensor, expected_x));
              own.expect_untouched_around();
              expect_rounded(out, exact, 1e-6);
              if (!first.defined()) first = out;
              EXPECT_TRUE(at::equal(out, first));
            }
            // What the reference itself rounds is no different.
            at::Tensor again = x.clone();
            expect_rounded(kReference.add_norm(again, added, weight), exact, 1e-6);
          }
}

TEST(CudaKernels, MultiplySiluAsLibtorchDoes) {
  for (const at::ScalarType type : kTypes)
    for (const int64_t width : {1, 7, 80, 100, 1536, 9728})
      for (const int64_t rows : {1, 3})
        for (const int64_t shift : {0, 1}) {
          SCOPED_TRACE(::testing::Message() << at::toString(type) << " width " << width << " rows "
                                            << rows << " shift " << shift);
          Guarded gate_up(values({rows, 2 * width}, type, 4), shift);
          gate_up.tensor.select(1, 0).fill_(-200);  // exp(200) is infinite
          const at::Tensor expected = kReference.silu_product(gate_up.tensor);
          EXPECT_TRUE(expected.isfinite().all().item<bool>());
          for (const Kernels* kernels : {&emulated::kForwards, &emulated::kBackwards})
            expect_nearly_equal(Operations(kernels, kEps).silu_product(gate_up.tensor), expected,
                                expected.abs() + 1e-37);
        }
}

TEST(CudaKernels, RotateAndStoreAsLibtorchDoes) {
  struct Shape {
    int64_t n, kv, d;
  };
  constexpr int64_t kRows = 5, kPositions = 40, kSlots = 48;
  for (const at::ScalarType type : kTypes)
    for (const auto& [n, kv, d] :
         {Shape{9, 3, 64}, Shape{32, 8, 128}, Shape{4, 4, 80}, Shape{3, 1, 6}, Shape{2, 2, 100},
          Shape{1, 1, 2}, Shape{5, 1, 256}, Shape{2, 1, 600}})
      for (const bool norms : {false, true}) {
        SCOPED_TRACE(::testing::Message() << at::toString(type) << " heads " << n << " " << kv
                                          << " size " << d << " norms " << norms);
        const at::Tensor qkv = values({kRows, (n + 2 * kv) * d}, type, 5);
        Heads heads;
        if (norms) heads.q_norm = values({d}, type, 6), heads.k_norm = values({d}, type, 7);
        const at::Tensor turns = values({kPositions, d / 2}, at::kFloat, 8);
        heads.angles = at::cat({turns.cos(), turns.sin()}, 1);
        heads.positions = at::tensor({0, 39, 7, 7, 8}, at::kLong);
        heads.slots = at::tensor({0, 47, 5, 21, 6}, at::kLong);
        const auto cache = [&] { return at::full({kSlots, kv, d}, kFar, at::dtype(type)); };
        heads.keys = cache(), heads.values = cache();
        const at::Tensor q = kReference.rotate_and_store(qkv, heads);
        for (const Kernels* kernels : {&emulated::kForwards, &emulated::kBackwards}) {
          const Guarded keys(cache()), vs(cache());
          Heads own = heads;
          own.keys = keys.tensor, own.values = vs.tensor;
          const at::Tensor found = Operations(kernels, kEps).rotate_and_store(qkv, own);
          EXPECT_TRUE(at::equal(own.values, heads.values));
          if (norms) {
            // How large a pair is: a rotation may leave little of one of the two.
            const auto size = [&](const at::Tensor& x) {
              const auto halves = x.to(at::kDouble).view({-1, 2, d / 2});
              return (halves * halves).sum(1, true).sqrt().expand_as(halves).reshape(x.sizes());
            };
            expect_nearly_equal(found, q, size(q));
            expect_nearly_equal(own.keys, heads.keys, size(heads.keys));
          } else {
            EXPECT_TRUE(at::equal(found, q));
            EXPECT_TRUE(at::equal(own.keys, heads.keys));
          }
          keys.expect_untouched_around();
          vs.expect_untouched_around();
        }
      }
}

TEST(CudaKernels, UnpackBlocksToTheBitsOfTheHost) {
  using data::DType;
  for (const DType format : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                             DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const auto block_values = static_cast<int64_t>(data::dtype_block_values(format)),
               block_bytes = static_cast<int64_t>(data::dtype_block_bytes(format));
    for (const int64_t count : {1, 3, 70}) {
      SCOPED_TRACE(::testing::Message() << data::dtype_name(format) << " blocks " << count);
      std::string blocks = random_blocks(format, static_cast<size_t>(count), 9);
      // Scales and offsets that are negative, zero and subnormal.
      const auto scale_at = static_cast<size_t>(format == DType::kQ6_K ? 208 : 0);
      for (int64_t i = 1; i < count; i += 4)
        for (const size_t byte : {scale_at, scale_at + 1})
          blocks[static_cast<size_t>(i * block_bytes) + byte] = static_cast<char>(i % 3 == 0 ? 0x80
                                                                                  : i % 3 == 1 ? 0
                                                                                               : 3);
      const std::span bytes(reinterpret_cast<const uint8_t*>(blocks.data()), blocks.size());
      at::Tensor expected = at::empty({count, block_values}, at::dtype(at::kBFloat16));
      dequantize_bf16(format, bytes, static_cast<uint16_t*>(expected.data_ptr()),
                      static_cast<size_t>(expected.numel()));
      EXPECT_TRUE(expected.isfinite().all().item<bool>());
      at::Tensor stored = at::empty({count, block_bytes}, at::dtype(at::kByte));
      std::memcpy(stored.data_ptr(), blocks.data(), blocks.size());
      for (const int64_t shift : {0, 1}) {
        const Guarded rows(stored, shift);
        for (const Kernels* kernels :
             {static_cast<const Kernels*>(nullptr), &emulated::kForwards, &emulated::kBackwards}) {
          Guarded out(at::full_like(expected, kFar));
          Operations(kernels, kEps).unpack(format, rows.tensor, out.tensor);
          EXPECT_TRUE(at::equal(out.tensor, expected));
          out.expect_untouched_around();
        }
      }
    }
  }
}

TEST(CudaCache, LeavesRoomForPassesAndTheRest) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  EXPECT_EQ(cache_share(102 * kGiB, 2 * kGiB), 85 * kGiB);
  EXPECT_EQ(cache_share(2 * kGiB, 2 * kGiB), kGiB / 2) << "less than a pass is guessed to take";
  ModelConfig config;  // Qwen3 4B
  config.hidden_size = 2560, config.intermediate_size = 9728, config.num_hidden_layers = 1;
  config.num_attention_heads = 32, config.num_key_value_heads = 8, config.head_dim = 128;
  EXPECT_GT(pass_bytes(config, 8192, Precision::kBf16), 8192 * (2560 + 2 * 9728) * 2);
  EXPECT_LT(pass_bytes(config, 8192, Precision::kBf16), 2 * kGiB);
  // Pieces of unpacked weights count, not whole matrices.
  EXPECT_GT(pass_bytes(config, 1, Precision::kInt8), pass_bytes(config, 1, Precision::kBf16));
  EXPECT_GT(pass_bytes(config, 1, Precision::kGguf), pass_bytes(config, 1, Precision::kInt8));
  config.vocab_size = 1 << 20;
  EXPECT_LT(pass_bytes(config, 1, Precision::kGguf),
            pass_bytes(config, 1, Precision::kBf16) + kGiB / 2);
}

TEST(CudaKernels, TakeNoRows) {
  const Operations kernels(&emulated::kForwards, kEps);
  at::Tensor x = at::empty({0, 64});
  EXPECT_EQ(kernels.add_norm(x, {}, at::ones({64})).sizes(), (std::vector<int64_t>{0, 64}));
  EXPECT_EQ(kernels.silu_product(x).sizes(), (std::vector<int64_t>{0, 32}));
}

TEST(Gpus, AreThoseThatThisMachineHas) {
  const auto fault = [](int64_t number, int64_t count) -> std::string {
    try {
      check_gpu(number, count);
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(fault(0, 1), "");
  EXPECT_EQ(fault(3, 4), "");
  EXPECT_NE(fault(0, 0).find("no usable GPU"), std::string::npos);
  EXPECT_NE(fault(4, 4).find("--device cuda:4: there is no such GPU, expected 0 to 3"),
            std::string::npos);
  EXPECT_NE(fault(300, 2), "");
  EXPECT_NE(fault(-1, 2), "");
}

}  // namespace
}  // namespace erank::model::cuda
