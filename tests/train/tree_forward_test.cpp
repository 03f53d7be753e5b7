// The differentiable forward against transformers' numbers, and what sequences share against
// sequences on their own.
#include "erank/train/tree_forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "erank/base/error.h"
#include "erank/model/lora.h"
#include "erank/model/tensor_file.h"
#include "erank/model/weights.h"
#include "tests/model/golden.h"
#include "tests/shared_data.h"
#include "tests/train/gradients.h"
#include "tests/train/trees.h"

namespace erank::train {
namespace {

using model::Family;
using model::golden_fill;
using model::largest_difference;
using model::Parameters;
using ::testing::HasSubstr;

const std::string kAdapter = std::string(ERANK_SOURCE_DIR) + "/tests/golden/model_lora_adapter";

std::unique_ptr<Parameters> golden_parameters(const base::Json& golden,
                                              at::ScalarType dtype = at::kFloat) {
  auto parameters = std::make_unique<Parameters>(
      model::ModelConfig::from_json(golden["config"], "golden"), dtype);
  model::fill_golden(*parameters);
  return parameters;
}

class TreeForwardGolden : public ::testing::TestWithParam<std::string> {
 protected:
  base::Json golden_ = model::read_golden("model_families.json")[GetParam()];
  TreeBatch batch_ = whole_batch(golden_["ids"]);
  double max_logit_ = golden_["max_logit"].get<double>();

