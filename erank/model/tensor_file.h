// Named tensors as one safetensors file, for adapters and the state of training.
#pragma once

#include <string>
#include <vector>

#include "erank/model/adapter.h"

namespace erank::model {

// Written atomically, converted to `dtype` (kFloat or kBFloat16), in the given order.
void save_tensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                  at::ScalarType dtype);

// Fills `tensors`, which share storage with their owners. Throws Error{kNotFound}, or
// Error{kCorrupt} naming a tensor that is missing, left over or of another shape.
void load_tensors(const std::string& path, const std::vector<NamedTensor>& tensors);

// Whether every value of a floating-point tensor is finite. Its values must add up to a finite
// fp64, as those of fp32 and narrower types do.
bool is_finite(const at::Tensor& tensor);

}  // namespace erank::model
