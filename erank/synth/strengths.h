// From comparisons of two documents at a time to a strength of each, and to scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace erank::synth {

// The first document of a comparison is shown first.
struct Comparison {
  size_t first = 0, second = 0;
  double share = 0;  // of the win that the first has: 1, 0, or 0.5 of a tie
};

// What is compared of `count` documents: `num_cycles` random cycles, in each of which every
// document is compared with two others, once as the first and once as the second; of two documents
// both orders; of one nothing. The c-th cycle depends on the seed and c alone.
std::vector<Comparison> random_cycles(size_t count, int64_t num_cycles, uint64_t seed);

// Strengths of Bradley and Terry (1952), by maximum likelihood: document a wins over b with the
// probability 1 / (1 + exp(s_b - s_a)). Each document has besides `prior` wins and `prior` losses
// against one of strength 0, so that one that wins or loses always has a finite strength, documents
// that are not linked by comparisons can be laid on one scale, and one without comparisons has 0.
// Maximises
//   sum of share log P(first wins) + (1 - share) log P(second wins)
//   + prior sum of log P(document wins over strength 0) + log P(it loses)
// by Newton's method, to a gradient of 1e-10 of the number of comparisons. Time count^3 a step.
// REQUIRES: prior > 0, first != second, both below `count`, shares in 0..1.
std::vector<double> fit_strengths(size_t count, std::span<const Comparison> comparisons,
                                  double prior = 0.1);

// Laid on 0..10: the weakest is 0, the strongest 10, the others between them in proportion. All 5
// where all are equal (within 1e-9).
std::vector<double> scores_of_strengths(std::span<const double> strengths);

}  // namespace erank::synth
