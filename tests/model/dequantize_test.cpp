#include "erank/model/dequantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/data/gguf.h"
#include "erank/data/safetensors.h"
#include "tests/shared_data.h"

namespace erank::model {
namespace {

using data::DType;

constexpr DType kWeights[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                              DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                              DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<uint8_t> from_hex(const std::string& hex) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i < hex.size(); i += 2)
    out.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

std::vector<float> dequantized(DType dtype, std::span<const uint8_t> blocks) {
  const size_t num_values =
      blocks.size() / data::dtype_block_bytes(dtype) * data::dtype_block_values(dtype);
  std::vector<float> out(num_values, std::numeric_limits<float>::quiet_NaN());
  dequantize(dtype, blocks, out.data(), num_values);
  return out;
}

// The index of the first value that is not bit for bit the expected one, or -1.
int64_t first_difference(std::span<const float> got, std::span<const float> expected) {
  if (got.size() != expected.size()) return 0;
  for (size_t i = 0; i < got.size(); ++i)
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(expected[i]))
      return static_cast<int64_t>(i);
  return -1;
}

std::vector<uint8_t> random_bytes(size_t size, uint64_t seed) {
  base::Random random(seed);
  std::vector<uint8_t> out(size);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random.next());
  return out;
}

TEST(Dequantize, EqualsTheReferenceBitForBit) {
  const std::string path = std::string(ERANK_SOURCE_DIR) + "/tests/golden/dequantize.json";
  const base::Json golden = base::parse_json(base::read_file(path), path);
  for (const DType dtype : kWeights) {
    const std::string name = data::dtype_name(dtype);
    ASSERT_TRUE(golden.contains(name));
    const auto blocks = from_hex(golden[name]["blocks"]), bytes = from_hex(golden[name]["values"]);
    std::vector<float> expected(bytes.size() / sizeof(float));
    std::memcpy(expected.data(), bytes.data(), bytes.size());
    const auto got = dequantized(dtype, blocks);
    ASSERT_EQ(got.size(), expected.size()) << name;
    EXPECT_EQ(first_difference(got, expected), -1) << name;
  }
}

TEST(Dequantize, ReadsBlocksAtAnyAddress) {
  for (const DType dtype : kWeights) {
    const auto blocks = random_bytes(4 * data::dtype_block_bytes(dtype), 1);
    std::vector<uint8_t> shifted(blocks.size() + 1);
    std::copy(blocks.begin(), blocks.end(), shifted.begin() + 1);
    EXPECT_EQ(first_difference(dequantized(dtype, std::span(shifted).subspan(1)),
                               dequantized(dtype, blocks)),
              -1)
        << data::dtype_name(dtype);
  }
}

TEST(Dequantize, ConvertsEveryHalf) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  const auto got = dequantized(
      DType::kF16, {reinterpret_cast<const uint8_t*>(halves.data()), 2 * halves.size()});
  for (size_t i = 0; i < halves.size(); ++i) {
    const int exponent = i >> 10 & 31, mantissa = i & 1023;
    const float sign = i & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(got[i])) << i;
      continue;
    }
    const float magnitude = exponent == 31  ? std::numeric_limits<float>::infinity()
                            : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                            : std::ldexp(1024.0f + mantissa, exponent - 25);
    EXPECT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(sign * magnitude)) << i;
  }
}

// The bfloat16 nearest to `value`, found by comparing with both neighbours.
uint16_t nearest_bf16(float value) {
  const uint16_t below = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  if (std::isinf(value)) return below;
  const auto widened = [](uint16_t bits) {
    const bool infinite = (bits & 0x7fff) == 0x7f80;  // counts as 2^128 when rounding
    const double magnitude =
        infinite ? std::ldexp(1.0, 128) : std::abs(std::bit_cast<float>(uint32_t{bits} << 16));
    return bits & 0x8000 ? -magnitude : magnitude;
  };
  const uint16_t above = static_cast<uint16_t>(below + 1);
  const double down = std::abs(value - widened(below)), up = std::abs(widened(above) - value);
  if (down != up) return down < up ? below : above;
  return below % 2 == 0 ? below : above;
}

