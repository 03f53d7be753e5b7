// One row of logits -> a token, or probabilities. No tensor: pointers to fp32 rows come in.
#pragma once

#include <cstdint>
#include <span>

#include "erank/engine/engine.h"

namespace erank::engine {

// The softmax of a row of logits x at temperature 1: p(i) = exp(x[i] - max) / sum_j exp(x[j] -
// max).
struct Softmax {
  float max = 0;
  double sum = 0;      // of exp(x[j] - max), added in double
  int32_t argmax = 0;  // the lowest id of the largest
  // Whether every logit was a number and at least one finite; otherwise the rest means nothing.
  bool valid = false;

  explicit Softmax(std::span<const float> logits);
  double p(float logit) const;
};

// The token to write. Temperature 0: the lowest id of the largest logit. Otherwise a draw from
// softmax(x / temperature), restricted first to the top_k largest logits, then to the smallest set
// of the most probable of those whose probability (among them) reaches top_p; of equal logits the
// lower ids come first. `draw`: the index of the new token, so that the draw depends on the seed,
// the index and the row alone. -1 when a logit is not a number or none is finite. REQUIRES:
// check(sampling) passes.
int32_t sample(std::span<const float> logits, const Sampling& sampling, uint64_t draw);

// Throws Error{kInvalidInput} when a field is outside its range.
void check(const Sampling& sampling);

}  // namespace erank::engine
