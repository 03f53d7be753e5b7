#include "erank/model/kernels/grad_ops.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <gtest/gtest.h>

#include "erank/base/random.h"
#include "erank/model/kernels/plain_tree.h"
#include "erank/model/lora.h"
#include "tests/model/golden.h"

namespace erank::model {
namespace {

at::Tensor draw(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat) {
  return at::randn(shape).to(dtype).requires_grad_(true);
}

double error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() /
         expected.to(at::kDouble).abs().max().item<double>();
}

// The gradients of sum(weights * y) with respect to `inputs`, which are then without one.
std::vector<at::Tensor> gradients(const at::Tensor& y, const at::Tensor& weights,
                                  const std::vector<at::Tensor>& inputs) {
  (y.to(at::kFloat) * weights).sum().backward();
  std::vector<at::Tensor> all;
  for (auto& x : inputs) {
    all.push_back(x.grad().clone());
    x.mutable_grad().reset();
  }
  return all;
}

class GradOps : public testing::TestWithParam<at::ScalarType> {
 protected:
  double limit() const { return GetParam() == at::kFloat ? 2e-5 : 2e-2; }
};

TEST_P(GradOps, AddAndNormHaveTheGradientsOfTheirParts) {
  for (const int64_t hidden : {48, 50}) {
    const at::Tensor x = draw({7, hidden}, GetParam()), delta = draw({7, hidden}, GetParam());
    const at::Tensor weight = draw({hidden}, GetParam()), out = at::randn({7, 2 * hidden});
    const std::vector<at::Tensor> inputs = {x, delta, weight};
    const auto [sum, y] = kernels::add_rms_norm_grad(x, delta, weight, 1e-5);
    const auto found = gradients(at::cat({sum, y}, 1), out, inputs);
    const at::Tensor plain = x + delta;
    const at::Tensor normed =
        at::rms_norm(plain.to(at::kFloat), {hidden}, weight.to(at::kFloat), 1e-5);
    EXPECT_LT(error(y, normed), limit());
    const auto expected = gradients(at::cat({plain.to(at::kFloat), normed}, 1), out, inputs);
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_LT(error(found[i], expected[i]), limit()) << i;
  }
}

TEST_P(GradOps, GatingHasTheGradientsOfItsParts) {
  for (const int64_t width : {32, 37}) {
    const at::Tensor gate_up = draw({9, 2 * width}, GetParam()), out = at::randn({9, width});
    const auto found = gradients(kernels::silu_mul_grad(gate_up), out, {gate_up});
    const at::Tensor wide = gate_up.to(at::kFloat);
    const auto expected = gradients(
        at::silu(wide.narrow(1, 0, width)) * wide.narrow(1, width, width), out, {gate_up});
    EXPECT_LT(error(found[0], expected[0]), limit());
  }
}

TEST_P(GradOps, AdaptedProjectionsHaveTheGradientsOfTheirParts) {
  const at::Tensor weight = at::randn({40, 24}).to(GetParam());
  const at::Tensor x = draw({11, 24}, GetParam()), out = at::randn({11, 40});
  std::vector<Linear> parts(3);
  const int64_t sizes[] = {24, 8, 8};
  std::vector<at::Tensor> inputs = {x};
  int64_t row = 0;
  for (int i = 0; i < 3; ++i) {
    parts[i].weight = weight.narrow(0, row, sizes[i]);
    row += sizes[i];
    if (i == 1) continue;  // a part without an adapter
    parts[i].lora = std::make_unique<Lora>();
    parts[i].lora->a = draw({4, 24});
    parts[i].lora->b = draw({sizes[i], 4});
    parts[i].lora->scaling = 0.5 + i;
    inputs.push_back(parts[i].lora->a);
    inputs.push_back(parts[i].lora->b);
  }
  const at::Tensor y = kernels::lora_linear(x, weight, {}, {&parts[0], &parts[1], &parts[2]});
  const auto found = gradients(y, out, inputs);
  std::vector<at::Tensor> plain;
  for (const Linear& part : parts) {
    at::Tensor z = at::linear(x.to(at::kFloat), part.weight.to(at::kFloat));
    if (part.lora)
      z = z +
          at::linear(at::linear(x.to(at::kFloat), part.lora->a), part.lora->b) * part.lora->scaling;
    plain.push_back(z);
  }
  EXPECT_LT(error(y, at::cat(plain, 1)), limit());
  const auto expected = gradients(at::cat(plain, 1), out, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(error(found[i], expected[i]), limit()) << i;
}

// Three levels: a query, its passages, their closings; sequences on their own beside them.
Batch tree_batch(const std::vector<std::pair<int32_t, int32_t>>& parents_and_lengths) {
  Batch batch;
  batch.starts.push_back(0);
  base::Random random(5);
  for (const auto& [parent, length] : parents_and_lengths) {
    int32_t position = 0;
    if (parent >= 0)
      position =
          batch.positions[batch.starts[parent]] + batch.starts[parent + 1] - batch.starts[parent];
    for (int32_t i = 0; i < length; ++i) {
      batch.rows.push_back(static_cast<int32_t>(batch.tokens.size()));
      batch.tokens.push_back(static_cast<int32_t>(random.below(97)));
      batch.positions.push_back(position + i);
    }
    batch.parents.push_back(parent);
    batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

ModelConfig tree_config(Family family) {
  ModelConfig c;
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

// The path from the root to a row, as a sequence on its own.
std::vector<int32_t> path_to(const Batch& batch, int32_t b, int32_t row) {
  std::vector<int32_t> ids;
  for (int32_t a = b; a >= 0; a = batch.parent(a))
    ids.insert(ids.begin(), batch.tokens.begin() + batch.starts[a],
               batch.tokens.begin() + (a == b ? row + 1 : batch.starts[a + 1]));
  return ids;
}

TEST(SharedPrefixes, GiveTheLogitsAndGradientsOfSequencesOnTheirOwn) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    const auto config = tree_config(family);
    Decoder decoder(config, {});
    fill_golden(decoder);
    const Batch batch = tree_batch(
        {{-1, 23}, {0, 17}, {0, 40}, {1, 3}, {1, 9}, {2, 1}, {-1, 12}, {6, 5}, {-1, 1}, {8, 70}});
    Batch alone;
    alone.starts.push_back(0);
    std::vector<int64_t> rows;
    for (int32_t b = 0; b < 10; ++b) {
      const auto ids = path_to(batch, b, batch.starts[b + 1] - 1);
      for (size_t i = 0; i < ids.size(); ++i) {
        alone.tokens.push_back(ids[i]);
        alone.positions.push_back(static_cast<int32_t>(i));
      }
      alone.starts.push_back(static_cast<int32_t>(alone.tokens.size()));
      for (int32_t t = batch.starts[b]; t < batch.starts[b + 1]; ++t)
        alone.rows.push_back(alone.starts[b] + batch.positions[t]);
    }
    const at::Tensor out = at::randn({static_cast<int64_t>(batch.rows.size()), 97});
    LoraConfig lora;
    lora.rank = 4;
    add_lora(decoder, lora, 3);
    std::vector<at::Tensor> inputs;
    for (auto& p : lora_parameters(decoder)) {
      if (p.name.find("lora_B") != std::string::npos)
        p.tensor.copy_(golden_fill(p.name, p.tensor.sizes()) * 0.1);
      inputs.push_back(p.tensor.requires_grad_(true));
    }
    const at::Tensor shared = decoder.forward(batch, nullptr);
    const auto found = gradients(shared, out, inputs);
    const at::Tensor separate = decoder.forward(alone, nullptr);
    EXPECT_LT(error(shared, separate), 1e-5);
    const auto expected = gradients(separate, out, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(error(found[i], expected[i]), 1e-4) << i;

    const at::NoGradGuard no_grad;
    EXPECT_LT(error(decoder.forward(batch, nullptr), separate), 1e-5);
  }
}

// libtorch's attention, a sequence at a time.
TEST(SharedPrefixes, AttendAsLibtorchDoes) {
  const auto config = tree_config(Family::kLlama);
  const Batch batch = tree_batch({{-1, 19}, {0, 33}, {0, 31}, {2, 4}});
  const auto plan = kernels::plan_tree(batch);
  const at::Tensor angle = at::arange(512, at::dtype(at::kFloat)).unsqueeze(1) *
                           at::arange(16, at::dtype(at::kFloat)).unsqueeze(0) * 0.01;
  const at::Tensor cos = at::cos(angle), sin = at::sin(angle);
  const at::Tensor qkv = draw({87, 320}), out = at::randn({87, 192});
  const at::Tensor y = kernels::tree_attention(qkv, plan, config, cos, sin);
  const auto found = gradients(y, out, {qkv});

  const at::Tensor at_positions =
      at::tensor(at::ArrayRef<int32_t>(batch.positions), at::dtype(at::kInt));
  const at::Tensor c = cos.index_select(0, at_positions).unsqueeze(1),
                   s = sin.index_select(0, at_positions).unsqueeze(1);
  const at::Tensor heads = qkv.view({87, 10, 32});
  const at::Tensor a = heads.narrow(1, 0, 8).narrow(2, 0, 16),
                   b = heads.narrow(1, 0, 8).narrow(2, 16, 16);
  const at::Tensor turned = at::cat({a * c - b * s, b * c + a * s}, 2);
  std::vector<at::Tensor> outputs;
  for (int32_t i = 0; i < 4; ++i) {
    std::vector<at::Tensor> keys, values;
    for (int32_t j = i; j >= 0; j = batch.parent(j)) {
      const int64_t n = batch.starts[j + 1] - batch.starts[j];
      keys.insert(keys.begin(), turned.narrow(0, batch.starts[j], n).narrow(1, 6, 2));
      values.insert(values.begin(), heads.narrow(0, batch.starts[j], n).narrow(1, 8, 2));
    }
    const int64_t n = batch.starts[i + 1] - batch.starts[i];
    const at::Tensor key = at::cat(keys, 0).transpose(0, 1),
                     value = at::cat(values, 0).transpose(0, 1);
    const int64_t before = key.size(1) - n;
    const at::Tensor mask =
        at::arange(key.size(1)).unsqueeze(0) <= at::arange(before, before + n).unsqueeze(1);
    outputs.push_back(
        at::scaled_dot_product_attention(
            turned.narrow(0, batch.starts[i], n).narrow(1, 0, 6).transpose(0, 1).unsqueeze(0),
            key.unsqueeze(0), value.unsqueeze(0), mask, 0.0, false, std::nullopt, true)
            .squeeze(0)
            .transpose(0, 1)
            .reshape({n, 192}));
  }
  const at::Tensor plain = at::cat(outputs, 0);
  EXPECT_LT(error(y, plain), 1e-5);
  const auto expected = gradients(plain, out, {qkv});
  EXPECT_LT(error(found[0], expected[0]), 1e-5);
  // What devices without the kernels do, in more padded classes.
  const auto padded = kernels::plan_tree(batch, 0.4);
  EXPECT_LT(padded->classes.size(), plan->classes.size());
  const at::Tensor elsewhere =
      kernels::PlainTree(*padded, config, cos, sin, at::kFloat).attend(qkv);
  EXPECT_LT(error(elsewhere, plain), 1e-5);
  EXPECT_LT(error(gradients(elsewhere, out, {qkv})[0], expected[0]), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Precision, GradOps, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) {
                           return info.param == at::kFloat ? "Fp32" : "Bf16";
                         });

}  // namespace
}  // namespace erank::model
