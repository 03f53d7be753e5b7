#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <gtest/gtest.h>

#include "erank/train/kernels/grad_ops.h"
#include "erank/train/kernels/reference_tree.h"
#include "erank/train/kernels/tree_attention.h"
#include "tests/train/gradients.h"
#include "tests/train/trees.h"

namespace erank::train {
namespace {

at::Tensor draw(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat) {
  return at::randn(shape).to(dtype).requires_grad_(true);
}

class GradOps : public testing::TestWithParam<at::ScalarType> {
 protected:
  double limit() const { return GetParam() == at::kFloat ? 2e-5 : 2e-2; }
};

TEST_P(GradOps, AddAndNormHaveTheGradientsOfTheirParts) {
  for (const int64_t hidden : {5, 48, 50, 576}) {
    const at::Tensor x = draw({7, hidden}, GetParam()), delta = draw({7, hidden}, GetParam());
    const at::Tensor weight = draw({hidden}, GetParam()), out = at::randn({7, 2 * hidden});
    const std::vector<at::Tensor> inputs = {x, delta, weight};
    const auto [sum, y] = kernels::add_rms_norm(x, delta, weight, 1e-5);
    const auto found = gradients(at::cat({sum, y}, 1), out, inputs);
    const at::Tensor parts = x + delta;
    EXPECT_LT(relative_error(sum, parts), limit());
    const at::Tensor normed =
        at::rms_norm(parts.to(at::kFloat), {hidden}, weight.to(at::kFloat), 1e-5);
    EXPECT_LT(relative_error(y, normed), limit());
    const auto expected = gradients(at::cat({parts.to(at::kFloat), normed}, 1), out, inputs);
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_LT(relative_error(found[i], expected[i]), limit()) << i;
  }
}

TEST_P(GradOps, GatingHasTheGradientsOfItsParts) {
  for (const int64_t width : {5, 32, 37, 100}) {
    const at::Tensor gate_up = draw({9, 2 * width}, GetParam()), out = at::randn({9, width});
    const at::Tensor y = kernels::silu_mul(gate_up);
    const auto found = gradients(y, out, {gate_up});
    const at::Tensor wide = gate_up.to(at::kFloat);
    const at::Tensor reference = at::silu(wide.narrow(1, 0, width)) * wide.narrow(1, width, width);
    EXPECT_LT(relative_error(y, reference), limit());
    const auto expected = gradients(reference, out, {gate_up});
    EXPECT_LT(relative_error(found[0], expected[0]), limit());
  }
}

TEST_P(GradOps, AdaptedProjectionsHaveTheGradientsOfTheirParts) {
  const at::Tensor weight = at::randn({40, 24}).to(GetParam());
  const at::Tensor x = draw({11, 24}, GetParam()), out = at::randn({11, 40});
  std::vector<model::Linear> parts(3);
  std::vector<model::Lora> adapters(3);
  const int64_t sizes[] = {24, 8, 8};
  std::vector<at::Tensor> inputs = {x};
  int64_t row = 0;
  for (int i = 0; i < 3; ++i) {
    parts[i].weight = weight.narrow(0, row, sizes[i]);
    row += sizes[i];
    if (i == 1) continue;  // a part without an adapter
    adapters[i] = {draw({4, 24}), draw({sizes[i], 4}), 0.5 + i, 0, {}};
    parts[i].lora = &adapters[i];
    inputs.push_back(adapters[i].a);
    inputs.push_back(adapters[i].b);
  }
  const at::Tensor y = kernels::lora_linear(x, weight, {}, {&parts[0], &parts[1], &parts[2]});
  const auto found = gradients(y, out, inputs);
  std::vector<at::Tensor> separate;
  for (const model::Linear& part : parts) {
    at::Tensor z = at::linear(x.to(at::kFloat), part.weight.to(at::kFloat));
    if (part.lora)
      z = z +
          at::linear(at::linear(x.to(at::kFloat), part.lora->a), part.lora->b) * part.lora->scaling;
    separate.push_back(z);
  }
  EXPECT_LT(relative_error(y, at::cat(separate, 1)), limit());
  const auto expected = gradients(at::cat(separate, 1), out, inputs);
  for (size_t i = 0; i < inputs.size(); ++i)
    EXPECT_LT(relative_error(found[i], expected[i]), limit()) << i;
}

TEST_P(GradOps, TheHeadsLogProbabilitiesAreThoseOfItsLogits) {
  // The last one is taken in several pieces. Either all tokens are about as probable, or one is
  // nearly sure.
  for (const auto& [count, vocab] : {std::pair{3, 5}, {40, 1003}, {260, 70001}}) {
    for (const double sure_logit : {0.0, 16.0}) {
      at::Tensor start = at::randn({count, 8}), weight = at::randn({vocab, 8}) * 0.1;
      start.select(1, 0).fill_(4);
      weight[2][0] += sure_logit / 4;
      weight = weight.to(GetParam());
      const at::Tensor hidden = start.to(GetParam()).requires_grad_(true);
      // In fp64, of the logits as they are rounded.
      const at::Tensor wide = hidden.detach().to(at::kDouble).requires_grad_(true);
      const at::Tensor rounded = at::linear(hidden.detach(), weight).to(at::kDouble);
      const auto all = [&] {
        const at::Tensor logits = at::linear(wide, weight.to(at::kDouble));
        return at::log_softmax(logits + (rounded - logits).detach(), 1);
      };
      // Each row's most probable token and another one, in no order; a row twice, one never.
      const at::Tensor row = at::arange(1, count, at::dtype(at::kLong)).flip(0);
      const at::Tensor peak = all().argmax(1).index_select(0, row);
      const at::Tensor rows = at::cat({row, row, row.narrow(0, 0, 1)});
      const at::Tensor tokens = at::cat({peak, (peak + 1).remainder(vocab), peak.narrow(0, 0, 1)});
      // The most probable tokens alone: where the model is sure little is left of their gradient.
      const at::Tensor both = at::randn(rows.sizes()),
                       sure = both * at::arange(rows.numel()).lt(count - 1);
      for (const at::Tensor& out : {both, sure}) {
        const at::Tensor reference = all();
        const at::Tensor expected = reference.view({-1}).index_select(0, rows * vocab + tokens);
        const auto [found, entropies] = kernels::head_log_probs(hidden, weight, rows, tokens);
        EXPECT_LT(relative_error(found, expected), 1e-5);
        EXPECT_LT(relative_error(entropies, -(reference.exp() * reference).sum(1)), 1e-4);
        EXPECT_FALSE(entropies.requires_grad());
        const at::Tensor gradient = gradients(found, out, {hidden})[0];
        EXPECT_LT(relative_error(gradient, gradients(expected, out, {wide})[0]), limit())
            << count << " " << sure_logit;
        EXPECT_EQ(gradient[0].abs().max().item<double>(), 0);
        const at::NoGradGuard no_grad;
        EXPECT_TRUE(kernels::head_log_probs(hidden, weight, rows, tokens).first.equal(found));
      }
    }
  }
}

// libtorch's attention, a sequence at a time.
// `window`: how many positions a query sees; 0: all before it.
void expect_libtorchs_attention(int64_t window) {
  SCOPED_TRACE(window);
  model::ModelConfig config;
  config.num_attention_heads = 6, config.num_key_value_heads = 2, config.head_dim = 32;
  config.sliding_window = window;
  const TreeBatch batch = tree_batch({{-1, 19}, {0, 33}, {0, 31}, {2, 4}});
  const auto plan = kernels::plan_tree(batch);
  const at::Tensor angle = at::arange(512, at::dtype(at::kFloat)).unsqueeze(1) *
                           at::arange(16, at::dtype(at::kFloat)).unsqueeze(0) * 0.01;
  const at::Tensor cos = at::cos(angle), sin = at::sin(angle);
  const at::Tensor qkv = draw({87, 320}), out = at::randn({87, 192});
  const at::Tensor y = kernels::tree_attention(qkv, plan, config, window, cos, sin);
  const auto found = gradients(y, out, {qkv});

  const at::Tensor at_positions =
      at::tensor(at::ArrayRef<int32_t>(batch.positions), at::dtype(at::kInt));
  const at::Tensor c = cos.index_select(0, at_positions).unsqueeze(1),
                   s = sin.index_select(0, at_positions).unsqueeze(1);
  const at::Tensor heads = qkv.view({87, 10, 32});
  const at::Tensor a = heads.narrow(1, 0, 8).narrow(2, 0, 16),
                   b = heads.narrow(1, 0, 8).narrow(2, 16, 16);
  const at::Tensor rotated = at::cat({a * c - b * s, b * c + a * s}, 2);
  std::vector<at::Tensor> outputs;
  for (int32_t i = 0; i < 4; ++i) {
    std::vector<at::Tensor> keys, values;
    for (int32_t j = i; j >= 0; j = batch.parent(j)) {
      const int64_t n = batch.starts[j + 1] - batch.starts[j];
      keys.insert(keys.begin(), rotated.narrow(0, batch.starts[j], n).narrow(1, 6, 2));
      values.insert(values.begin(), heads.narrow(0, batch.starts[j], n).narrow(1, 8, 2));
    }
    const int64_t n = batch.starts[i + 1] - batch.starts[i];
    const at::Tensor key = at::cat(keys, 0).transpose(0, 1),
                     value = at::cat(values, 0).transpose(0, 1);
    const int64_t before = key.size(1) - n;
    const at::Tensor column = at::arange(key.size(1)).unsqueeze(0),
                     row = at::arange(before, before + n).unsqueeze(1);
    at::Tensor mask = column <= row;
    if (window > 0) mask = mask.logical_and(column > row - window);
    outputs.push_back(
        at::scaled_dot_product_attention(
            rotated.narrow(0, batch.starts[i], n).narrow(1, 0, 6).transpose(0, 1).unsqueeze(0),
            key.unsqueeze(0), value.unsqueeze(0), mask, 0.0, false, std::nullopt, true)
            .squeeze(0)
            .transpose(0, 1)
            .reshape({n, 192}));
  }
  const at::Tensor reference = at::cat(outputs, 0);
  EXPECT_LT(relative_error(y, reference), 1e-5);
  const auto expected = gradients(reference, out, {qkv});
  EXPECT_LT(relative_error(found[0], expected[0]), 1e-5);
  // What devices without the kernels do, in more padded classes.
  const auto padded = kernels::plan_tree(batch, 0.4);
  EXPECT_LT(padded->classes.size(), plan->classes.size());
  const at::Tensor elsewhere =
      kernels::ReferenceTree(*padded, config, cos, sin, at::kFloat).attend(qkv, window);
  EXPECT_LT(relative_error(elsewhere, reference), 1e-5);
  EXPECT_LT(relative_error(gradients(elsewhere, out, {qkv})[0], expected[0]), 1e-5);
}

TEST(TreeAttention, AttendsAsLibtorchDoes) {
  for (const int64_t window : {0, 1, 21, 500}) expect_libtorchs_attention(window);
}

INSTANTIATE_TEST_SUITE_P(Precision, GradOps, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) {
                           return info.param == at::kFloat ? "Fp32" : "Bf16";
                         });

}  // namespace
}  // namespace erank::train
