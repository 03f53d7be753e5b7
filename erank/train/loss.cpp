#include "erank/train/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/log.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>

namespace erank::train {

at::Tensor answer_loss(const at::Tensor& logits, const std::vector<LossTerm>& terms) {
  const int64_t vocab = logits.size(1);
  const at::Tensor log_total = at::logsumexp(logits, {1});
  const auto sum_of = [&](bool complement) {
    std::vector<int64_t> rows, places;
    std::vector<float> weights;
    for (const LossTerm& term : terms) {
      if (term.complement != complement) continue;
      rows.push_back(term.row);
      places.push_back(term.row * vocab + term.token);
      weights.push_back(term.weight);
    }
    if (rows.empty()) return at::Tensor();
    const auto device = logits.device();
    at::Tensor log_p = logits.reshape({-1}).index_select(0, at::tensor(places).to(device)) -
                       log_total.index_select(0, at::tensor(rows).to(device));
    // log(1 - p), away from the pole at p = 1.
    if (complement) log_p = at::log(-at::expm1(at::clamp(log_p, std::nullopt, -1e-6)));
    return -(log_p * at::tensor(weights).to(device)).sum();
  };
  const at::Tensor plain = sum_of(false), complement = sum_of(true);
  if (!complement.defined()) return plain;
  return plain.defined() ? plain + complement : complement;
}

}  // namespace erank::train
