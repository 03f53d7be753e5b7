// From a tensor to the pointers that cpu_kernels.h takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <type_traits>

#include "erank/base/error.h"

namespace erank::train::kernels {

template <typename T>
T* data(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

// Calls body with a null pointer of the element type: float*, or uint16_t* for bf16. REQUIRES: a
// contiguous CPU tensor of one of them.
template <typename Body>
void with_type(const at::Tensor& x, const Body& body) {
  ERANK_CHECK(x.device().is_cpu() && x.is_contiguous() &&
                  (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
              "tensor of ", x.sizes(), " ", x.dtype().name());
  if (x.scalar_type() == at::kFloat)
    body(static_cast<float*>(nullptr));
  else
    body(static_cast<uint16_t*>(nullptr));
}

template <typename P>
using Element = std::remove_pointer_t<P>;

// Rows of element-wise work that one thread should at least get.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
}

}  // namespace erank::train::kernels
