// Frequencies of every kind of scaling against transformers', from config.json and from GGUF.
#include "erank/model/rotary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "erank/base/error.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/weight_source.h"
#include "tests/gguf_bytes.h"
#include "tests/model/golden.h"
#include "tests/model/passes.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::HasSubstr;
using namespace erank::testing::gguf_bytes;

void expect_frequencies(const ModelConfig& config, const Json& expected) {
  const auto found = rotary_frequencies(config, expected["length"].get<int64_t>());
  ASSERT_EQ(found.inverse.size(), expected["inverse"].size());
  EXPECT_NEAR(found.attention_factor, expected["attention_factor"].get<double>(),
              1e-7 * found.attention_factor);
  for (size_t i = 0; i < found.inverse.size(); ++i)
    EXPECT_NEAR(found.inverse[i], expected["inverse"][i].get<double>(), 5e-7 * found.inverse[i])
        << i << " at length " << expected["length"];
}

TEST(Rotary, FrequenciesEqualTransformersInsideAndPastTheOriginalLength) {
  const Json golden = read_golden("model_long.json");
  int kinds = 0;
  for (const auto& [name, one] : golden["cases"].items()) {
    if (!one.contains("frequencies")) continue;
    SCOPED_TRACE(name);
    ++kinds;
    for (const Json& frequencies : one["frequencies"])
      expect_frequencies(ModelConfig::from_json(one["given"], name), frequencies);
  }
  EXPECT_EQ(kinds, 10);
}

TEST(Rotary, FrequenciesOfPublishedConfigurationsEqualTransformers) {
  const Json golden = read_golden("model_long.json");
  for (const auto& [name, one] : golden["published"].items()) {
    SCOPED_TRACE(name);
    expect_frequencies(ModelConfig::from_json(one["given"], name), one);
  }
}

// A table has the frequencies of short texts whatever it reaches: what is before is never computed
// anew, and a pair's company does not matter.
TEST(Rotary, ATableDoesNotDependOnHowFarItReaches) {
  const Json golden = read_golden("model_long.json");
  for (const char* name : {"dynamic", "longrope_two_lists"}) {
    const Json& one = golden["cases"][name];
    const ModelConfig config = ModelConfig::from_json(one["given"], name);
    const Json& inside = one["frequencies"][0];
    RotaryTable table(config);
    table.reach(0);
    table.reach(config.context() - 1);
    EXPECT_EQ(table.num_positions(), std::string(name) == "dynamic" ? 128 : 32);
    const int64_t last = table.num_positions() - 1, half = config.head_dim / 2;
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(last) * inside["inverse"][i].get<double>();
      EXPECT_NEAR(table.cos()[last * half + i],
                  std::cos(angle) * inside["attention_factor"].get<double>(), 1e-4)
          << name;
    }
  }
}

// A GGUF file of a golden checkpoint whose scaling is said by `extra` keys and `factors`.
struct GgufModel {
  ModelConfig config;
  std::vector<std::string> extra;
  std::vector<std::pair<std::string, std::vector<float>>> factors;

  std::string arch() const { return family_name(config.family); }
  std::string number(const std::string& name, uint32_t value) const {
    return key(arch() + "." + name, kUint32, u32(value));
  }
  std::string real(const std::string& name, float value) const {
    return key(arch() + "." + name, kFloat32, raw(value));
  }
  std::string word(const std::string& name, const std::string& value) const {
    return key(arch() + "." + name, kString, erank::testing::gguf_bytes::text(value));
  }

