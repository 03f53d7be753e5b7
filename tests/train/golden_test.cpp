// Ten steps of training against transformers, peft and torch's AdamW (tools/make_train_golden.py),
// which see each sequence alone and padded; ours are packed and share their queries.
#include "tests/model/golden.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/norm.h>
#include <gtest/gtest.h>

#include "erank/model/lora.h"
#include "erank/model/tensor_file.h"
#include "erank/train/loss.h"
#include "erank/train/optimizer.h"
#include "erank/train/packing.h"
#include "erank/train/schedule.h"
#include "erank/train/tree_forward.h"

namespace erank::train {
namespace {

constexpr double kTolerance = 1e-4;

std::vector<Example> examples_of(const base::Json& group) {
  std::vector<Example> examples;
  for (const auto& json : group) {
    Example& example = examples.emplace_back();
    example.prompt = json["prompt"].get<text::Ids>();
    for (const auto& stored : json["branches"]) {
      Branch& branch = example.branches.emplace_back();
      branch.ids = stored["ids"].get<text::Ids>();
      const auto n = static_cast<int32_t>(branch.ids.size());
      for (int32_t row = n - stored["learned"].get<int32_t>(); row < n; ++row)
        branch.terms.push_back({row, branch.ids[row]});
      branch.num_learned = stored["learned"].get<int64_t>();
      branch.ids.pop_back();
    }
  }
  return examples;
}

class TinyTrainingGolden : public ::testing::Test {
 protected:
  // Trains `parameters` as the run `name` was, and compares its losses and norms.
  void expect_run(const std::string& name, const model::Parameters& model,
                  const std::vector<model::NamedTensor>& parameters, int64_t max_tokens) {
    TreeForward forward(model);
    const base::Json& o = golden_["options"];
    const Schedule schedule{
        .peak = o["peak"], .warmup_ratio = o["warmup_ratio"], .floor_ratio = o["floor_ratio"]};
    AdamW optimizer(parameters, {.beta1 = o["beta1"],
                                 .beta2 = o["beta2"],
                                 .weight_decay = o["weight_decay"],
                                 .clip_norm = o["clip_norm"]});
    const Weighting weighting =
        name.ends_with("tokens") ? Weighting::kTokens : Weighting::kExamples;
    const base::Json& run = golden_["runs"][name];
    const auto steps = std::ssize(run["losses"]);
    ASSERT_EQ(steps, 10);
    for (int64_t step = 0; step < steps; ++step) {
      const base::Json& batch = golden_["batches"][step % golden_["batches"].size()];
      std::vector<std::vector<Example>> examples;
      for (const auto& group : batch) examples.push_back(examples_of(group));
      std::vector<Group> groups;
      for (const auto& group : examples) {
        groups.emplace_back();
        for (const Example& example : group) groups.back().push_back(&example);
      }
      double loss = 0;
      for (const MicroBatch& micro : pack(groups, {weighting, max_tokens})) {
        const at::Tensor part = answer_loss(forward.forward(micro.batch), micro.terms);
        loss += part.item<double>();
        optimizer.backward(part);
      }
      const double norm = optimizer.step(learning_rate(schedule, step, steps));
      const double expected_loss = run["losses"][step], expected_norm = run["norms"][step];
      EXPECT_NEAR(loss, expected_loss, kTolerance * expected_loss) << name << " step " << step;
      EXPECT_NEAR(norm, expected_norm, kTolerance * expected_norm) << name << " step " << step;
    }
  }

  base::Json golden_ = model::read_golden("train_sft.json");
  model::ModelConfig config_ = model::ModelConfig::from_json(golden_["config"], "train_sft.json");
  TinyTrainingGolden() { config_.max_position_embeddings = 256; }  // passes are padded
};

TEST_F(TinyTrainingGolden, AnAdaptersLossesNormsAndWeightsArePefts) {
  for (const std::string weighting : {"examples", "tokens"})
    for (const int64_t max_tokens : {40, 4096}) {
      model::Parameters model(config_, at::kFloat);
      model::fill_golden(model);
      model.add_adapter("a", model::make_adapter(config_,
                                                 {.rank = golden_["options"]["rank"],
                                                  .alpha = golden_["options"]["alpha"],
                                                  .target_modules = {}},
                                                 1));
      const auto parameters = model.adapter("a")->named();
      model::fill_golden(parameters);
      expect_run("adapter_" + weighting, model, parameters, max_tokens);
      if (weighting != "examples") continue;
      std::vector<model::NamedTensor> expected;
      for (const auto& p : parameters) expected.push_back({p.name, at::empty_like(p.tensor)});
      model::load_tensors(std::string(ERANK_SOURCE_DIR) + "/tests/golden/train_sft.safetensors",
                          expected);
      for (size_t i = 0; i < expected.size(); ++i) {
        const at::Tensor moved =
            expected[i].tensor - model::golden_fill(expected[i].name, expected[i].tensor.sizes());
        EXPECT_GT(moved.norm().item<double>(), 100 * kTolerance);
        EXPECT_LT((parameters[i].tensor.detach() - expected[i].tensor).norm().item<double>(),
                  kTolerance * expected[i].tensor.norm().item<double>())
            << expected[i].name;
      }
    }
}

TEST_F(TinyTrainingGolden, TheLossesAndNormsOfTrainingEveryParameterAreTransformers) {
  for (const std::string weighting : {"examples", "tokens"}) {
    model::Parameters model(config_, at::kFloat);
    model::fill_golden(model);
    expect_run("full_" + weighting, model, model.named(), 4096);
  }
}

}  // namespace
}  // namespace erank::train
