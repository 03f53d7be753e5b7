#include "erank/model/parameters.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "erank/base/error.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "tests/model/golden.h"

namespace erank::model {
namespace {

ModelConfig tiny() { return config_of_shape("tiny"); }

Adapter golden_adapter(double scale = 1, std::vector<std::string> targets = {}) {
  Adapter adapter = make_adapter(tiny(), {.rank = 3, .target_modules = std::move(targets)}, 1);
  fill_golden(adapter.named(), scale);
  return adapter;
}

// What a source gives under each name, in `dtype`.
std::map<std::string, at::Tensor> read_all(const WeightSource& source, at::ScalarType dtype) {
  std::map<std::string, at::Tensor> all;
  for (const TensorShape& shape : parameter_shapes(source.config())) {
    const at::Tensor tensor = at::empty(shape.shape, at::dtype(dtype));
    auto* out = static_cast<char*>(tensor.data_ptr());
    const int64_t row_bytes = tensor.numel() / tensor.size(0) * tensor.element_size();
    source.read(shape.name, dtype, [&](int64_t first, const void* values, int64_t count) {
      std::memcpy(out + first * row_bytes, values, count * row_bytes);
    });
    all.emplace(shape.name, tensor);
  }
  return all;
}

TEST(TinyParameters, AtMostOneAdapterIsActive) {
  Parameters parameters(tiny(), at::kFloat);
  const Linear& q = parameters.layers()[0].q_proj;
  const Linear& up = parameters.layers()[0].up_proj;
  EXPECT_EQ(parameters.active(), "");
  EXPECT_EQ(q.lora, nullptr);
  parameters.add_adapter("every", golden_adapter());
  parameters.add_adapter("only q", golden_adapter(0.5, {"q_proj"}));
  EXPECT_EQ(parameters.active(), "only q");
  EXPECT_EQ(q.lora, parameters.adapter("only q")->find("model.layers.0.self_attn.q_proj"));
  EXPECT_EQ(up.lora, nullptr);
  parameters.activate("every");
  EXPECT_EQ(up.lora, parameters.adapter("every")->find("model.layers.0.mlp.up_proj"));
  parameters.activate("");
  EXPECT_EQ(q.lora, nullptr);
  EXPECT_NE(parameters.adapter("every"), nullptr);
  EXPECT_EQ(parameters.adapter("none"), nullptr);
  EXPECT_THROW(parameters.activate("none"), base::InternalError);
  EXPECT_THROW(parameters.add_adapter("every", golden_adapter()), base::InternalError);
  EXPECT_THROW(parameters.add_adapter("", golden_adapter()), base::InternalError);
  EXPECT_THROW(parameters.merge_active(), base::InternalError);
}

TEST(TinyParameters, AnAdapterOfAnotherShapeIsAMistake) {
  Parameters parameters(tiny(), at::kFloat);
  ModelConfig wide = tiny();
  wide.intermediate_size *= 2;
  EXPECT_THROW(
      parameters.add_adapter("wide", make_adapter(wide, {.rank = 3, .target_modules = {}}, 1)),
      base::InternalError);
}

TEST(TinyParameters, MergingRemovesTheActiveAdapterAlone) {
  Parameters parameters(tiny(), at::kFloat);
  parameters.init_random(1);
  parameters.add_adapter("kept", golden_adapter());
  parameters.add_adapter("merged", golden_adapter(0.5));
  const Linear& q = parameters.layers()[0].q_proj;
  const Lora lora = *q.lora;
  const at::Tensor expected = at::addmm(q.weight, lora.b, lora.a, 1, lora.scaling);
  parameters.merge_active();
  EXPECT_EQ(parameters.active(), "");
  EXPECT_EQ(parameters.adapter("merged"), nullptr);
  EXPECT_NE(parameters.adapter("kept"), nullptr);
  EXPECT_LT((q.weight - expected).abs().max().item<double>(), 1e-6);
}

// A network takes an adapter's weights without a second copy of them: what it reads is what merging
// would have made.
TEST(TinyWeightSources, MergeAnAdapterWhileTheyAreRead) {
  const TestFolder folder;
  Parameters parameters(tiny(), at::kFloat);
  parameters.init_random(1);
  save_weights(parameters, folder.path("model"));
  const Adapter adapter = golden_adapter();
  save_adapter(adapter, folder.path("adapter"), "base", at::kFloat);
  const CheckpointSource files =
      CheckpointSource::open(folder.path("model"), folder.path("adapter"));
  parameters.add_adapter("a", adapter);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto from_memory = read_all(ParametersSource(parameters), dtype);
    const auto from_files = read_all(files, dtype);
    Parameters merged(tiny(), at::kFloat);
    load_weights(merged, CheckpointSource::open(folder.path("model")));
    merged.add_adapter("a", adapter);
    merged.merge_active();
    for (const auto& [name, tensor] : merged.named()) {
      const double largest = tensor.abs().max().item<double>();
      const double rounding = dtype == at::kFloat ? 1e-6 : 1.0 / 256;
      for (const auto* all : {&from_memory, &from_files})
        EXPECT_LE((all->at(name).to(at::kFloat) - tensor).abs().max().item<double>(),
                  rounding * largest)
            << name;
    }
  }
}

TEST(TinyWeightSources, WithoutAnActiveAdapterParametersAreReadAsTheyAre) {
  Parameters parameters(tiny(), at::kFloat);
  parameters.init_random(1);
  parameters.add_adapter("a", golden_adapter());
  parameters.activate("");
  for (const auto& [name, tensor] : parameters.named()) tensor.set_requires_grad(true);
  const auto read = read_all(ParametersSource(parameters), at::kFloat);
  for (const auto& [name, tensor] : parameters.named())
    EXPECT_TRUE(at::equal(read.at(name), tensor.detach())) << name;
}

}  // namespace
}  // namespace erank::model
