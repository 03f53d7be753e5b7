// A linear layer's weights in the order in which the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/model/cpu/kernels.h"
#include "erank/model/cpu/memory.h"
#include "erank/model/cpu/stored_rows.h"
#include "erank/model/network.h"

namespace erank::model::cpu {

// How the activations of an int8 product are scaled (kernels.h, QuantizeArgs).
struct Int8Layout {
  int64_t section = 0;                 // inputs that share a scale, a multiple of 16; 0: all
  std::vector<int32_t> outliers = {};  // inputs with sections of their own, a multiple of 16
};

// What a matrix is made of. `outputs` and `inputs` are padded up to multiples of kPanel.
struct MatrixPlan {
  int64_t outputs = 0, inputs = 0;
  Precision precision = Precision::kBf16;  // of products: kFp32, kBf16 or kInt8
  Int8Layout int8 = {};                    // looked at with int8 only
  // Where it is not empty, the weights are kept in these formats, one for each 16 outputs of whole
  // panels, and unpacked to fp32 or bf16 when they are multiplied.
  std::vector<data::DType> stored = {};

  int64_t bytes() const;  // that a matrix of it takes
};

// Panels of kPanel outputs; padding of panels and groups is zero. int8: each
// section of an output has its own scale, its largest weight over 127. Reading is thread-safe; so
// is filling different outputs.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  explicit PackedMatrix(const MatrixPlan& plan);  // zero weights
  PackedMatrix(int64_t outputs, int64_t inputs, Precision precision, const Int8Layout& layout = {})
      : PackedMatrix(MatrixPlan{outputs, inputs, precision, layout}) {}

  // Weights of output `column`: `values` (float, or bf16 where precision() is kBf16) of inputs 0 ..
  // n - 1, input i going to place places[i], or i when `places` is null. Where is_stored(): of all
  // inputs in order, in the column's format.
  void set(int64_t column, const void* values, int64_t n, const int32_t* places);
  // What set() wrote, as floats (of int8: the value that is multiplied): n inputs of one output.
  void get(int64_t column, float* values, int64_t n) const;

  int64_t num_panels() const { return outputs_ / kPanel; }
  int64_t inputs() const { return inputs_; }  // padded
  Precision precision() const { return precision_; }
  bool is_stored() const { return !stored_.empty(); }
  int64_t bytes() const;

  // Elements of a row that is multiplied: inputs(), and with int8 the outliers twice.
  int64_t row_width() const { return width_; }
  int64_t num_sections() const { return std::ssize(section_groups_); }

  // Rows x [rows, row_width()], with int8 what quantize() wrote.
  struct Rows {
    const void* x;
    int64_t ldx;           // elements
    const float* x_scale;  // [rows, num_sections()], int8
    int64_t rows;
  };
  // Rows of x [rows, ldx] as unsigned bytes y [rows, row_width()] with scale [rows,
  // num_sections()]. Where there are outliers x must be float and loses them.
  template <typename T>
  void quantize(T* x, int64_t ldx, int64_t rows, uint8_t* y, float* scale) const {
    const QuantizeArgs<T> args{x,
                               ldx,
                               rows,
                               y,
                               width_,
                               scale,
                               section_groups_.data(),
                               num_sections(),
                               outliers_.data(),
                               std::ssize(outliers_)};
    if constexpr (sizeof(T) == 4)
      kernels().quantize_f32(args);
    else
      kernels().quantize_bf16(args);
  }
  // Rows times panel `panel` -> y [rows, ldy]. Where is_stored() the panel is unpacked for this
  // call: more rows at once cost less each.
  void multiply(const Rows& rows, int64_t panel, float* y, int64_t ldy) const;
  // Takes the memory into which the calling thread unpacks panels of so many bytes, which
  // multiply() would take else. False: there is none.
  static bool reserve_panel(int64_t bytes) noexcept;

 private:
  int64_t group() const;
  int64_t scale_index(int64_t column) const;  // of an output's first section
  int64_t element_bytes() const;

  int64_t outputs_ = 0, inputs_ = 0, width_ = 0;
  Precision precision_ = Precision::kBf16;
  Memory memory_;
  StoredRows stored_;  // in place of memory_
  // int8:
  std::vector<int32_t> section_groups_;
  std::vector<int32_t> outliers_;
  std::vector<float> scale_;     // [panels, num_sections(), kPanel]
  std::vector<int32_t> offset_;  // likewise, -128 times the weights' sum
};

}  // namespace erank::model::cpu
