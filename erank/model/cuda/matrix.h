// The weights of a linear layer or an embedding on a device, in the form that they are kept in.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "erank/data/tensor_info.h"
#include "erank/model/cuda/operations.h"
#include "erank/model/network.h"

namespace erank::model {
class WeightSource;
}

namespace erank::model::cuda {

// What is not of the network's type is unpacked to bf16 for each product, some outputs at a time:
// less memory, and the time of one more pass over the weights. Not thread-safe.
class Matrix {
 public:
  // Neighbouring outputs: numbers of the network's type; int8, each output with its scale; or
  // blocks of a GGUF file.
  struct Rows {
    at::Tensor values;                  // [n, in], or the bytes of n rows of blocks
    at::Tensor scales = {};             // [n, 1] fp32, of int8
    std::optional<data::DType> blocks;  // their format

    Rows narrow(int64_t first, int64_t count) const;
    bool alike(const Rows& other) const;  // the same form
  };

  Matrix() = default;
  // The tensors' rows, one tensor after another. `precision`: kInt8 packs them, kGguf keeps blocks
  // and takes the rest as bf16. Throws as the source does.
  Matrix(const WeightSource& source, const std::vector<std::string>& names, Precision precision,
         at::Device device);
  void set_bias(at::Tensor bias) { bias_ = std::move(bias); }  // [out]

  // x [T, in] -> [T, out].
  at::Tensor product(const at::Tensor& x, const Operations& operations) const;
  // The rows of `ids` [T] -> [T, in]. REQUIRES: of one tensor, not int8.
  at::Tensor rows(const at::Tensor& ids, const Operations& operations) const;
  int64_t bytes() const;  // without the bias

 private:
  at::Tensor unpacked(int64_t first, int64_t count, const Operations& operations) const;

  int64_t inputs_ = 0, outputs_ = 0;
  std::vector<Rows> parts_;  // neighbours in different forms
  at::Tensor bias_;          // or undefined
};

// A tensor of the source as `dtype`: [rows, columns], or [rows] where columns are 1.
at::Tensor read_tensor(const WeightSource& source, const std::string& name, at::ScalarType dtype,
                       at::Device device);

// What unpacked weights take at a time, roughly, in bytes.
int64_t unpacked_bytes(Precision precision, at::Device device);

}  // namespace erank::model::cuda
