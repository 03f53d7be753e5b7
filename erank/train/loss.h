// The loss of a pass from its logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "erank/train/example.h"

namespace erank::train {

// logits [R, V] fp32 and terms whose row counts their rows -> the sum of the terms, a scalar fp32,
// differentiable. Probabilities are over the full vocabulary at temperature 1.
at::Tensor answer_loss(const at::Tensor& logits, const std::vector<LossTerm>& terms);

}  // namespace erank::train
