#include "erank/model/memory_need.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <exception>
#include <fstream>
#include <map>
#include <new>

#include "erank/base/error.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/make_network.h"
#include "erank/model/random_source.h"
#include "erank/model/weights.h"
#include "tests/model/golden.h"
#include "tests/model/passes.h"
#include "tests/model/random_gguf.h"

namespace erank::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr Precision kAll[] = {Precision::kFp32, Precision::kBf16, Precision::kInt8,
                              Precision::kGguf};

ModelConfig config_of(Family family, int64_t hidden, int64_t head_dim) {
  ModelConfig c;
  c.family = family;
  c.hidden_size = hidden, c.intermediate_size = 2 * hidden, c.num_hidden_layers = 2;
  c.num_attention_heads = 6, c.num_key_value_heads = 2, c.head_dim = head_dim;
  c.vocab_size = 501, c.max_position_embeddings = 4096;
  c.rope_theta = 10000, c.rms_norm_eps = 1e-6;
  c.tie_word_embeddings = family == Family::kLlama;
  c.qkv_bias = family == Family::kQwen2;
  c.qk_norm = family == Family::kQwen3;
  return c;
}

TEST(TinyMemoryNeed, IsWhatTheNetworkTakes) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3})
    for (const auto& [hidden, head_dim] : {std::pair(256, 64), std::pair(208, 48)}) {
      const RandomSource source(config_of(family, hidden, head_dim), 1, true);
      for (const Precision precision : kAll) {
        const MemoryNeed need = memory_need(source, {.precision = precision, .threads = 2});
        cpu::CpuNetwork network(source, precision, 2);
        EXPECT_EQ(need.weights, network.weight_bytes()) << precision_name(precision);
        EXPECT_EQ(need.page, network.page_bytes());
        EXPECT_EQ(need.pass_tokens, network.usual_pass_tokens());
        std::vector<std::vector<int32_t>> sequences;
        for (int64_t i = 0; i < need.pass_tokens; i += 256)
          sequences.push_back(random_ids(256, 501, i));
        const auto cache = network.make_cache(need.pass_tokens / kPageTokens);
        Pages pages(static_cast<int32_t>(cache->num_pages()), 1);
        Batch batch;
        for (const auto& ids : sequences) {
          Sequence s = pages.sequence(ids);
          schedule(batch, s, s.left());
        }
        forward(network, batch, *cache);
        const auto taken = static_cast<double>(network.scratch_bytes());
        EXPECT_NEAR(static_cast<double>(need.scratch), taken, 0.1 * taken)
            << precision_name(precision) << ' ' << hidden;
      }
    }
}

NetworkOptions options_of(Precision precision, int64_t cached_pages = 0) {
  return {.precision = precision, .cache_bytes = [=](int64_t page_bytes, int64_t pass_tokens) {
            EXPECT_EQ(pass_tokens, 2048);
            return cached_pages * page_bytes;
          }};
}

std::string refusal(const WeightSource& source, const NetworkOptions& options, int64_t available) {
  try {
    check_memory(source, options, base::AvailableMemory{available, "free memory"});
  } catch (const base::Error& error) {
    EXPECT_EQ(error.kind(), base::ErrorKind::kExhausted);
    return error.what();
  }
  return "";
}

TEST(TinyMemoryNeed, WhatDoesNotFitIsRefusedWithWhatWould) {
  const RandomSource source(config_of(Family::kQwen3, 2048, 64), 1, true);
  std::map<Precision, MemoryNeed> needs;
  for (const Precision precision : kAll)
    needs[precision] = memory_need(source, options_of(precision));
  const auto bytes = [&](Precision precision) { return needs[precision].total(); };
  EXPECT_LT(bytes(Precision::kGguf), bytes(Precision::kInt8));
  EXPECT_LT(bytes(Precision::kInt8), bytes(Precision::kBf16));
  EXPECT_LT(bytes(Precision::kBf16), bytes(Precision::kFp32));
  EXPECT_EQ(refusal(source, options_of(Precision::kFp32), bytes(Precision::kFp32)), "");
  EXPECT_NE(refusal(source, options_of(Precision::kFp32), bytes(Precision::kFp32) - 1), "");
  const MemoryNeed& bf16 = needs[Precision::kBf16];
  EXPECT_THAT(
      refusal(source, options_of(Precision::kBf16), bytes(Precision::kInt8)),
      AllOf(
          HasSubstr("it takes " + base::memory_text(bf16.total()) + " in bf16 (weights " +
                    base::memory_text(bf16.weights) + ", keys and values 0 bytes, a pass " +
                    base::memory_text(bf16.scratch) + "), there is room for " +
                    base::memory_text(bytes(Precision::kInt8)) + " (free memory)"),
          HasSubstr("--precision int8, which takes " + base::memory_text(bytes(Precision::kInt8))),
          HasSubstr("--precision gguf, which takes "), Not(HasSubstr("fp32"))));
  EXPECT_THAT(refusal(source, options_of(Precision::kInt8), bytes(Precision::kInt8) - 1),
              AllOf(HasSubstr("use --precision gguf"), Not(HasSubstr("precision int8"))));
  EXPECT_THAT(refusal(source, options_of(Precision::kBf16), 1000),
              AllOf(HasSubstr("room for 1.00 kB"), HasSubstr("does not fit either"),
                    Not(HasSubstr("--precision"))));
  // Where nothing is known, nothing is refused.
  check_memory(source, options_of(Precision::kFp32), {});
}

