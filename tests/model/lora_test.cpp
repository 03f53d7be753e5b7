#include "erank/model/lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "erank/base/error.h"
#include "erank/data/safetensors.h"
#include "erank/model/peft_folder.h"
#include "tests/model/golden.h"
#include "tests/shared_data.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::AnyOf;
using ::testing::HasSubstr;

const std::string kAdapter = std::string(ERANK_SOURCE_DIR) + "/tests/golden/model_lora_adapter";

ModelConfig golden_config() {
  return ModelConfig::from_json(read_golden("model_lora.json")["plain"]["config"], "golden");
}

TEST(TinyLora, ReadsPeftsFolder) {
  const Adapter adapter = load_adapter(golden_config(), kAdapter);
  EXPECT_EQ(adapter.config.rank, 4);
  EXPECT_DOUBLE_EQ(adapter.config.scaling_of(""), 1.5);
  EXPECT_EQ(read_lora_config(kAdapter).rank, 4);
  for (const Adapter::Layer& layer : adapter.layers) {
    EXPECT_DOUBLE_EQ(layer.lora.scaling, 1.5);
    EXPECT_EQ(adapter.find(layer.name), &layer.lora);
  }
  EXPECT_EQ(adapter.find("lm_head"), nullptr);
}

TEST(TinyLora, FreshAdaptersAreKaimingTimesZero) {
  const Adapter adapter = make_adapter(golden_config(), {.rank = 2, .target_modules = {}}, 7);
  const auto tensors = adapter.named();
  ASSERT_EQ(tensors.size(), 2u * 7 * 2);
  EXPECT_EQ(tensors[0].name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(tensors[1].name, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
  const double bound = 1 / std::sqrt(48.0);
  EXPECT_LE(tensors[0].tensor.abs().max().item<double>(), bound);
  EXPECT_GT(tensors[0].tensor.abs().max().item<double>(), 0.9 * bound);
  for (const auto& [name, tensor] : tensors)
    if (name.ends_with("lora_B.weight")) {
      EXPECT_EQ(tensor.abs().max().item<double>(), 0) << name;
    }
  const auto again = make_adapter(golden_config(), {.rank = 2, .target_modules = {}}, 7).named();
  const auto other = make_adapter(golden_config(), {.rank = 2, .target_modules = {}}, 8).named();
  EXPECT_TRUE(at::equal(tensors[2].tensor, again[2].tensor));
  EXPECT_FALSE(at::equal(tensors[2].tensor, other[2].tensor));
}

TEST(TinyLora, WrittenAndReadAgainIsTheSame) {
  const Adapter first = load_adapter(golden_config(), kAdapter);
  const TestFolder folder;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    // Golden values are exact in bf16.
    save_adapter(first, folder.path("adapter"), "some/base", dtype);
    const Adapter second = load_adapter(golden_config(), folder.path("adapter"));
    EXPECT_EQ(second.config.rank, first.config.rank);
    EXPECT_EQ(second.config.alpha, first.config.alpha);
    const auto a = first.named(), b = second.named();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].name, b[i].name);
      EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
    }
  }
  const auto written =
      data::SafetensorsFile::open(folder.path("adapter/adapter_model.safetensors"));
  const auto pefts = data::SafetensorsFile::open(kAdapter + "/adapter_model.safetensors");
  std::set<std::string> names, expected;
  for (const auto& t : written.tensors()) names.insert(t.name);
  for (const auto& t : pefts.tensors()) expected.insert(t.name);
  EXPECT_EQ(names, expected);
}

// A copy of the golden adapter whose configuration has one key changed.
std::string fault_with(const char* key, const char* value) {
  const TestFolder folder;
  Json json = Json::parse(base::read_file(kAdapter + "/adapter_config.json"));
  json[key] = Json::parse(value);
  base::write_file_atomic(folder.path("adapter_config.json"), json.dump());
  base::write_file_atomic(folder.path("adapter_model.safetensors"),
                          base::read_file(kAdapter + "/adapter_model.safetensors"));
  try {
    load_adapter(golden_config(), folder.path());
    return "";
  } catch (const base::Error& e) {
    return e.what();
  }
}

TEST(TinyLora, WhatIsNotFiniteIsNotSaved) {
  // The last value is finite as fp32 alone.
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 3.4e38f}) {
    Adapter adapter = make_adapter(golden_config(), {.rank = 2, .target_modules = {}}, 7);
    adapter.layers.back().lora.b[0][0] = bad;
    const TestFolder folder;
    EXPECT_THROW(save_adapter(adapter, folder.path("a"), "base", at::kBFloat16), base::Error);
    EXPECT_FALSE(base::file_exists(folder.path("a/adapter_model.safetensors")));
  }
}

