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

}  // namespace erank::model
