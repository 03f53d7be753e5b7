#include "erank/model/peft_folder.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "erank/base/error.h"
#include "erank/model/lora.h"
#include "erank/model/make_network.h"
#include "erank/model/tensor_file.h"
#include "erank/model/weights.h"
#include "tests/model/golden.h"
#include "tests/model/passes.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::HasSubstr;

// The adapters that tools/make_model_golden.py had peft write, with the values that it had peft
// read again.
class PeftAdapters : public ::testing::TestWithParam<std::string> {
 protected:
  // Writes the base model and the adapter; `spoil` may change a tensor before.
  void write(
      const std::string& name,
      const std::function<void(NamedTensor&)>& spoil = [](NamedTensor&) {}) {
    golden_ = read_golden("model_adapters.json")[name];
    base_ = ModelConfig::from_json(golden_["config"], "golden");
    Parameters parameters(base_, at::kFloat);
    fill_golden(parameters);
    save_weights(parameters, folder_.path("base"));
    folder_.write("adapter/adapter_config.json", golden_["adapter"].dump());
    std::vector<NamedTensor> tensors;
    for (const Json& record : golden_["tensors"]) {
      NamedTensor tensor{record["name"], values_of(record)};
      spoil(tensor);
      tensors.push_back(std::move(tensor));
    }
    save_tensors(adapter() + "/adapter_model.safetensors", tensors, at::kFloat);
  }

  at::Tensor values_of(const Json& record) {
    const auto shape = record["shape"].get<std::vector<int64_t>>();
    if (record.contains("base")) return golden_fill(record["base"], shape);
    if (!record.contains("like"))
      return golden_fill(record["name"], shape) * record["scale"].get<double>();
    if (!record["transposed"].get<bool>()) return golden_fill(record["like"], shape);
    return golden_fill(record["like"], {shape[1], shape[0]}).t().contiguous();
  }

  std::string adapter() const { return folder_.path("adapter"); }
  CheckpointSource source() const {
    return CheckpointSource::open(folder_.path("base"), adapter());
  }

  double difference(const WeightSource& source) const {
    const auto network = make_network(source, {.precision = Precision::kFp32});
    return largest_difference(
        whole_pass(*network, golden_["ids"].get<std::vector<std::vector<int32_t>>>()),
        golden_["columns"], golden_["logits"]);
  }
  double tolerance() const { return 1e-5 * golden_["max_logit"].get<double>(); }

  std::string fault() const {
    try {
      source();
      return "";
    } catch (const base::Error& e) {
      return e.what();
    }
  }

  const TestFolder folder_;
  Json golden_;
  ModelConfig base_;
};

TEST_P(PeftAdapters, ServedAndMergedGivePeftsLogits) {
  write(GetParam());
  EXPECT_GT(difference(CheckpointSource::open(folder_.path("base"))), 100 * tolerance());
  EXPECT_LE(difference(source()), tolerance());
  const CheckpointSource merged = source();
  Parameters parameters(merged.config(), at::kFloat);
  load_weights(parameters, merged);
  save_weights(parameters, folder_.path("merged"));
  EXPECT_LE(difference(CheckpointSource::open(folder_.path("merged"))), tolerance());
}