TEST(Dequantize, RoundsToTheNearestBfloat16AndTiesToEven) {
  std::vector<uint32_t> bits = {0x00000000, 0x80000000, 0x3f800000, 0x3f808000, 0x3f818000,
                                0x3f808001, 0x3f807fff, 0x7f7fffff, 0xff7fffff, 0x7f800000,
                                0xff800000, 0x00000001, 0x00008000, 0x00018000, 0x7f7f8000};
  base::Random random(7);
  for (int i = 0; i < 100'000; ++i) bits.push_back(static_cast<uint32_t>(random.next()));
  std::vector<uint16_t> got(bits.size());
  dequantize_bf16(DType::kF32, {reinterpret_cast<const uint8_t*>(bits.data()), 4 * bits.size()},
                  got.data(), got.size());
  for (size_t i = 0; i < bits.size(); ++i) {
    const float value = std::bit_cast<float>(bits[i]);
    EXPECT_EQ(got[i], std::isnan(value) ? 0x7fc0 : nearest_bf16(value)) << std::hex << bits[i];
  }
}

TEST(Dequantize, GivesTheSameBfloat16ValuesInOnePassAsInTwo) {
  for (const DType dtype : kWeights) {
    const size_t num_values = 5 * 1024 + 3 * data::dtype_block_values(dtype);
    const auto blocks = random_bytes(
        num_values / data::dtype_block_values(dtype) * data::dtype_block_bytes(dtype), 3);
    std::vector<uint16_t> direct(num_values), twice(num_values);
    dequantize_bf16(dtype, blocks, direct.data(), num_values);
    if (dtype == DType::kBF16) {
      EXPECT_EQ(std::memcmp(direct.data(), blocks.data(), blocks.size()), 0);
      continue;
    }
    const auto values = dequantized(dtype, blocks);
    dequantize_bf16(DType::kF32, {reinterpret_cast<const uint8_t*>(values.data()), 4 * num_values},
                    twice.data(), num_values);
    EXPECT_EQ(direct, twice) << data::dtype_name(dtype);
  }
}

TEST(Dequantize, RefusesSizesThatDoNotAgreeAndTypesWithoutWeights) {
  std::vector<uint8_t> blocks(144);
  std::vector<float> out(256);
  std::vector<uint16_t> bf16(256);
  EXPECT_NO_THROW(dequantize(DType::kQ4_K, blocks, out.data(), 256));
  EXPECT_THROW(dequantize(DType::kQ4_K, blocks, out.data(), 255), base::InternalError);
  EXPECT_THROW(dequantize(DType::kQ4_K, std::span(blocks).first(143), out.data(), 256),
               base::InternalError);
  EXPECT_THROW(dequantize_bf16(DType::kQ4_K, blocks, bf16.data(), 128), base::InternalError);
  EXPECT_THROW(dequantize(DType::kI64, std::span(blocks).first(8), out.data(), 1),
               base::InternalError);
  EXPECT_NO_THROW(dequantize(DType::kQ4_K, {}, out.data(), 0));
}

TEST(Dequantize, StaysWithinHalfAStepOfTheValuesThatAnotherWriterQuantised) {
  const std::string folder = erank::testing::shared_data("model-fixtures/gguf-and-shards");
  if (folder.empty()) GTEST_SKIP() << "the collection model-fixtures is not beside the repository";
  const auto blocks = data::GgufFile::open(folder + "/tiny_llama_q8.gguf");
  const auto plain = data::SafetensorsFile::open(folder + "/tiny_llama_q8.safetensors");
  // Not q and k, whose rows are in another order.
  const std::map<std::string, std::string> names = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"},
      {"blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight"},
      {"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"},
      {"output_norm.weight", "model.norm.weight"}};
  size_t num_compared = 0;
  for (const data::TensorInfo& info : blocks.tensors())
    for (const data::TensorInfo& other : plain.tensors()) {
      const auto name = names.find(info.name);
      if (name == names.end() || name->second != other.name) continue;
      ASSERT_EQ(info.shape, other.shape) << info.name;
      const auto got = dequantized(info.dtype, blocks.bytes(info));
      const auto original = dequantized(other.dtype, plain.bytes(other));
      for (size_t begin = 0; begin < got.size(); begin += 32) {
        float largest = 0, error = 0;
        for (size_t i = begin; i < begin + 32; ++i) {
          largest = std::max(largest, std::abs(original[i]));
          error = std::max(error, std::abs(got[i] - original[i]));
        }
        // Half a step of 1/127, and the rounding of the scale to a half float.
        EXPECT_LE(error, largest * (0.5f / 127 + 0x1p-11f)) << info.name << " " << begin;
      }
      ++num_compared;
    }
  EXPECT_EQ(num_compared, names.size());
}

