// A linear layer's weights in the order in which the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/model/cpu/kernels.h"
#include "erank/model/cpu/memory.h"
#include "erank/model/network.h"

namespace erank::model::cpu {

// Panels of kPanel outputs; padding of panels and groups is zero. int8: each
// output has its own scale, its largest weight over 127. Reading is thread-safe; so is filling
// different outputs.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Zero weights. `outputs` and `inputs` are padded up to multiples of kPanel.
  PackedMatrix(int64_t outputs, int64_t inputs, Precision precision);

  // Weights of output `column`: `values` (float, or bf16 where precision() is kBf16) of inputs 0 ..
  // n - 1, input i going to place places[i], or i when `places` is null.
  void set(int64_t column, const void* values, int64_t n, const int32_t* places);
  // What set() wrote, as floats (of int8: the value that is multiplied): n inputs of one output.
  void get(int64_t column, float* values, int64_t n) const;

  int64_t num_panels() const { return outputs_ / kPanel; }
  int64_t inputs() const { return inputs_; }  // padded
  Precision precision() const { return precision_; }
  int64_t bytes() const { return memory_.bytes(); }

  // Rows x [rows, inputs()] times panel `panel` -> y [rows, ldy].
  struct Rows {
    const void* x;
    int64_t ldx;           // elements
    const float* x_scale;  // int8
    int64_t rows;
  };
  void multiply(const Rows& rows, int64_t panel, float* y, int64_t ldy) const;

 private:
  int64_t group() const;
  int64_t element_bytes() const;

  int64_t outputs_ = 0, inputs_ = 0;
  Precision precision_ = Precision::kBf16;
  Memory memory_;
  std::vector<float> scale_;  // [outputs], int8
  std::vector<int32_t> sum_;  // [outputs] 128 times the sum of the weights, int8
};

}  // namespace erank::model::cpu
