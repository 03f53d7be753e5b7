#include "erank/train/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include "erank/train/log_probs.h"

namespace erank::train {

at::Tensor answer_loss(const at::Tensor& logits, const std::vector<LossTerm>& terms) {
  std::vector<int64_t> rows, tokens;
  std::vector<float> weights;
  int64_t num_plain = 0;
  for (const bool complement : {false, true}) {
    for (const LossTerm& term : terms) {
      if (term.complement != complement) continue;
      rows.push_back(term.row);
      tokens.push_back(term.token);
      weights.push_back(term.weight);
    }
    if (!complement) num_plain = static_cast<int64_t>(rows.size());
  }
  const auto device = logits.device();
  const at::Tensor weight = at::tensor(weights).to(device);
  const at::Tensor log_p =
      log_probs(logits, at::tensor(rows).to(device), at::tensor(tokens).to(device));
  const int64_t num_complements = log_p.size(0) - num_plain;
  const auto sum_of = [&](int64_t first, int64_t n, bool complement) {
    const at::Tensor part = log_p.narrow(0, first, n);
    return -((complement ? log_complement(part) : part) * weight.narrow(0, first, n)).sum();
  };
  const at::Tensor plain = sum_of(0, num_plain, false);
  return num_complements > 0 ? plain + sum_of(num_plain, num_complements, true) : plain;
}

void DeviceSum::add(const at::Tensor& scalar) {
  const at::NoGradGuard no_grad;
  const at::Tensor more = scalar.detach().to(at::kDouble);
  sum_ = sum_.defined() ? sum_ + more : more;
}

double DeviceSum::value() const { return sum_.defined() ? sum_.item<double>() : 0; }

}  // namespace erank::train