TEST_P(PeftAdapters, WhatCannotBeTrainedOnIsNamed) {
  write(GetParam());
  const std::map<std::string, const char*> more = {
      {"dora", "DoRA of "},
      {"bias_all", "self_attn.k_proj.bias and "},
      {"bias_lora_only", "q_proj.bias"},
      {"saved", "lm_head.weight and "},
      {"saved_embedding_of_tied", "model.embed_tokens.weight"},
      {"saved_both_of_tied", "lm_head.weight and 1 more"},
      {"saved_and_tied", "model.embed_tokens.weight"},
      {"embedding_and_head", "LoRA of model.embed_tokens"},
      {"embedding_of_tied", "LoRA of model.embed_tokens"},
      {"head_of_tied", "LoRA of lm_head"},
      {"embedding_and_tied", "LoRA of model.embed_tokens"},
      {"tokens", "rows of lm_head.weight and 1 more"},
      {"tokens_of_tied", "rows of model.embed_tokens.weight"}};
  const auto expected = more.find(GetParam());
  if (expected == more.end()) {  // LoRA alone: written and read again it is the same
    const Adapter first = load_adapter(base_, adapter());
    save_adapter(first, folder_.path("again"), "base", at::kFloat);
    const Adapter second = load_adapter(base_, folder_.path("again"));
    ASSERT_EQ(first.layers.size(), second.layers.size());
    for (size_t i = 0; i < first.layers.size(); ++i) {
      EXPECT_EQ(first.layers[i].name, second.layers[i].name);
      EXPECT_EQ(first.layers[i].lora.scaling, second.layers[i].lora.scaling);
      EXPECT_TRUE(at::equal(first.layers[i].lora.a, second.layers[i].lora.a));
    }
    EXPECT_EQ(first.config.ranks, second.config.ranks);
    return;
  }
  try {
    load_adapter(base_, adapter());
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(expected->second));
    EXPECT_THAT(e.what(), HasSubstr("erank model merge"));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, PeftAdapters,
                         ::testing::Values("patterns", "regex", "dora", "bias_all",
                                           "bias_lora_only", "saved", "saved_embedding_of_tied",
                                           "saved_both_of_tied", "saved_and_tied",
                                           "embedding_and_head", "embedding_of_tied",
                                           "head_of_tied", "embedding_and_tied", "tokens",
                                           "tokens_of_tied"),
                         [](const auto& info) { return info.param; });

using PeftFolders = PeftAdapters;

TEST_F(PeftFolders, OnlyWhatDiffersUntiesAModel) {
  for (const char* name :
       {"saved_embedding_of_tied", "saved_both_of_tied", "embedding_of_tied", "head_of_tied"}) {
    write(name);
    EXPECT_FALSE(source().config().tie_word_embeddings) << name;
  }
  for (const char* name : {"saved_and_tied", "embedding_and_tied", "tokens_of_tied"}) {
    write(name);
    EXPECT_TRUE(source().config().tie_word_embeddings) << name;
  }
}

TEST_F(PeftFolders, ACopyOfTheBaseMustBeEqual) {
  const auto spoil = [](NamedTensor& tensor) {
    if (tensor.name.ends_with("embed_tokens.base_layer.weight")) tensor.tensor[5][7] += 0.5;
  };
  write("embedding_and_head", spoil);
  EXPECT_THAT(fault(), HasSubstr("embed_tokens.base_layer.weight' is a copy of the base"));
  // A copy under the table's own name, which no key speaks of, is one too.
  write("patterns");
  std::vector<NamedTensor> tensors;
  for (const Json& record : golden_["tensors"])
    tensors.push_back({record["name"], values_of(record)});
  tensors.push_back({"base_model.model.lm_head.weight", golden_fill("lm_head.weight", {97, 48})});
  save_tensors(adapter() + "/adapter_model.safetensors", tensors, at::kBFloat16);
  EXPECT_EQ(fault(), "");
  EXPECT_LE(difference(source()), tolerance());
  tensors.back().tensor = golden_fill("another", {97, 48});
  save_tensors(adapter() + "/adapter_model.safetensors", tensors, at::kFloat);
  EXPECT_THAT(fault(), HasSubstr("lm_head.weight' is a copy of the base"));
  tensors.back().tensor = golden_fill("another", {99, 48});
  save_tensors(adapter() + "/adapter_model.safetensors", tensors, at::kFloat);
  EXPECT_THAT(fault(), HasSubstr("has 99 rows, the base model 97"));
}

