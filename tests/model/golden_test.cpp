#include "tests/model/golden.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/topk.h>
#include <gtest/gtest.h>

#include <map>

#include "erank/base/files.h"
#include "erank/model/weights.h"
#include "tests/shared_data.h"

namespace erank::model {
namespace {

class Golden : public ::testing::TestWithParam<std::string> {
 protected:
  base::Json golden_ = read_golden("model_families.json")[GetParam()];
  Batch batch_ = whole_batch(golden_["ids"]);
  double max_logit_ = golden_["max_logit"].get<double>();
  Decoder decoder(at::ScalarType dtype, bool deterministic = false) const {
    Decoder decoder(ModelConfig::from_json(golden_["config"], GetParam()),
                    {.dtype = dtype, .deterministic = deterministic});
    fill_golden(decoder);
    return decoder;
  }
};

TEST_P(Golden, LogitsEqualTransformers) {
  Decoder model = decoder(at::kFloat);
  {
    const at::NoGradGuard no_grad;
    EXPECT_LE(
        largest_difference(model.forward(batch_, nullptr), golden_["columns"], golden_["logits"]),
        1e-5 * max_logit_)
        << "serving";
  }
  EXPECT_LE(largest_difference(model.forward(batch_, nullptr).detach(), golden_["columns"],
                               golden_["logits"]),
            1e-5 * max_logit_)
      << "training";
}

TEST_P(Golden, Bf16LogitsAreNear) {
  Decoder model = decoder(at::kBFloat16);
  const at::NoGradGuard no_grad;
  EXPECT_LE(
      largest_difference(model.forward(batch_, nullptr), golden_["columns"], golden_["logits"]),
      1e-2 * max_logit_);
}

TEST_P(Golden, GradientsOfEveryParameterEqualTransformers) {
  Decoder model = decoder(at::kFloat);
  auto parameters = model.parameters();
  for (auto& [name, tensor] : parameters) tensor.requires_grad_(true);
  std::vector<int64_t> targets;
  for (const auto& list : golden_["targets"])
    for (const auto& id : list) targets.push_back(id.get<int64_t>());
  at::Tensor target = at::empty({static_cast<int64_t>(targets.size())}, at::dtype(at::kLong));
  std::copy(targets.begin(), targets.end(), target.mutable_data_ptr<int64_t>());
  const at::Tensor loss = at::cross_entropy_loss(model.forward(batch_, nullptr), target);
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

INSTANTIATE_TEST_SUITE_P(Tiny, Golden,
                         ::testing::Values("llama_untied_gqa_wide_heads", "llama_tied_biased",
                                           "qwen2_untied_gqa", "qwen2_tied",
                                           "qwen3_untied_gqa_wide_heads",
                                           "qwen3_tied_biased_narrow_heads"),
                         [](const auto& info) { return info.param; });

// Checkpoints that others made, with logits that others computed in float64.
class StoredLogits : public ::testing::TestWithParam<std::string> {};

TEST_P(StoredLogits, LogitsEqualTheStoredOnes) {
  const std::string folder = erank::testing::shared_data("model-fixtures/" + GetParam());
  if (folder.empty()) GTEST_SKIP() << "model-fixtures/" << GetParam() << " is not there";
  const base::Json golden =
      base::parse_json(base::read_file(folder + "/logits.json"), "logits.json");
  const auto decoder = load_decoder(folder, {});
  const at::NoGradGuard no_grad;
  base::Json columns = base::Json::array();
  for (int64_t i = 0; i < decoder->config().vocab_size; ++i) columns.push_back(i);
  for (size_t i = 0; i < golden["sequences"].size(); ++i) {
    const Batch batch = whole_batch(base::Json::array({golden["sequences"][i]}));
    double largest = 0;
    for (const auto& row : golden["logits"][i])
      for (const auto& value : row) largest = std::max(largest, std::abs(value.get<double>()));
    EXPECT_LE(largest_difference(decoder->forward(batch, nullptr), columns, golden["logits"][i]),
              1e-5 * largest)
        << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, StoredLogits, ::testing::Values("tiny-qwen3-f32", "tiny-llama-f32"),
                         [](const auto& info) {
                           return info.param == "tiny-qwen3-f32" ? "Qwen3" : "Llama";
                         });

// Real weights against transformers' own reading of the same file.
void expect_real_logits(const std::string& file, const std::string& golden_name) {
  const std::string path = base::cache_folder() + "/models/" + file;
  if (!base::file_exists(path))
    GTEST_SKIP() << path << " is not there; tools/setup --slow fetches it";
  const base::Json golden = read_golden(golden_name);
  const auto decoder = load_decoder(path, {});
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < golden["logits"].size(); ++i) {
    const base::Json& expected = golden["logits"][i];
    const at::Tensor logits =
        decoder->forward(whole_batch(base::Json::array({golden["ids"][i]})), nullptr);
    const double tolerance = 1e-4 * expected["max"].get<double>();
    EXPECT_LE(largest_difference(logits, expected["columns"], expected["rows"], 2), tolerance) << i;
    const at::Tensor last = logits.select(0, logits.size(0) - 1);
    const auto [top, top_ids] = at::topk(last, 5);
    for (int64_t k = 0; k < 5; ++k) {
      EXPECT_EQ(top_ids[k].item<int64_t>(), expected["top_ids"][k].get<int64_t>()) << i;
      EXPECT_NEAR(top[k].item<double>(), expected["top"][k].get<double>(), tolerance) << i;
    }
    EXPECT_NEAR(last.norm().item<double>(), expected["norm"].get<double>(),
                1e-4 * expected["norm"].get<double>());
  }
}

TEST(TinyRealWeights, SmolLm2LogitsEqualTransformers) {
  expect_real_logits("SmolLM2-135M-Instruct.Q4_1.gguf", "model_real_smollm2.json");
}

TEST(SlowRealWeights, Qwen2LogitsEqualTransformers) {
  expect_real_logits("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "model_real_qwen2.json");
}

}  // namespace
}  // namespace erank::model
