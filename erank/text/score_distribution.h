// The model's probability of each answer on its scale, read at the answer position.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "erank/text/scale.h"

namespace erank::text {

// p[i] is the full-vocabulary probability, at temperature 1, that the answer is i, from 0 to the
// scale's largest; above that p is 0. On the scale 0..10 the digits are single tokens and 10 is "1"
// then "0", so Pr(10) = Pr("1") Pr("0"|"1") and Pr(1) = Pr("1") (1 - Pr("0"|"1")). On the others
// each answer is one token, and Pr(i) is that token's.
struct ScoreDistribution {
  std::array<double, 11> p{};
  Scale scale = Scale::kZeroToTen;
  double p_other = 0;            // 1 - sum p: everything that is not an answer
  bool ten_follows_one = false;  // after "1", "0" is the most probable of all tokens

  // `digits[d]` = Pr(d) for d = "0".."9" at the answer position, `zero_after_one` = Pr("0"|"1").
  // REQUIRES: each is a probability; their sum may pass 1 by rounding, then p_other is 0.
  static ScoreDistribution from_digits(std::span<const double, 10> digits, double zero_after_one,
                                       bool ten_follows_one);

  // Of a scale whose answers are one token each. REQUIRES: a probability for each of its answers.
  static ScoreDistribution from_answers(Scale scale, std::span<const double> answers);

  // p of the scale's answers.
  std::span<const double> answers() const {
    return {p.data(), static_cast<size_t>(max_answer(scale)) + 1};
  }

  // The answer that greedy decoding gives among those of the scale: the most probable digit or word
  // (the lowest of equals); on 0..10 then "0" after a "1" when that is the most probable token
  // there.
  int greedy() const;
  // sum i p[i] / sum p[i], from 0 to the largest answer; 0 when every p is 0. On kYesNo that is
  // Pr(yes) / (Pr(yes) + Pr(no)).
  double expected() const;
  double entropy() const;  // of p / sum p, in nats; 0 when every p is 0
};

}  // namespace erank::text
