// Weights kept as a GGUF file has them, in blocks of 4 to 8 bits a value, unpacked panel by panel
// where they are multiplied.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/data/tensor_info.h"
#include "erank/model/cpu/memory.h"
#include "erank/model/network.h"

namespace erank::model::cpu {

// Outputs come in strips of 16, each with a format of its own: a block format, F32 or BF16. Of a
// strip, 256 inputs of its 16 outputs are neighbours, then the next 256. Reading is thread-safe; so
// is filling different outputs.
class StoredRows {
 public:
  static constexpr int64_t kStrip = 16;

  StoredRows() = default;
  // Zero weights. REQUIRES: whole blocks of each format.
  StoredRows(int64_t inputs, std::vector<data::DType> formats);
  static int64_t bytes_of(int64_t inputs, const std::vector<data::DType>& formats);
  static int64_t row_bytes(data::DType format, int64_t values);

  bool empty() const { return formats_.empty(); }
  int64_t bytes() const { return memory_.bytes(); }

  // A whole row, in its strip's format.
  void set(int64_t output, const void* row);
  // The values of an output: `dequantize` gives them, rounded to bf16 unless `precision` is kFp32.
  void get(int64_t output, Precision precision, float* values) const;
  // A panel as kernels.h has it, of those values. `precision` is kFp32 or kBf16. REQUIRES: whole
  // panels of outputs, a multiple of kPanel inputs.
  void unpack(int64_t panel, Precision precision, void* out) const;

 private:
  // Part `part` of a strip: 16 rows of up to 256 values.
  struct Part {
    uint8_t* bytes;
    int64_t values, row_bytes;
  };
  Part part_of(int64_t strip, int64_t part) const;
  int64_t num_parts() const;

  int64_t inputs_ = 0;
  std::vector<data::DType> formats_;
  std::vector<int64_t> offsets_;  // of strips
  Memory memory_;
};

}  // namespace erank::model::cpu