// Rows of every tensor of a real file against the same rows from the gguf package.
void compare_real_file(const std::string& name, const std::vector<DType>& expected_types) {
  const std::string model = base::cache_folder() + "/models/" + name;
  const std::string python = erank::testing::test_python();
  if (!base::file_exists(model))
    GTEST_SKIP() << model << " is not there; tools/setup --slow fetches it";
  if (python.empty()) GTEST_SKIP() << "no Python with the gguf package (ERANK_TEST_PYTHON)";
  const std::string rows =
      base::str(::testing::TempDir(), "erank_dequantize_", ::getpid(), "_", name, ".rows");
  const std::string command = base::str("'", python, "' '", ERANK_SOURCE_DIR,
                                        "/tools/dequantize_rows.py' '", model, "' '", rows, "'");
  ASSERT_EQ(std::system(command.c_str()), 0) << command;

  const auto file = data::GgufFile::open(model);
  std::map<std::string, const data::TensorInfo*> infos;
  for (const data::TensorInfo& info : file.tensors()) infos[info.name] = &info;
  std::map<DType, size_t> num_rows;
  std::ifstream in(rows, std::ios::binary);
  std::string tensor;
  size_t row = 0, num_values = 0, num_tensors = 0, last_row = 0;
  while (in >> tensor >> row >> num_values) {
    in.get();
    std::vector<float> expected(num_values);
    in.read(reinterpret_cast<char*>(expected.data()),
            static_cast<std::streamsize>(num_values * sizeof(float)));
    ASSERT_TRUE(in && infos.contains(tensor)) << tensor;
    const data::TensorInfo& info = *infos[tensor];
    ASSERT_EQ(static_cast<size_t>(info.shape.back()), num_values) << tensor;
    const size_t row_bytes =
        num_values / data::dtype_block_values(info.dtype) * data::dtype_block_bytes(info.dtype);
    const auto got = dequantized(info.dtype, file.bytes(info).subspan(row * row_bytes, row_bytes));
    ASSERT_EQ(first_difference(got, expected), -1) << tensor << " row " << row;
    num_tensors += row == 0;
    ++num_rows[info.dtype];
    last_row = std::max(last_row, row);
  }
  std::filesystem::remove(rows);
  EXPECT_EQ(num_tensors, file.tensors().size());
  for (const DType dtype : expected_types)
    EXPECT_GT(num_rows[dtype], 0u) << data::dtype_name(dtype);
}

TEST(TinyDequantize, EqualsTheReferenceOnEveryTensorOfTheDefaultModel) {
  compare_real_file("SmolLM2-135M-Instruct.Q4_1.gguf", {DType::kF32, DType::kQ4_1, DType::kQ8_0});
}

TEST(SlowDequantize, EqualsTheReferenceOnEveryTensorOfAMixedFile) {
  compare_real_file("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                    {DType::kF32, DType::kQ8_0, DType::kQ5_0, DType::kQ4_K, DType::kQ6_K});
}

}  // namespace
}  // namespace erank::model
