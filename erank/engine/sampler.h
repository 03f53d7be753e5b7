// A row of logits -> a token and its log-probability. No tensor: pointers to fp32 rows come in.
#pragma once

#include <cstdint>
#include <span>

#include "erank/model/batch.h"

namespace erank::engine {

struct Sampling {
  double temperature = 0;  // 0: greedy (the lowest id of equals)
  double top_p = 1;        // keep the smallest set of tokens whose probability reaches it
  int top_k = 0;           // keep the k most probable tokens; 0: all
  uint64_t seed = 0;       // a request's draws depend on this alone, not on what runs beside it
};

// Throws Error{kInvalidInput} when a field is outside its range.
void check(const Sampling& sampling);

// The seed of a request's sample `index`: the request's own for index 0.
uint64_t sample_seed(uint64_t seed, int index);

// What a draw is made of, where a network makes it; `index` as in sample().
model::Drawing drawing(const Sampling& sampling, uint64_t index);

struct Draw {
  int32_t token = 0;
  double log_p =
      0;  // of the token in softmax(x / temperature) over all tokens, before top_k, top_p
};

// A draw from softmax(x / temperature), restricted first to the top_k largest logits, then to the
// smallest set of the most probable of those whose probability (among them) reaches top_p; of equal
// logits the lower ids come first. `index`: of the new token, so that the draw depends on the seed,
// the index and the row alone. `max`: of the logits. REQUIRES: check(sampling) passes, temperature
// > 0, the row is finite (RowResult::finite). Keeps scratch memory a thread.
Draw sample(std::span<const float> logits, float max, const Sampling& sampling, uint64_t index);

// The softmax of a row at temperature 1, of one of its logits. REQUIRES: the row was asked with
// RowRequest::sum.
double probability(const model::RowResult& row, float logit);
double log_probability(const model::RowResult& row, float logit);

}  // namespace erank::engine
