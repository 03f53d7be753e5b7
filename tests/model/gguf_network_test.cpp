// Networks whose weights stay in a GGUF file's blocks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/cuda/cuda_network.h"
#include "erank/model/lora.h"
#include "erank/model/make_network.h"
#include "erank/model/random_source.h"
#include "erank/model/weight_source.h"
#include "erank/model/weights.h"
#include "tests/model/golden.h"
#include "tests/model/kernels_emulated.h"
#include "tests/model/passes.h"
#include "tests/model/random_gguf.h"

namespace erank::model {
namespace {

using data::DType;
using ::testing::HasSubstr;

ModelConfig config_of(Family family) {
  ModelConfig c;
  c.family = family;
  c.hidden_size = 256, c.intermediate_size = 512, c.num_hidden_layers = 3;
  c.num_attention_heads = 4, c.num_key_value_heads = 2, c.head_dim = 64;
  c.vocab_size = 331, c.max_position_embeddings = 2048;
  c.rope_theta = 10000, c.rms_norm_eps = 1e-5;
  c.tie_word_embeddings = family == Family::kLlama;
  c.qkv_bias = family == Family::kQwen2;
  c.qk_norm = family == Family::kQwen3;
  return c;
}

// As Q4_K_M files and others mix them: within qkv and within gate and up too, one matrix as plain
// numbers beside blocks, one altogether plain.
DType mixed(const std::string& name) {
  if (name.find("layers.1.self_attn.v_proj") != name.npos) return DType::kF16;
  if (name.find("layers.2.mlp.down_proj") != name.npos) return DType::kBF16;
  for (const auto& [part, format] : {std::pair("q_proj", DType::kQ4_K),
                                     {"k_proj", DType::kQ4_0},
                                     {"v_proj", DType::kQ6_K},
                                     {"o_proj", DType::kQ5_K},
                                     {"gate", DType::kQ4_K},
                                     {"up", DType::kQ5_1},
                                     {"down", DType::kQ8_0},
                                     {"embed", DType::kQ6_K}})
    if (name.find(part) != name.npos) return format;
  return DType::kQ4_1;
}

std::string mixed_file(const TestFolder& folder, Family family) {
  const std::string path = folder.path("model.gguf");
  write_random_gguf(path, config_of(family), mixed);
  return path;
}

TEST(TinyGgufNetwork, LogitsAreThoseOfTheUnpackedWeightsBitForBit) {
  for (const Family family : {Family::kLlama, Family::kQwen3}) {
    const TestFolder folder;
    const auto source = CheckpointSource::open(mixed_file(folder, family));
    // On two threads rows are shared up to 384, and divided after that.
    for (const int threads : {1, 2}) {
      const auto unpacked =
          make_network(source, {.precision = usual_precision(false), .threads = threads});
      const auto kept = make_network(source, {.precision = Precision::kGguf, .threads = threads});
      EXPECT_EQ(kept->precision(), Precision::kGguf);
      EXPECT_EQ(kept->page_bytes(), unpacked->page_bytes());
      EXPECT_LT(kept->weight_bytes(), unpacked->weight_bytes() / 2);
      for (const size_t length : {1, 30, 500}) {
        std::vector<std::vector<int32_t>> sequences = {random_ids(length, 331, 1)};
        if (length == 30) sequences.push_back(random_ids(7, 331, 2));
        const at::Tensor expected = whole_pass(*unpacked, sequences);
        EXPECT_GT(expected.abs().max().item<double>(), 0.1);
        EXPECT_TRUE(whole_pass(*kept, sequences).equal(expected)) << length << " tokens";
      }
    }
  }
}

// The GPU's network, on the CPU: matrices and head are unpacked in several pieces, which begin and
// end inside tensors of different formats.
TEST(TinyGgufNetwork, AGpuKeepsTheFilesBlocksToo) {
  const auto on_gpu = [](const WeightSource& source, Precision precision,
                         const cuda::Kernels* kernels = nullptr) {
    return std::make_unique<cuda::CudaNetwork>(source, precision, at::kCPU, nullptr, kernels);
  };
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    const TestFolder folder;
    const auto source = CheckpointSource::open(mixed_file(folder, family));
    const auto kept = on_gpu(source, Precision::kGguf), bf16 = on_gpu(source, Precision::kBf16);
    EXPECT_EQ(kept->precision(), Precision::kGguf);
    EXPECT_EQ(kept->page_bytes(), bf16->page_bytes());
    int64_t stored = 0;  // of all matrices in the file, plain ones in 2 bytes a value
    for (const TensorShape& tensor : parameter_shapes(source.config())) {
      if (tensor.shape.size() != 2) continue;
      const DType format = mixed(tensor.name);
      stored += tensor.shape[0] * tensor.shape[1] /
                static_cast<int64_t>(data::dtype_block_values(format)) *
                static_cast<int64_t>(data::dtype_block_bytes(format));
    }
    EXPECT_EQ(kept->weight_bytes(), stored);
    EXPECT_LT(kept->weight_bytes(), bf16->weight_bytes() / 2);
    const std::vector<std::vector<int32_t>> ids = {random_ids(30, 331, 1), random_ids(7, 331, 2)};
    const at::Tensor found = whole_pass(*kept, ids), rounded = whole_pass(*bf16, ids);
    const at::Tensor exact =
        whole_pass(*make_network(source, {.precision = Precision::kFp32, .threads = 2}), ids);
    // From the weights that the CPU unpacks no further than bf16 takes them. Products of other
    // shapes may add up in another order: one rounding here and there.
    EXPECT_LT(relative_error(found, exact), relative_error(rounded, exact) + 0.005);
    EXPECT_LT(relative_error(rounded, exact), 0.15);
    EXPECT_LT(relative_error(found, rounded), 0.005);
    const auto by_kernels = on_gpu(source, Precision::kGguf, &cuda::emulated::kForwards);
    EXPECT_LT(relative_error(whole_pass(*by_kernels, ids), found), 0.005);
  }
}

TEST(TinyGgufNetwork, AnAdapterIsMergedIntoWhatItChangesAlone) {
  const TestFolder folder;
  const std::string path = mixed_file(folder, Family::kQwen3);
  LoraConfig lora;
  lora.rank = 4;
  lora.target_modules = {"q_proj"};
  Adapter adapter = make_adapter(config_of(Family::kQwen3), lora, 1);
  for (Adapter::Layer& layer : adapter.layers) layer.lora.b.fill_(0.05);
  save_adapter(adapter, folder.path("adapter"), "base", at::kFloat);
  const auto source = CheckpointSource::open(path, folder.path("adapter"));
  EXPECT_FALSE(source.stored_format("model.layers.0.self_attn.q_proj.weight").has_value());
  EXPECT_EQ(source.stored_format("model.layers.0.self_attn.k_proj.weight"), DType::kQ4_0);
  const auto ids = random_ids(20, 331, 3);
  const auto kept = make_network(source, {.precision = Precision::kGguf});
  const at::Tensor expected =
      last_row(*make_network(source, {.precision = usual_precision(false)}), ids);
  EXPECT_TRUE(last_row(*kept, ids).equal(expected));
  cuda::CudaNetwork on_gpu(source, Precision::kGguf, at::kCPU),
      unpacked(source, Precision::kBf16, at::kCPU);
  EXPECT_LT(relative_error(last_row(on_gpu, ids), last_row(unpacked, ids)), 0.005);
  const auto without = make_network(CheckpointSource::open(path), {.precision = Precision::kGguf});
  EXPECT_GT(relative_error(last_row(*without, ids), expected), 0.01);
}

TEST(TinyGgufNetwork, WeightsWithoutBlocksAreRefused) {
  const TestFolder folder;
  write_random_weights(config_of(Family::kQwen3), 1, at::kBFloat16, folder.path());
  for (const std::optional<int> gpu : {std::optional<int>(), std::optional(0)}) {
    try {
      make_network(CheckpointSource::open(folder.path()),
                   {.precision = Precision::kGguf, .gpu = gpu});
      FAIL();
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), base::ErrorKind::kInvalidInput);
      EXPECT_THAT(error.what(), HasSubstr("not in the blocks of a GGUF file"));
      EXPECT_THAT(error.what(), HasSubstr(folder.path()));
    }
  }
}