TEST(TinyMemoryNeed, KeysAndValuesCountToo) {
  const RandomSource source(config_of(Family::kQwen3, 256, 64), 1, true);
  constexpr int64_t kPages = 10000;
  const MemoryNeed bare = memory_need(source, options_of(Precision::kFp32));
  const MemoryNeed need = memory_need(source, options_of(Precision::kFp32, kPages));
  EXPECT_EQ(need.total(), bare.total() + kPages * need.page);
  const auto options = options_of(Precision::kFp32, kPages);
  EXPECT_EQ(refusal(source, options, need.total()), "");
  EXPECT_THAT(refusal(source, options, need.total() - 1),
              AllOf(HasSubstr("keys and values " + base::memory_text(kPages * need.page)),
                    HasSubstr("--precision bf16"), HasSubstr("a smaller --kv-cache-bytes")));
  EXPECT_THAT(refusal(source, options, bare.total() - 1), Not(HasSubstr("--kv-cache-bytes")));
}

// A system that gives no memory in the middle of the load.
class Exhausted : public RandomSource {
 public:
  explicit Exhausted(std::exception_ptr error)
      : RandomSource(config_of(Family::kQwen3, 256, 64), 1), error_(std::move(error)) {}

 protected:
  void read_base(const std::string& name, at::ScalarType dtype, int64_t begin, int64_t end,
                 const TakeRows& take) const override {
    if (name.find("down_proj") != name.npos) std::rethrow_exception(error_);
    RandomSource::read_base(name, dtype, begin, end, take);
  }

 private:
  std::exception_ptr error_;
};

TEST(TinyMemoryNeed, WhatEndsTheLoadForLackOfMemoryIsTheSameError) {
  for (const auto& lack : {std::make_exception_ptr(std::bad_alloc()),
                           std::make_exception_ptr(base::Error(base::ErrorKind::kExhausted,
                                                               "[memory] cannot allocate"))}) {
    try {
      make_network(Exhausted(lack), {.precision = Precision::kBf16});
      FAIL();
    } catch (const base::Error& error) {
      EXPECT_EQ(error.kind(), base::ErrorKind::kExhausted);
      EXPECT_THAT(error.what(), HasSubstr("it takes "));
    }
  }
}

// A line of /proc/self/status, in bytes.
int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return -1;
}

// The most memory above what the process held before.
void expect_light_loading(const std::string& model, Precision precision) {
  const auto source = CheckpointSource::open(model);
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM begins anew
  const int64_t before = status_bytes("VmRSS");
  const auto network = make_network(source, {.precision = precision, .threads = 2});
  const auto peak = static_cast<double>(status_bytes("VmHWM") - before);
  const auto size = static_cast<double>(network->weight_bytes());
  std::printf("%s: %.1f MB, peak %.3f of it\n", precision_name(precision), size / 1e6, peak / size);
  EXPECT_LT(peak, 1.05 * size + 16e6) << precision_name(precision);
  EXPECT_GT(peak, 0.9 * size) << "it is all there";
}

TEST(TinyMemoryNeed, LoadingShardsHoldsLittleMoreThanTheWeights) {
  const TestFolder folder;
  write_random_weights(config_of_shape("smollm2-135m"), 1, at::kBFloat16, folder.path(), 64 << 20);
  ASSERT_TRUE(base::file_exists(folder.path("model-00003-of-00005.safetensors")));
  for (const Precision precision : {Precision::kBf16, Precision::kInt8})
    expect_light_loading(folder.path(), precision);
}

TEST(TinyMemoryNeed, LoadingAGgufFileHoldsLittleMoreThanTheWeights) {
  const TestFolder folder;
  ModelConfig config = config_of_shape("smollm2-135m");
  config.num_hidden_layers = 16;
  write_random_gguf(folder.path("model.gguf"), config, [](const std::string& name) {
    return name.find("embed") != name.npos ? data::DType::kQ8_0 : data::DType::kQ4_0;
  });
  for (const Precision precision : {Precision::kGguf, Precision::kInt8, Precision::kBf16})
    expect_light_loading(folder.path("model.gguf"), precision);
}

}  // namespace
}  // namespace erank::model
