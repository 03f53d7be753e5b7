// What the tests of gradients share.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <vector>

namespace erank::train {

// The largest difference beside the largest expected value.
inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() /
         expected.to(at::kDouble).abs().max().item<double>();
}

// The gradients of sum(weights * y) with respect to `inputs`, which are then without one.
inline std::vector<at::Tensor> gradients(const at::Tensor& y, const at::Tensor& weights,
                                         const std::vector<at::Tensor>& inputs) {
  (y.to(at::kFloat) * weights).sum().backward();
  std::vector<at::Tensor> all;
  for (const at::Tensor& x : inputs) {
    all.push_back(x.grad().clone());
    x.mutable_grad().reset();
  }
  return all;
}

}  // namespace erank::train