TEST(TinyLora, RefusesKeysThatChangeTheMathsByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"peft_type", "\"IA3\""},
      {"use_dora", "true"},  // without its magnitudes
      {"rank_pattern", R"({"q_proj": 8})"},
      {"rank_pattern", R"({"q_proj": 0})"},
      {"rank_pattern", R"({"(?i)q_proj": 4})"},
      {"alpha_pattern", R"({"(q.*)*_proj": 8})"},
      {"alpha_pattern", R"({"q_proj": "8"})"},
      {"alpha_pattern", R"({"(q_proj": 8})"},
      {"modules_to_save", R"(["lm_head"])"},  // which the file lacks
      {"modules_to_save", R"("lm_head")"},
      {"trainable_token_indices", R"([3])"},
      {"trainable_token_indices", R"([-3])"},
      {"bias", "\"some\""},
      {"lora_bias", "true"},
      {"fan_in_fan_out", "true"},
      {"layer_replication", "[[0, 2]]"},
      {"target_parameters", R"(["x"])"},
      {"kasa_config", R"({"beta": 1})"},
      {"alora_invocation_tokens", "[1]"},
      {"init_lora_weights", "\"pissa\""},
      {"init_lora_weights", "\"a new one\""},
      {"a_new_feature", "3"},
      {"target_modules", "3"},
      {"r", "0"},
      {"lora_dropout", "1.5"}};
  for (const auto& [key, value] : cases)
    EXPECT_THAT(fault_with(key, value),
                AnyOf(HasSubstr(key), HasSubstr("expected [8, 48]"), HasSubstr("magnitude")))
        << value;
  EXPECT_THAT(fault_with("layer_replication", "[[0, 2]]"), HasSubstr("merge_and_unload"));
}

TEST(TinyLora, KeysOfWhereAnAdapterCameFromChangeNothing) {
  const std::pair<const char*, const char*> cases[] = {{"a_new_feature", "null"},
                                                       {"target_modules", "\"all-linear\""},
                                                       {"target_modules", "\".*_proj\""},
                                                       {"target_modules", "null"},
                                                       {"exclude_modules", R"(["k_proj"])"},
                                                       {"init_lora_weights", "\"gaussian\""},
                                                       {"init_lora_weights", "\"eva\""},
                                                       {"eva_config", R"({"rho": 2.0})"},
                                                       {"corda_config", R"({"cache_file": "x"})"},
                                                       {"lora_ga_config", R"({"scale": "stable"})"},
                                                       {"loftq_config", R"({"loftq_bits": 4})"},
                                                       {"velora_config", R"({"num_groups": 4})"},
                                                       {"ensure_weight_tying", "true"}};
  for (const auto& [key, value] : cases) EXPECT_EQ(fault_with(key, value), "") << key;
}

TEST(TinyLora, APickleAloneIsNamed) {
  const TestFolder folder;
  folder.write("adapter_config.json", base::read_file(kAdapter + "/adapter_config.json"));
  folder.write("adapter_model.bin", "PK");
  try {
    load_adapter(golden_config(), folder.path());
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("adapter_model.bin alone"));
  }
}

TEST(TinyLora, RefusesTensorsThatDoNotFit) {
  EXPECT_THAT(fault_with("r", "8"), HasSubstr("shape [4, 48], expected [8, 48]"));
  EXPECT_THAT(fault_with("target_modules", R"(["q_proj", "k_proj"])"),
              HasSubstr("no tensors for layer 'model.layers.0.self_attn.k_proj'"));
  // A model of fewer layers has no place for the second layer's adapter.
  ModelConfig small = golden_config();
  small.num_hidden_layers = 1;
  try {
    load_adapter(small, kAdapter);
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("layers.1"));
  }
  EXPECT_THROW(make_adapter(small, {.target_modules = {"query"}}, 1), base::Error);
}

// The shared fixture adapts one linear layer called "proj": here it is the q_proj of a model of
// that shape.
TEST(TinyLora, FixtureMergedGivesTheStoredOutputs) {
  const std::string shared = erank::testing::shared_data("model-fixtures/lora");
  if (shared.empty()) GTEST_SKIP() << "model-fixtures/lora is not there";
  const Json golden = Json::parse(base::read_file(shared + "/tiny_lora_logits.json"));
  ModelConfig config = config_of_shape("tiny");
  config.num_hidden_layers = 1;
  config.hidden_size = 5;
  config.num_attention_heads = config.num_key_value_heads = 1;
  config.head_dim = 4;
  Parameters parameters(config, at::kFloat);
  parameters.init_random(1);

  const TestFolder folder;
  Json adapter = Json::parse(base::read_file(shared + "/tiny_lora_adapter_config.json"));
  adapter["target_modules"] = {"q_proj"};
  base::write_file_atomic(folder.path("adapter_config.json"), adapter.dump());
  const auto file = data::SafetensorsFile::open(shared + "/tiny_lora_adapter.safetensors");
  std::vector<data::TensorInfo> infos = file.tensors();
  for (auto& info : infos)
    info.name.replace(info.name.find(".proj."), 6, ".model.layers.0.self_attn.q_proj.");
  data::SafetensorsWriter writer(folder.path("adapter_model.safetensors"), infos);
  for (const auto& info : file.tensors()) writer.write(file.bytes(info));
  writer.commit();
  const auto base_file = data::SafetensorsFile::open(shared + "/tiny_lora_base.safetensors");
  const at::Tensor weight = parameters.linears()[0].linear->weight;
  std::memcpy(weight.mutable_data_ptr<float>(), base_file.bytes(base_file.tensors()[0]).data(),
              4 * 5 * sizeof(float));

  const Adapter loaded = load_adapter(config, folder.path());
  EXPECT_DOUBLE_EQ(loaded.config.scaling_of(""), golden["scale"].get<double>());
  parameters.add_adapter("a", loaded);
  parameters.merge_active();
  const float* w = weight.const_data_ptr<float>();
  for (size_t i = 0; i < golden["inputs"].size(); ++i)
    for (int out = 0; out < 4; ++out) {
      double sum = 0;
      for (int in = 0; in < 5; ++in) sum += golden["inputs"][i][in].get<double>() * w[out * 5 + in];
      EXPECT_NEAR(sum, golden["outputs"][i][out].get<double>(), 1e-5);
    }
}

}  // namespace
}  // namespace erank::model