TEST_F(PeftFolders, ResolvesItsPatternsOnTheFilesLayers) {
  write("patterns");
  const LoraConfig config = read_lora_config(adapter());
  EXPECT_EQ(config.rank_of("model.layers.0.self_attn.v_proj"), 2);
  EXPECT_EQ(config.rank_of("model.layers.1.mlp.up_proj"), 6);  // the first pattern that matches
  EXPECT_EQ(config.rank_of("model.layers.0.mlp.up_proj"), 1);
  EXPECT_EQ(config.rank_of("model.layers.0.mlp.gate_proj"), 4);
  EXPECT_DOUBLE_EQ(config.scaling_of("model.layers.0.self_attn.q_proj"), 9 / std::sqrt(4.0));
  EXPECT_DOUBLE_EQ(config.scaling_of("model.layers.1.mlp.up_proj"), 5 / std::sqrt(6.0));
  write("regex");
  const LoraConfig some = read_lora_config(adapter());
  EXPECT_TRUE(some.targets("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(some.targets("model.layers.1.self_attn.q_proj"));
}

TEST_F(PeftFolders, NamesWhatItsTensorsLackOrHoldTooMuch) {
  const auto without = [](const char* part) {
    return [part](NamedTensor& tensor) {
      if (tensor.name.find(part) != std::string::npos) tensor.name = "base_model.model.x.weight";
    };
  };
  write("dora", without("layers.0.self_attn.v_proj.lora_magnitude_vector"));
  EXPECT_THAT(fault(), HasSubstr("tensor 'base_model.model.x.weight' has no place"));
  write("tokens");
  Json config = golden_["adapter"];
  config["trainable_token_indices"]["embed_tokens"] = {3, 97};
  folder_.write("adapter/adapter_config.json", config.dump());
  EXPECT_THAT(fault(), HasSubstr("hold 97, the vocabulary has 97 tokens"));
  config["trainable_token_indices"]["embed_tokens"] = {3, 3};
  folder_.write("adapter/adapter_config.json", config.dump());
  EXPECT_THAT(fault(), HasSubstr("name a token twice"));
  config["trainable_token_indices"] = nullptr;
  folder_.write("adapter/adapter_config.json", config.dump());
  EXPECT_THAT(fault(), HasSubstr("trainable_tokens_delta' is none that"));
  write("saved");
  config = golden_["adapter"];
  config["modules_to_save"].push_back("gate_proj");
  folder_.write("adapter/adapter_config.json", config.dump());
  EXPECT_THAT(fault(), HasSubstr("no tensor of 'gate_proj'"));
}

// What peft saves of a module that others are in, by either of the names that writers give it.
TEST_F(PeftFolders, TakesWholeModulesToSave) {
  write("saved");
  Json config = golden_["adapter"];
  config["modules_to_save"] = {"layers.1.mlp", "norm"};
  config["target_modules"] = nullptr;
  folder_.write("adapter/adapter_config.json", config.dump());
  const auto shapes = parameter_shapes(base_);
  for (const std::string inside : {"", ".modules_to_save.default"}) {
    std::vector<NamedTensor> tensors;
    std::set<std::string> saved;
    for (const auto& [name, shape] : shapes) {
      const size_t last = name.find(".", name.find(".mlp") + 1);
      if (name.starts_with("model.layers.1.mlp."))
        tensors.push_back({"base_model.model." + name.substr(0, last) + inside + name.substr(last),
                           golden_fill(name, shape) + 1});
      else if (name.ends_with("norm.weight"))
        tensors.push_back({"base_model.model." + name, golden_fill(name, shape) + 1});
      else
        continue;
      saved.insert(name);
    }
    save_tensors(adapter() + "/adapter_model.safetensors", tensors, at::kFloat);
    const PeftFolder folder = PeftFolder::open(base_, adapter());
    std::set<std::string> found;
    for (const auto& [name, entry] : folder.replaced) found.insert(name);
    EXPECT_EQ(found, saved);
    EXPECT_TRUE(folder.copies.empty());
  }
  config["modules_to_save"] = {"layers.0.mlp", "norm"};  // then the others are copies of the base's
  folder_.write("adapter/adapter_config.json", config.dump());
  EXPECT_THAT(fault(), HasSubstr("no tensor of 'layers.0.mlp'"));
}

}  // namespace
}  // namespace erank::model