  std::string bytes() const {
    const ModelConfig& c = config;
    const auto n = [](int64_t value) { return static_cast<uint32_t>(value); };
    std::vector<std::string> keys = {
        key("general.architecture", kString, erank::testing::gguf_bytes::text(arch())),
        number("embedding_length", n(c.hidden_size)),
        number("feed_forward_length", n(c.intermediate_size)),
        number("block_count", n(c.num_hidden_layers)),
        number("attention.head_count", n(c.num_attention_heads)),
        number("attention.head_count_kv", n(c.num_key_value_heads)),
        number("attention.key_length", n(c.head_dim)),
        number("context_length", n(c.max_position_embeddings)),
        number("vocab_size", n(c.vocab_size)),
        real("attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps)),
        real("rope.freq_base", static_cast<float>(c.rope_theta))};
    keys.insert(keys.end(), extra.begin(), extra.end());
    std::vector<std::string> tensors;
    std::string data;
    const auto add = [&](const std::string& name, std::vector<uint64_t> dimensions,
                         const float* values, int64_t count) {
      tensors.push_back(tensor(name, dimensions, kF32, data.size()));
      data.append(reinterpret_cast<const char*>(values), count * sizeof(float));
      data.resize((data.size() + 31) / 32 * 32, '\0');
    };
    for (const auto& [name, values] : factors)
      add(name, {values.size()}, values.data(), std::ssize(values));
    for (const TensorShape& shape : parameter_shapes(c)) {
      at::Tensor values = golden_fill(shape.name, shape.shape);
      const bool q = shape.name.find("q_proj") != std::string::npos;
      const bool k = shape.name.find("k_proj") != std::string::npos;
      // Row i of a head's first half is followed by row i of its second.
      if (c.family == Family::kLlama && (q || k))
        values = values.view({-1, 2, c.head_dim / 2, c.hidden_size}).transpose(1, 2).contiguous();
      add(gguf_name(shape.name), {shape.shape.rbegin(), shape.shape.rend()},
          values.const_data_ptr<float>(), values.numel());
    }
    return gguf(keys, tensors, data);
  }

  static std::string gguf_name(std::string name) {
    const std::pair<const char*, const char*> parts[] = {{"model.embed_tokens", "token_embd"},
                                                         {"model.norm", "output_norm"},
                                                         {"model.layers", "blk"},
                                                         {"self_attn.q_proj", "attn_q"},
                                                         {"self_attn.k_proj", "attn_k"},
                                                         {"self_attn.v_proj", "attn_v"},
                                                         {"self_attn.o_proj", "attn_output"},
                                                         {"self_attn.q_norm", "attn_q_norm"},
                                                         {"self_attn.k_norm", "attn_k_norm"},
                                                         {"input_layernorm", "attn_norm"},
                                                         {"mlp.gate_proj", "ffn_gate"},
                                                         {"post_attention_layernorm", "ffn_norm"},
                                                         {"mlp.up_proj", "ffn_up"},
                                                         {"mlp.down_proj", "ffn_down"}};
    for (const auto& [from, to] : parts)
      if (const size_t at = name.find(from); at != std::string::npos)
        name.replace(at, std::string(from).size(), to);
    return name;
  }
};

class LongGguf : public ::testing::Test {
 protected:
  const Json golden_ = read_golden("model_long.json");
  const TestFolder folder_;

