#include "erank/model/quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "erank/base/error.h"
#include "erank/data/safetensors.h"
#include "erank/model/checkpoint.h"
#include "tests/model/golden.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::HasSubstr;

TEST(Quantization, TakesTheKindsThatAreUnpackedAndNoOther) {
  const auto known = [](const char* text) { return is_known_quantization(Json::parse(text)); };
  EXPECT_TRUE(known(R"({"quant_method": "fp8"})"));
  EXPECT_TRUE(known(R"({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                        "weight_block_size": [128, 128]})"));
  EXPECT_FALSE(known(R"({"quant_method": "fp8", "fmt": "e5m2"})"));
  EXPECT_FALSE(known(R"({"quant_method": "fp8", "weight_block_size": [128]})"));
  EXPECT_FALSE(known(R"({"quant_method": "gptq", "bits": 4})"));
  EXPECT_FALSE(known(R"({"quant_method": "bitsandbytes", "load_in_4bit": true})"));
  EXPECT_FALSE(known(R"("fp8")"));
  const auto compressed = [&](const std::string& format, const std::string& weights,
                              const std::string& more = "") {
    return known((R"({"quant_method": "compressed-tensors", "format": ")" + format +
                  R"(", "config_groups": {"group_0": {"weights": )" + weights + "}}" + more + "}")
                     .c_str());
  };
  const std::string fp8 = R"({"num_bits": 8, "type": "float", "symmetric": true, "strategy": ")";
  for (const char* strategy : {"tensor", "channel", "block"})
    EXPECT_TRUE(compressed("float-quantized", fp8 + strategy + "\"}")) << strategy;
  EXPECT_FALSE(compressed("float-quantized", fp8 + "group\"}"));
  EXPECT_FALSE(compressed("float-quantized", fp8 + "tensor\"}", R"(, "kv_cache_scheme": {})"));
  EXPECT_FALSE(compressed("nvfp4-pack-quantized", fp8 + "tensor\"}"));
  EXPECT_TRUE(
      compressed("int-quantized",
                 R"({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"})"));
  EXPECT_FALSE(
      compressed("int-quantized",
                 R"({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "channel"})"));
}

TEST(Quantization, BlocksAreOfTheirConfigurationsSize) {
  using Block = std::array<int64_t, 2>;
  EXPECT_EQ(scale_block(nullptr), (Block{128, 128}));
  EXPECT_EQ(scale_block(Json::parse(R"({"weight_block_size": [64, 32]})")), (Block{64, 32}));
  EXPECT_EQ(scale_block(Json::parse(
                R"({"config_groups": {"a": {"weights": {"block_structure": [16, 8]}}}})")),
            (Block{16, 8}));
}

// A folder with one matrix of 8-bit floats and its scales.
class Float8 : public ::testing::Test {
 protected:
  void write(const std::vector<uint8_t>& codes, const std::vector<int64_t>& shape,
             const std::vector<float>& scales, const std::vector<int64_t>& scale_shape,
             const std::string& scale_name) {
    folder_.write("config.json",
                  Json{{"quantization_config",
                        {{"quant_method", "fp8"}, {"weight_block_size", golden_["block"]}}}}
                      .dump());
    data::SafetensorsWriter writer(folder_.path("model.safetensors"),
                                   {{"a.weight", data::DType::kF8_E4M3, shape, 0, 0},
                                    {scale_name, data::DType::kF32, scale_shape, 0, 0},
                                    {"a.input_scale", data::DType::kF32, {1}, 0, 0}});
    const auto bytes = [](const auto& values) {
      return std::span(reinterpret_cast<const uint8_t*>(values.data()),
                       values.size() * sizeof values[0]);
    };
    writer.write(bytes(codes));
    writer.write(bytes(scales));
    writer.write(bytes(std::vector<float>{1}));
    writer.commit();
  }
  // The matrix's values as bits.
  template <typename Bits>
  std::vector<Bits> read(at::ScalarType dtype) {
    const Checkpoint file = Checkpoint::open(folder_.path());
    EXPECT_EQ(file.entries().size(), 1u);
    EXPECT_FALSE(file.has_int8());
    const Checkpoint::Entry* entry = file.find("a.weight");
    std::vector<Bits> bits(entry->info->shape[0] * entry->info->shape[1]);
    const int64_t columns = entry->info->shape[1];
    for_each_rows(*entry, dtype, [&](int64_t first, const void* values, int64_t count) {
      std::memcpy(bits.data() + first * columns, values, count * columns * sizeof(Bits));
    });
    return bits;
  }
  std::string fault() {
    try {
      Checkpoint::open(folder_.path());
      return "";
    } catch (const base::Error& e) {
      return e.what();
    }
  }
  const TestFolder folder_;
  const Json golden_ = read_golden("float8.json");
};

TEST_F(Float8, EveryCodeIsTorchsValue) {
  std::vector<uint8_t> codes(256);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(i);
  write(codes, {16, 16}, {1}, {}, "a.weight_scale");
  const auto bits = read<int32_t>(at::kFloat);
  for (int i = 0; i < 256; ++i) {
    const auto found = std::bit_cast<float>(bits[i]),
               expected = std::bit_cast<float>(golden_["codes"][i].get<int32_t>());
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(found)) << i;
    else
      EXPECT_EQ(bits[i], golden_["codes"][i].get<int32_t>()) << i;
  }
}

TEST_F(Float8, ScalesOfEveryKindGiveTorchsBits) {
  const auto codes = golden_["stored"].get<std::vector<uint8_t>>();
  for (const auto& [name, one] : golden_["cases"].items()) {
    std::vector<float> scales;
    for (const int32_t bits : one["scales"].get<std::vector<int32_t>>())
      scales.push_back(std::bit_cast<float>(bits));
    for (const char* scale : {"a.weight_scale", "a.weight_scale_inv"}) {
      write(codes, golden_["shape"], scales, one["scale_shape"], scale);
      EXPECT_EQ(read<int32_t>(at::kFloat), one["values"].get<std::vector<int32_t>>()) << name;
      EXPECT_EQ(read<int16_t>(at::kBFloat16), one["bf16"].get<std::vector<int16_t>>()) << name;
    }
  }
}

TEST_F(Float8, NamesScalesThatDoNotFit) {
  const auto codes = golden_["stored"].get<std::vector<uint8_t>>();
  write(codes, golden_["shape"], {1, 1, 1, 1}, {2, 2}, "a.weight_scale_inv");
  EXPECT_THAT(fault(), HasSubstr("'a.weight_scale_inv' has shape [2, 2]"));
  EXPECT_THAT(fault(), HasSubstr("each block of 2 x 3"));
  write(codes, golden_["shape"], {1}, {}, "a.scale");
  EXPECT_THAT(fault(), HasSubstr("F8_E4M3 tensor 'a.weight' of shape [5, 7] needs a tensor"));
}

}  // namespace
}  // namespace erank::model
