// The one place that knows how the engine is asked for a score and how its answer becomes a
// distribution: serving and the validation of training read scores with it.
#pragma once

#include <cstdint>
#include <vector>

#include "erank/rank/checkpoint.h"
#include "erank/text/score_distribution.h"
#include "erank/text/tokenizer.h"

namespace erank::engine {
struct Completion;
}

namespace erank::rank {

// Immutable; thread-safe.
class ScoreReader {
 public:
  // Throws Error{kInvalidInput} when the tokenizer does not write every digit, or the scale's
  // words, as one token.
  explicit ScoreReader(const text::Tokenizer& tokenizer,
                       text::Scale scale = text::Scale::kZeroToTen);

  // What engine::Request::choices needs: the ids of the scale's answers in their order, one id
  // each, but the two of "1" "0" for 10.
  const std::vector<text::Ids>& choices() const { return choices_; }

  // The distribution that a completion of these choices holds. REQUIRES: no fault in it.
  text::ScoreDistribution read(const engine::Completion& completion) const;

 private:
  text::Scale scale_;
  std::vector<text::Ids> choices_;
};

// What a kind of score makes of a distribution.
double score_of(const text::ScoreDistribution& distribution, ScoreKind kind);

}  // namespace erank::rank