  double difference(const at::Tensor& logits) const {
    return largest_difference(logits, golden_["columns"], golden_["logits"]);
  }
};

TEST_P(TreeForwardGolden, LogitsEqualTransformersWithAndWithoutGradients) {
  const auto parameters = golden_parameters(golden_);
  TreeForward forward(*parameters);
  at::Tensor without;
  {
    const at::NoGradGuard no_grad;
    without = forward.forward(batch_);
  }
  EXPECT_LE(difference(without), 1e-5 * max_logit_);
  for (const auto& [name, tensor] : parameters->named()) tensor.set_requires_grad(true);
  const at::Tensor with = forward.forward(batch_).detach();
  EXPECT_LE(difference(with), 1e-5 * max_logit_);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(forward.forward(batch_), with));
}

TEST_P(TreeForwardGolden, Bf16LogitsAreNear) {
  const auto parameters = golden_parameters(golden_, at::kBFloat16);
  const at::NoGradGuard no_grad;
  EXPECT_LE(difference(TreeForward(*parameters).forward(batch_)), 1e-2 * max_logit_);
}

TEST_P(TreeForwardGolden, AHeadInFp32DoesNotRoundItsLogits) {
  const auto parameters = golden_parameters(golden_, at::kBFloat16);
  for (const auto& [name, tensor] : parameters->named()) tensor.set_requires_grad(true);
  TreeForward forward(*parameters);
  const at::Tensor weight = parameters->lm_head().weight, hidden = forward.hidden(batch_).detach();
  const at::Tensor rounded = forward.logits(hidden);
  forward.set_head_fp32(true);
  const at::Tensor logits = forward.logits(hidden);
  EXPECT_TRUE(at::equal(rounded, rounded.to(at::kBFloat16).to(at::kFloat)));
  const at::Tensor exact = hidden.to(at::kDouble).matmul(weight.detach().to(at::kDouble).t());
  const double scale = exact.abs().max().item<double>();
  EXPECT_LT((logits - exact).abs().max().item<double>(), 1e-5 * scale);
  EXPECT_GT((rounded - exact).abs().max().item<double>(), 1e-4 * scale);
  logits.sum().backward();
  EXPECT_EQ(weight.grad().scalar_type(), at::kBFloat16);
  EXPECT_LT((weight.grad()[0] - hidden.to(at::kFloat).sum(0)).abs().max().item<double>(),
            1e-2 * hidden.to(at::kFloat).sum(0).abs().max().item<double>());
  // So do log-probabilities of a frozen head, which keep no logits.
  parameters->lm_head().weight.set_requires_grad(false);
  const at::Tensor rows = at::arange(hidden.size(0)), tokens = at::zeros_like(rows);
  const at::Tensor expected = at::log_softmax(exact, 1).select(1, 0);
  EXPECT_LT((forward.log_probs(hidden, rows, tokens) - expected).abs().max().item<double>(),
            1e-5 * scale);
  // What is fp32 already has the same bits.
  const auto single = golden_parameters(golden_);
  TreeForward plain(*single);
  const at::NoGradGuard no_grad;
  const at::Tensor before = plain.forward(batch_);
  plain.set_head_fp32(true);
  EXPECT_TRUE(at::equal(plain.forward(batch_), before));
}

TEST_P(TreeForwardGolden, GradientsOfEveryParameterEqualTransformers) {
  const auto owner = golden_parameters(golden_);
  auto parameters = owner->named();
  for (auto& [name, tensor] : parameters) tensor.requires_grad_(true);
  std::vector<int64_t> targets;
  for (const auto& list : golden_["targets"])
    for (const auto& id : list) targets.push_back(id.get<int64_t>());
  at::Tensor target = at::empty({static_cast<int64_t>(targets.size())}, at::dtype(at::kLong));
  std::copy(targets.begin(), targets.end(), target.mutable_data_ptr<int64_t>());
  const at::Tensor loss = at::cross_entropy_loss(TreeForward(*owner).forward(batch_), target);
  EXPECT_NEAR(loss.item<double>(), golden_["loss"].get<double>(),
              1e-5 * golden_["loss"].get<double>());
  loss.backward();
  ASSERT_EQ(parameters.size(), golden_["gradients"].size());
  for (const auto& [name, tensor] : parameters) {
    ASSERT_TRUE(golden_["gradients"].contains(name)) << name;
    ASSERT_TRUE(tensor.grad().defined()) << name;
    const base::Json& expected = golden_["gradients"][name];
    const at::Tensor gradient = tensor.grad().contiguous();
    const float* values = gradient.const_data_ptr<float>();
    const double largest = expected["max"].get<double>();
    double norm = 0;
    for (int64_t i = 0; i < gradient.numel(); ++i) norm += double{values[i]} * values[i];
    EXPECT_NEAR(std::sqrt(norm), expected["norm"].get<double>(),
                2e-5 * expected["norm"].get<double>())
        << name;
    for (size_t i = 0; i < expected["at"].size(); ++i)
      EXPECT_NEAR(values[expected["at"][i].get<int64_t>()], expected["values"][i].get<double>(),
                  2e-5 * largest)
          << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, TreeForwardGolden,
                         ::testing::Values("llama_untied_gqa_wide_heads", "llama_tied_biased",
                                           "qwen2_untied_gqa", "qwen2_tied",
                                           "qwen3_untied_gqa_wide_heads",
                                           "qwen3_tied_biased_narrow_heads"),
                         [](const auto& info) { return info.param; });

// Rotary embeddings that are scaled for long texts, and sliding windows; by our own kernels and by
// libtorch's.
TEST(TreeForwardLong, LogitsEqualTransformers) {
  const base::Json golden = model::read_golden("model_long.json");
  const at::NoGradGuard no_grad;
  for (const auto& [name, one] : golden["cases"].items())
    for (const bool own : {true, false}) {
      SCOPED_TRACE(name);
      Parameters parameters(model::ModelConfig::from_json(one["given"], name), at::kFloat);
      model::fill_golden(parameters);
      TreeForward forward(parameters, own);
      for (const auto& [place, text] : one["texts"].items())
        EXPECT_LE(
            largest_difference(forward.forward(whole_batch(base::Json::array({text["ids"]}))),
                               one["columns"], text["rows"], golden["rows_apart"].get<int64_t>()),
            1e-5 * text["max_logit"].get<double>())
            << place;
    }
}

// Checkpoints that others made, with logits that others computed in float64.
class TreeForwardStored : public ::testing::TestWithParam<std::string> {};

TEST_P(TreeForwardStored, LogitsEqualTheStoredOnes) {
  const std::string folder = erank::testing::shared_data("model-fixtures/" + GetParam());
  if (folder.empty()) GTEST_SKIP() << "model-fixtures/" << GetParam() << " is not there";
  const base::Json golden =
      base::parse_json(base::read_file(folder + "/logits.json"), "logits.json");
  const auto parameters = model::load_parameters(folder, at::kFloat);
  TreeForward forward(*parameters);
  const at::NoGradGuard no_grad;
  base::Json columns = base::Json::array();
  for (int64_t i = 0; i < parameters->config().vocab_size; ++i) columns.push_back(i);
  for (size_t i = 0; i < golden["sequences"].size(); ++i) {
    double largest = 0;
    for (const auto& row : golden["logits"][i])
      for (const auto& value : row) largest = std::max(largest, std::abs(value.get<double>()));
    const at::Tensor logits =
        forward.forward(whole_batch(base::Json::array({golden["sequences"][i]})));
    EXPECT_LE(largest_difference(logits, columns, golden["logits"][i]), 1e-5 * largest) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, TreeForwardStored,
                         ::testing::Values("tiny-qwen3-f32", "tiny-llama-f32"),
                         [](const auto& info) {
                           return info.param == "tiny-qwen3-f32" ? "Qwen3" : "Llama";
                         });

model::ModelConfig tree_config(Family family) {
  model::ModelConfig c;
  c.family = family;
  c.hidden_size = 48, c.intermediate_size = 80, c.num_hidden_layers = 2;
  c.num_attention_heads = 6, c.num_key_value_heads = 2, c.head_dim = 32;
  c.vocab_size = 97, c.max_position_embeddings = 512;
  c.rope_theta = 10000, c.rms_norm_eps = 1e-6;
  c.tie_word_embeddings = true;
  c.qkv_bias = family == Family::kQwen2;
  c.qk_norm = family == Family::kQwen3;
  return c;
}

// Parameters of golden values with an adapter on top whose tensors require gradients.
struct Adapted {
  Parameters parameters;
  std::vector<at::Tensor> inputs;

  Adapted(Family family, double dropout = 0) : parameters(tree_config(family), at::kFloat) {
    model::fill_golden(parameters);
    parameters.add_adapter(
        "a", model::make_adapter(parameters.config(),
                                 {.rank = 4, .dropout = dropout, .target_modules = {}}, 3));
    const at::NoGradGuard no_grad;
    for (auto& p : parameters.adapter("a")->named()) {
      if (p.name.find("lora_B") != std::string::npos)
        p.tensor.copy_(golden_fill(p.name, p.tensor.sizes()) * 0.1);
      inputs.push_back(p.tensor.requires_grad_(true));
    }
  }
};

// Three levels: a query, its passages, their answers; sequences on their own beside them.
TreeBatch three_levels() {
  return tree_batch(
      {{-1, 23}, {0, 17}, {0, 40}, {1, 3}, {1, 9}, {2, 1}, {-1, 12}, {6, 5}, {-1, 1}, {8, 70}});
}

TEST(TinySharedPrefixes, GiveTheLogitsAndGradientsOfSequencesOnTheirOwn) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    Adapted adapted(family);
    TreeForward forward(adapted.parameters);
    const TreeBatch batch = three_levels();
    const at::Tensor out = at::randn({static_cast<int64_t>(batch.rows.size()), 97});
    const at::Tensor shared = forward.forward(batch);
    const auto found = gradients(shared, out, adapted.inputs);
    const at::Tensor separate = forward.forward(on_their_own(batch));
    EXPECT_LT(relative_error(shared, separate), 1e-5);
    const auto expected = gradients(separate, out, adapted.inputs);
    for (size_t i = 0; i < found.size(); ++i)
      EXPECT_LT(relative_error(found[i], expected[i]), 1e-4) << i;

    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(forward.forward(batch), shared));
  }
}

