// The loss of a pass from its logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "erank/train/example.h"

namespace erank::train {

// logits [R, V] fp32 and terms whose row counts their rows -> the sum of the terms, a scalar fp32,
// differentiable. Probabilities are over the full vocabulary at temperature 1.
at::Tensor answer_loss(const at::Tensor& logits, const std::vector<LossTerm>& terms);

// A step's sum of its passes' scalars, on their device: reading each would let a GPU wait.
class DeviceSum {
 public:
  void add(const at::Tensor& scalar);  // without its gradient
  double value() const;                // waits for the device; 0 when nothing was added

 private:
  at::Tensor sum_;  // fp64
};

}  // namespace erank::train
