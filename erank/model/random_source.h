// Random weights of a shape that are never held anywhere: rows are made as they are read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "erank/model/weight_source.h"

namespace erank::model {

// Matrices of deviation 0.02 and mean 0, norms of 1, biases of 0; a row depends on the seed, its
// tensor and its number alone. `blocks`: matrices are in GGUF's blocks as a Q4_K_M file has most of
// its own: Q4_K in the layers, Q6_K in embedding and head; Q4_0 and Q8_0 where a row is not whole
// blocks of 256 values, and none where not of 32.
class RandomSource : public WeightSource {
 public:
  RandomSource(const ModelConfig& config, uint64_t seed, bool blocks = false);

  Size size_of(const std::string& name) const override;
  std::optional<data::DType> stored_format(const std::string& name) const override;
  void read_stored(const std::string& name, int64_t begin, int64_t end,
                   const TakeRows& take) const override;

 protected:
  void read_base(const std::string& name, at::ScalarType dtype, int64_t begin, int64_t end,
                 const TakeRows& take) const override;
  const Lora* lora(const std::string&) const override { return nullptr; }

 private:
  uint64_t seed_;
  bool blocks_;
  std::map<std::string, Size> sizes_;
};

// The sum of the four 16-bit numbers of `bits`, scaled to variance 1 and mean 0: near enough to a
// normal number, and a tenth of its price.
float cheap_normal(uint64_t bits);
uint64_t name_hash(const std::string& name);  // FNV-1a

}  // namespace erank::model