// What other devices compute with.
TEST(TinySharedPrefixes, AreTheSameByLibtorchsOperations) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    Adapted adapted(family);
    TreeForward own(adapted.parameters), reference(adapted.parameters, false);
    const TreeBatch batch = three_levels();
    const at::Tensor out = at::randn({static_cast<int64_t>(batch.rows.size()), 97});
    const at::Tensor found = own.forward(batch), expected = reference.forward(batch);
    EXPECT_LT(relative_error(found, expected), 1e-5);
    const auto gradient = gradients(found, out, adapted.inputs),
               expected_gradient = gradients(expected, out, adapted.inputs);
    for (size_t i = 0; i < gradient.size(); ++i)
      EXPECT_LT(relative_error(gradient[i], expected_gradient[i]), 1e-4) << i;
  }
}

// What training is measured against (a KL term's reference) is the same object without its adapter.
TEST(TinyTreeForward, WithoutAnActiveAdapterItIsTheBase) {
  Adapted adapted(Family::kQwen3);
  Parameters base(tree_config(Family::kQwen3), at::kFloat);
  model::fill_golden(base);
  TreeForward forward(adapted.parameters), base_forward(base);
  const TreeBatch batch = three_levels();
  const at::NoGradGuard no_grad;
  const at::Tensor expected = base_forward.forward(batch), with = forward.forward(batch);
  EXPECT_FALSE(at::equal(with, expected));
  adapted.parameters.activate("");
  EXPECT_TRUE(at::equal(forward.forward(batch), expected));
  adapted.parameters.activate("a");
  EXPECT_TRUE(at::equal(forward.forward(batch), with));
}

