// The model's probability of each answer on its scale, read at the answer position.
#pragma once

#include <array>
#include <span>

namespace erank::text {

// p[i] is the full-vocabulary probability, at temperature 1, that the answer is the integer i
// (0..10). The digits are single tokens and 10 is "1" then "0", so Pr(10) = Pr("1") Pr("0"|"1") and
// Pr(1) = Pr("1") (1 - Pr("0"|"1")).
struct ScoreDistribution {
  std::array<double, 11> p{};
  double p_other = 0;            // 1 - sum p: everything that is not an answer
  bool ten_follows_one = false;  // after "1", "0" is the most probable of all tokens

  // `digits[d]` = Pr(d) for d = "0".."9" at the answer position, `zero_after_one` = Pr("0"|"1").
  // REQUIRES: each is a probability; their sum may pass 1 by rounding, then p_other is 0.
  static ScoreDistribution from_digits(std::span<const double, 10> digits, double zero_after_one,
                                       bool ten_follows_one);

  // The integer that digit-by-digit greedy decoding emits: the most probable digit (the lowest of
  // equals), then "0" after a "1" when that is the most probable token there.
  int greedy() const;
  double expected() const;  // sum i p[i] / sum p[i], in 0..10; 0 when every p is 0
  double entropy() const;   // of p / sum p, in nats; 0 when every p is 0
};

}  // namespace erank::text
