#include "erank/model/lora.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "erank/base/error.h"
#include "erank/data/safetensors.h"
#include "tests/model/golden.h"
#include "tests/shared_data.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::HasSubstr;

const std::string kAdapter = std::string(ERANK_SOURCE_DIR) + "/tests/golden/model_lora_adapter";

Decoder golden_decoder(const Json& golden, at::ScalarType dtype = at::kFloat) {
  Decoder decoder(ModelConfig::from_json(golden["config"], "golden"), {.dtype = dtype});
  fill_golden(decoder);
  return decoder;
}

double difference(Decoder& decoder, const Json& golden) {
  const at::NoGradGuard no_grad;
  return largest_difference(decoder.forward(whole_batch(golden["ids"]), nullptr), golden["columns"],
                            golden["logits"]);
}

TEST(TinyLora, PeftsAdapterAppliedAndMergedGivesPeftsLogits) {
  const Json golden = read_golden("model_lora.json")["plain"];
  const double tolerance = 1e-5 * golden["max_logit"].get<double>();
  Decoder decoder = golden_decoder(golden);
  EXPECT_GT(difference(decoder, golden), 100 * tolerance);
  const LoraConfig config = load_lora(decoder, kAdapter);
  EXPECT_EQ(config.rank, 4);
  EXPECT_DOUBLE_EQ(config.scaling(), 1.5);
  EXPECT_LE(difference(decoder, golden), tolerance);
  merge_lora(decoder);
  EXPECT_TRUE(lora_parameters(decoder).empty());
  EXPECT_LE(difference(decoder, golden), tolerance);
}

TEST(TinyLora, RankStabilisedScalingIsPefts) {
  const Json golden = read_golden("model_lora.json")["rslora"];
  Decoder decoder = golden_decoder(golden);
  LoraConfig config{.rank = 4,
                    .alpha = 6,
                    .use_rslora = true,
                    .target_modules = {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"}};
  add_lora(decoder, config, 1);
  {
    const at::NoGradGuard no_grad;
    for (auto& [name, tensor] : lora_parameters(decoder))
      tensor.copy_(golden_fill(name, tensor.sizes()));
  }
  EXPECT_LE(difference(decoder, golden), 1e-5 * golden["max_logit"].get<double>());
}

TEST(TinyLora, FreshAdaptersChangeNothingAndTrainEveryTensor) {
  const Json golden = read_golden("model_lora.json")["plain"];
  Decoder plain = golden_decoder(golden), adapted = golden_decoder(golden);
  add_lora(adapted, {.rank = 2, .target_modules = {}}, 7);
  const Batch batch = whole_batch(golden["ids"]);
  {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(plain.forward(batch, nullptr), adapted.forward(batch, nullptr)));
  }
  auto parameters = lora_parameters(adapted);
  ASSERT_EQ(parameters.size(), 2u * 7 * 2);
  EXPECT_EQ(parameters[0].name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(parameters[1].name, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
  const double bound = 1 / std::sqrt(48.0);
  EXPECT_LE(parameters[0].tensor.abs().max().item<double>(), bound);
  EXPECT_GT(parameters[0].tensor.abs().max().item<double>(), 0.9 * bound);
  for (auto& [name, tensor] : parameters) {
    if (name.ends_with("lora_B.weight")) {
      EXPECT_EQ(tensor.abs().max().item<double>(), 0) << name;
    }
    tensor.requires_grad_(true);
  }
  adapted.forward(batch, nullptr).pow(2).sum().backward();
  for (auto& [name, tensor] : parameters) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    if (name.ends_with("lora_B.weight")) {
      EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << name;
    }
  }
}

TEST(TinyLora, WrittenAndReadAgainIsTheSame) {
  const Json golden = read_golden("model_lora.json")["plain"];
  Decoder first = golden_decoder(golden), second = golden_decoder(golden);
  const LoraConfig config = load_lora(first, kAdapter);
  const TestFolder folder;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    // Golden values are exact in bf16.
    save_lora(first, config, folder.path("adapter"), "some/base", dtype);
    const LoraConfig again = load_lora(second, folder.path("adapter"));
    EXPECT_EQ(again.rank, config.rank);
    EXPECT_EQ(again.alpha, config.alpha);
    const auto a = lora_parameters(first), b = lora_parameters(second);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].name, b[i].name);
      EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
    }
    for (const auto& layer : second.linears()) layer.linear->lora.reset();
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
  Decoder decoder = golden_decoder(read_golden("model_lora.json")["plain"]);
  try {
    load_lora(decoder, folder.path());
    return "";
  } catch (const base::Error& e) {
    EXPECT_TRUE(lora_parameters(decoder).empty());
    return e.what();
  }
}

TEST(TinyLora, RefusesKeysThatChangeTheMathsByName) {
  const std::pair<const char*, const char*> cases[] = {{"peft_type", "\"IA3\""},
                                                       {"use_dora", "true"},
                                                       {"rank_pattern", R"({"q_proj": 8})"},
                                                       {"alpha_pattern", R"({"q_proj": 8})"},
                                                       {"modules_to_save", R"(["lm_head"])"},
                                                       {"bias", "\"all\""},
                                                       {"lora_bias", "true"},
                                                       {"fan_in_fan_out", "true"},
                                                       {"layer_replication", "[[0, 2]]"},
                                                       {"target_parameters", R"(["x"])"},
                                                       {"init_lora_weights", "\"pissa\""},
                                                       {"a_new_feature", "3"},
                                                       {"target_modules", "\".*_proj\""},
                                                       {"r", "0"},
                                                       {"lora_dropout", "1.5"}};
  for (const auto& [key, value] : cases) EXPECT_THAT(fault_with(key, value), HasSubstr(key));
  EXPECT_EQ(fault_with("a_new_feature", "null"), "");
  EXPECT_EQ(fault_with("target_modules", "\"all-linear\""), "");
}

TEST(TinyLora, RefusesTensorsThatDoNotFit) {
  EXPECT_THAT(fault_with("r", "8"), HasSubstr("shape [4, 48], expected [8, 48]"));
  EXPECT_THAT(fault_with("target_modules", R"(["q_proj", "k_proj"])"),
              HasSubstr("no tensors for layer 'model.layers.0.self_attn.k_proj'"));
  // A model of fewer layers has no place for the second layer's adapter.
  ModelConfig small =
      ModelConfig::from_json(read_golden("model_lora.json")["plain"]["config"], "golden");
  small.num_hidden_layers = 1;
  Decoder decoder(small, {});
  try {
    load_lora(decoder, kAdapter);
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("layers.1"));
  }
  EXPECT_TRUE(lora_parameters(decoder).empty());
  EXPECT_THROW(add_lora(decoder, {.target_modules = {"query"}}, 1), base::Error);
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
  Decoder decoder(config, {});
  decoder.init_random(1);

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
  at::Tensor& weight = decoder.linears()[0].linear->weight;
  std::memcpy(weight.mutable_data_ptr<float>(), base_file.bytes(base_file.tensors()[0]).data(),
              4 * 5 * sizeof(float));

  EXPECT_DOUBLE_EQ(load_lora(decoder, folder.path()).scaling(), golden["scale"].get<double>());
  merge_lora(decoder);
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