TEST(TinyTreeForward, DropoutIsForTrainingAlone) {
  Adapted adapted(Family::kLlama, 0.5);
  TreeForward forward(adapted.parameters);
  const TreeBatch batch = three_levels();
  const at::NoGradGuard no_grad;
  const at::Tensor off = forward.forward(batch);
  EXPECT_TRUE(at::equal(forward.forward(batch), off));
  forward.set_training(true);
  const at::Tensor first = forward.forward(batch);
  EXPECT_FALSE(at::equal(first, off));
  EXPECT_FALSE(at::equal(forward.forward(batch), first));
  forward.set_training(false);
  EXPECT_TRUE(at::equal(forward.forward(batch), off));
}

// RoPE tables that inference makes first must not be in backward's way.
TEST(TinyTreeForward, BackwardWorksAfterInferenceModeOnTheSameObject) {
  for (const bool full : {false, true}) {
    Adapted adapted(Family::kQwen3);
    if (full) adapted.parameters.activate("");
    TreeForward forward(adapted.parameters);
    const TreeBatch batch = three_levels();
    at::Tensor inferred;
    {
      const c10::InferenceMode guard;
      inferred = forward.forward(batch);
      EXPECT_TRUE(inferred.is_inference());
    }
    std::vector<at::Tensor> inputs = adapted.inputs;
    if (full) {
      inputs.clear();
      for (const auto& p : adapted.parameters.named())
        inputs.push_back(p.tensor.set_requires_grad(true));
    }
    const at::Tensor logits = forward.forward(batch);
    EXPECT_LT(relative_error(logits, inferred), 1e-5);
    for (const at::Tensor& gradient : gradients(logits, at::randn(logits.sizes()), inputs))
      EXPECT_GT(gradient.abs().max().item<double>(), 0);
  }
}