TEST(TinyGgufNetwork, RandomBlocksAreWeightsOfThatDeviation) {
  ModelConfig config = config_of(Family::kQwen3);
  config.tie_word_embeddings = false;
  for (const bool blocks : {false, true}) {
    const RandomSource source(config, 1, blocks);
    for (const char* name :
         {"model.layers.0.mlp.down_proj.weight", "model.embed_tokens.weight", "lm_head.weight"}) {
      double sum = 0, squares = 0;
      int64_t n = 0;
      const auto [rows, columns] = source.size_of(name);
      source.read_rows(name, at::kFloat, 0, rows,
                       [&, columns = columns](int64_t, const void* values, int64_t count) {
                         const auto* row = static_cast<const float*>(values);
                         for (int64_t i = 0; i < count * columns; ++i, ++n)
                           sum += row[i], squares += double{row[i]} * row[i];
                       });
      const auto count = static_cast<double>(n);
      EXPECT_NEAR(sum / count, 0, 0.002) << name;
      EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.002) << name;
    }
    EXPECT_EQ(source.stored_format("model.layers.0.mlp.down_proj.weight").has_value(), blocks);
  }
  const RandomSource source(config, 1, true);
  const auto ids = random_ids(20, config.vocab_size, 3);
  EXPECT_TRUE(
      last_row(*make_network(source, {.precision = Precision::kGguf}), ids)
          .equal(last_row(*make_network(source, {.precision = usual_precision(false)}), ids)));
}

}  // namespace
}  // namespace erank::model
