// Named tensors as one safetensors file, for adapters and the state of training.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "erank/model/adapter.h"

namespace erank::model {

// Written atomically, converted to `dtype` (kFloat or kBFloat16), in the given order.
void save_tensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                  at::ScalarType dtype);

struct NamedShape {
  std::string name;
  std::vector<int64_t> shape;
};
// The same, where the tensors are not all in memory: fetch(i) is called when shapes[i] is written.
void save_tensors(const std::string& path, const std::vector<NamedShape>& shapes,
                  at::ScalarType dtype, const std::function<at::Tensor(size_t i)>& fetch);

// Fills `tensors`, which share storage with their owners; one that is undefined must be in the file
// and is not read. Throws Error{kNotFound}, or Error{kCorrupt} naming a tensor that is missing,
// left over or of another shape.
void load_tensors(const std::string& path, const std::vector<NamedTensor>& tensors);

// Whether every value of a floating-point tensor is finite. Its values must add up to a finite
// fp64, as those of fp32 and narrower types do.
bool is_finite(const at::Tensor& tensor);

}  // namespace erank::model