  // Of the case's configuration, which says nothing of scaling.
  GgufModel model(const std::string& name) const {
    GgufModel m;
    m.config = ModelConfig::from_json(golden_["cases"][name]["given"], name);
    return m;
  }
  std::string write(const GgufModel& m) const {
    const std::string path = folder_.path("model.gguf");
    base::write_file_atomic(path, m.bytes());
    return path;
  }
  void expect_logits(const std::string& name, const GgufModel& m) const {
    SCOPED_TRACE(name);
    const CheckpointSource source = CheckpointSource::open(write(m));
    cpu::CpuNetwork network(source, Precision::kFp32, 1);
    const Json& one = golden_["cases"][name];
    for (const auto& [place, text] : one["texts"].items())
      EXPECT_LE(
          largest_difference(whole_pass(network, {text["ids"].get<std::vector<int32_t>>()}),
                             one["columns"], text["rows"], golden_["rows_apart"].get<int64_t>()),
          1e-5 * text["max_logit"].get<double>())
          << place;
    // A folder that is made of it says the same.
    const ModelConfig again =
        ModelConfig::from_json(Json::parse(source.config().to_json().dump()), name);
    EXPECT_EQ(again.rope_scaling, source.config().rope_scaling);
  }
  std::string fault(const GgufModel& m) const {
    try {
      ModelConfig::from_gguf(data::GgufFile::open(write(m)));
      return "";
    } catch (const base::Error& e) {
      return e.what();
    }
  }
};

TEST_F(LongGguf, LogitsEqualTransformers) {
  GgufModel linear = model("linear");
  linear.extra = {linear.word("rope.scaling.type", "linear"),
                  linear.real("rope.scaling.factor", 4)};
  expect_logits("linear", linear);
  linear.extra = {linear.real("rope.scale_linear", 4)};
  expect_logits("linear", linear);

  GgufModel yarn = model("yarn");
  yarn.extra = {yarn.word("rope.scaling.type", "yarn"), yarn.real("rope.scaling.factor", 4),
                yarn.number("rope.scaling.original_context_length", 32),
                key("qwen3.rope.scaling.finetuned", kBool, std::string(1, '\1'))};
  expect_logits("yarn", yarn);

  // llama.cpp's converter writes what each frequency is divided by.
  GgufModel llama3 = model("llama3");
  ModelConfig plain = llama3.config;
  plain.rope_scaling = {};
  const auto scaled = rotary_frequencies(llama3.config, 1).inverse;
  auto divisors = rotary_frequencies(plain, 1).inverse;
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  llama3.factors = {{"rope_freqs.weight", divisors}};
  expect_logits("llama3", llama3);

  for (const char* name : {"longrope", "longrope_two_lists"}) {
    GgufModel longrope = model(name);
    const RopeScaling& s = longrope.config.rope_scaling;
    longrope.factors = {
        {"rope_factors_long.weight", {s.long_factor.begin(), s.long_factor.end()}},
        {"rope_factors_short.weight", {s.short_factor.begin(), s.short_factor.end()}}};
    longrope.extra = {longrope.word("rope.scaling.type", "longrope"),
                      longrope.number("rope.scaling.original_context_length", 32),
                      longrope.real("rope.scaling.attn_factor",
                                    rotary_frequencies(longrope.config, 1).attention_factor)};
    expect_logits(name, longrope);
  }
}

TEST_F(LongGguf, RefusalsShowTheValueInTheFile) {
  GgufModel m = model("yarn");
  const auto with = [&](std::vector<std::string> keys) {
    m.extra = std::move(keys);
    return fault(m);
  };
  EXPECT_EQ(with({m.word("rope.scaling.type", "none")}), "");
  EXPECT_THAT(with({m.word("rope.scaling.type", "mrope")}),
              HasSubstr("\"qwen3.rope.scaling.type\" is mrope"));
  EXPECT_THAT(with({m.word("rope.scaling.type", "none"), m.real("rope.scaling.factor", 4)}),
              HasSubstr("\"qwen3.rope.scaling.factor\" is 4"));
  EXPECT_THAT(with({m.real("rope.scaling.factor", 4), m.real("rope.scale_linear", 2)}),
              HasSubstr("is 4 and \"qwen3.rope.scale_linear\" is 2; llama.cpp takes the first"));
  EXPECT_THAT(with({m.word("rope.scaling.type", "yarn"), m.real("rope.scaling.factor", -4)}),
              HasSubstr("is -4"));
  EXPECT_THAT(
      with({m.word("rope.scaling.type", "linear"), m.real("rope.scaling.attn_factor", 0.5f)}),
      HasSubstr("\"qwen3.rope.scaling.attn_factor\" is 0.5"));
  EXPECT_THAT(with({m.real("rope.scaling.yarn_log_multiplier", 0.1f)}), HasSubstr("is 0.1"));
  EXPECT_THAT(with({m.word("rope.scaling.type", "longrope")}),
              HasSubstr("'rope_factors_short.weight' is missing"));
  EXPECT_THAT(with({m.number("attention.sliding_window", 128)}),
              HasSubstr("\"qwen3.attention.sliding_window\" is 128"));
  EXPECT_THAT(with({m.number("pooling_type", 4)}), HasSubstr("classifier"));
  m.factors = {{"rope_freqs.weight", {1, 2, 3}}};
  EXPECT_THAT(with({}), HasSubstr("expected F32 of 8 values"));
  m.factors = {{"rope_freqs.weight", {1, 1, 1, 1, 1, 1, 1, -1}}};
  EXPECT_THAT(with({}), HasSubstr("has the value -1"));
  m.factors = {{"rope_freqs.weight", std::vector<float>(8, 2)}};
  EXPECT_THAT(with({m.word("rope.scaling.type", "yarn"), m.real("rope.scaling.factor", 4)}),
              HasSubstr("rope_freqs.weight"));
  m.factors = {{"rope_freqs.weight", std::vector<float>(8, 1)}};
  EXPECT_EQ(with({}), "");
  EXPECT_EQ(ModelConfig::from_gguf(data::GgufFile::open(write(m))).rope_scaling, RopeScaling());
}

}  // namespace
}  // namespace erank::model
