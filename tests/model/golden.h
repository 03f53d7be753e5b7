// What the tests against golden numbers share: tools/make_model_golden.py fills checkpoints by the
// same formula.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/model/parameters.h"
#include "tests/test_folder.h"

namespace erank::model {

using ::erank::TestFolder;

inline base::Json read_golden(const std::string& name) {
  const std::string path = std::string(ERANK_SOURCE_DIR) + "/tests/golden/" + name;
  return base::parse_json(base::read_file(path), path);
}

// Norms in 0.5 .. 1.5, embeddings up to 1, the rest up to 1/4; every value is exact in bf16.
inline at::Tensor golden_fill(const std::string& name, at::IntArrayRef shape) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  base::Random random(hash);
  at::Tensor tensor = at::empty(shape, at::dtype(at::kFloat));
  float* values = tensor.mutable_data_ptr<float>();
  const bool norm = name.find("norm") != std::string::npos;
  const float scale = name.find("embed") != std::string::npos ? 1.0f : 0.25f;
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const uint64_t bits = random.next();
    values[i] = norm ? 1 + (static_cast<float>(bits >> 58) - 32) / 64
                     : (static_cast<float>(bits >> 56) - 128) / 128 * scale;
  }
  return tensor;
}

// Writes scale * golden_fill into each tensor.
inline void fill_golden(const std::vector<NamedTensor>& tensors, double scale = 1) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : tensors)
    tensor.copy_(golden_fill(name, tensor.sizes())).mul_(scale);
}

inline void fill_golden(const Parameters& parameters) { fill_golden(parameters.named()); }

// The largest |logits[row][columns[j]] - expected[row][j]|.
inline double largest_difference(const at::Tensor& logits, const base::Json& columns,
                                 const base::Json& expected, int64_t row_step = 1) {
  const at::Tensor values = logits.contiguous();
  const float* data = values.const_data_ptr<float>();
  double largest = 0;
  for (size_t row = 0; row < expected.size(); ++row)
    for (size_t j = 0; j < columns.size(); ++j) {
      const int64_t column = columns[j].get<int64_t>();
      const double found = data[static_cast<int64_t>(row) * row_step * values.size(1) + column];
      const double difference = std::abs(found - expected[row][j].get<double>());
      largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
    }
  return largest;
}

}  // namespace erank::model