TEST(TinyTreeForward, BatchesThatContradictThemselvesAreMistakes) {
  Adapted adapted(Family::kLlama);
  TreeForward forward(adapted.parameters);
  const auto refuses = [&](const std::function<void(TreeBatch&)>& spoil) {
    TreeBatch batch = tree_batch({{-1, 5}, {0, 3}});
    spoil(batch);
    EXPECT_THROW(forward.hidden(batch), base::InternalError);
  };
  refuses([](TreeBatch& b) { b.tokens[2] = 97; });
  refuses([](TreeBatch& b) { b.positions[6] = 2; });
  refuses([](TreeBatch& b) { b.parents[0] = 1; });
  refuses([](TreeBatch& b) { b.parents.pop_back(); });
  refuses([](TreeBatch& b) { b.rows.clear(); });
  refuses([](TreeBatch& b) { b.rows.back() = 8; });
  refuses([](TreeBatch& b) { b.starts[1] = 9; });
}

double difference(Parameters& parameters, const base::Json& golden) {
  const at::NoGradGuard no_grad;
  return largest_difference(TreeForward(parameters).forward(whole_batch(golden["ids"])),
                            golden["columns"], golden["logits"]);
}

TEST(TinyAppliedLora, PeftsAdapterAppliedGivesPeftsLogits) {
  const base::Json golden = model::read_golden("model_lora.json")["plain"];
  const double tolerance = 1e-5 * golden["max_logit"].get<double>();
  const auto parameters = golden_parameters(golden);
  EXPECT_GT(difference(*parameters, golden), 100 * tolerance);
  parameters->add_adapter("peft", model::load_adapter(parameters->config(), kAdapter));
  EXPECT_LE(difference(*parameters, golden), tolerance);
  parameters->activate("");
  EXPECT_GT(difference(*parameters, golden), 100 * tolerance);
}

// Ranks and factors of their own, layer by layer, and some layers without an adapter.
TEST(TinyAppliedLora, PatternsAppliedGivePeftsLogits) {
  const base::Json all = model::read_golden("model_adapters.json");
  for (const char* name : {"patterns", "regex"}) {
    const base::Json& golden = all[name];
    const TestFolder folder;
    folder.write("adapter_config.json", golden["adapter"].dump());
    std::vector<model::NamedTensor> tensors;
    for (const base::Json& record : golden["tensors"])
      tensors.push_back(
          {record["name"],
           model::golden_fill(record["name"], record["shape"].get<std::vector<int64_t>>())});
    model::save_tensors(folder.path("adapter_model.safetensors"), tensors, at::kFloat);
    const auto parameters = golden_parameters(golden);
    parameters->add_adapter("peft", model::load_adapter(parameters->config(), folder.path()));
    EXPECT_LE(difference(*parameters, golden), 1e-5 * golden["max_logit"].get<double>()) << name;
  }
}

TEST(TinyAppliedLora, RankStabilisedScalingIsPefts) {
  const base::Json golden = model::read_golden("model_lora.json")["rslora"];
  const auto parameters = golden_parameters(golden);
  const model::LoraConfig config{
      .rank = 4,
      .alpha = 6,
      .use_rslora = true,
      .target_modules = {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"}};
  parameters->add_adapter("a", model::make_adapter(parameters->config(), config, 1));
  model::fill_golden(parameters->adapter("a")->named());
  EXPECT_LE(difference(*parameters, golden), 1e-5 * golden["max_logit"].get<double>());
}

TEST(TinyAppliedLora, FreshAdaptersChangeNothingAndTrainEveryTensor) {
  const base::Json golden = model::read_golden("model_lora.json")["plain"];
  const auto base = golden_parameters(golden), adapted = golden_parameters(golden);
  adapted->add_adapter(
      "a", model::make_adapter(adapted->config(), {.rank = 2, .target_modules = {}}, 7));
  const TreeBatch batch = whole_batch(golden["ids"]);
  TreeForward base_forward(*base), forward(*adapted);
  {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(base_forward.forward(batch), forward.forward(batch)));
  }
  auto parameters = adapted->adapter("a")->named();
  for (auto& p : parameters) p.tensor.requires_grad_(true);
  forward.forward(batch).pow(2).sum().backward();
  for (const auto& [name, tensor] : parameters) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    if (name.ends_with("lora_B.weight")) {
      EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << name;
    }
  }
}

}  // namespace
}  // namespace erank::train
