#include "erank/rank/score_reader.h"

#include <span>
#include <string>

#include "erank/base/error.h"
#include "erank/engine/engine.h"

namespace erank::rank {

ScoreReader::ScoreReader(const text::Tokenizer& tokenizer, text::Scale scale) : scale_(scale) {
  for (int value = 0; value <= text::max_answer(scale); ++value) {
    const std::string answer = text::answer_text(scale, value);
    choices_.push_back(tokenizer.encode(answer));
    if (choices_.back().size() != (value < 10 ? 1u : 2u))
      base::fail(base::ErrorKind::kInvalidInput, "model", "its tokenizer writes the answer ",
                 answer, " as ", choices_.back().size(), " tokens; expected one token for ",
                 scale == text::Scale::kYesNo ? "each word" : "each digit");
  }
}

text::ScoreDistribution ScoreReader::read(const engine::Completion& completion) const {
  const auto& p = completion.p_choices;
  ERANK_CHECK(!completion.fault && p.size() == choices_.size());
  if (scale_ != text::Scale::kZeroToTen) return text::ScoreDistribution::from_answers(scale_, p);
  // p[10] = Pr("1") Pr("0"|"1").
  const double zero_after_one = p[1] > 0 ? p[10] / p[1] : 0.0;
  return text::ScoreDistribution::from_digits(std::span<const double, 10>(p.data(), 10),
                                              zero_after_one, completion.last_is_argmax[10]);
}

double score_of(const text::ScoreDistribution& distribution, ScoreKind kind) {
  const int integer = distribution.greedy();
  switch (kind) {
    case ScoreKind::kPaper:
      if (distribution.scale == text::Scale::kYesNo) return distribution.expected();
      return integer * distribution.p[integer];
    case ScoreKind::kExpected:
      return distribution.expected();
    case ScoreKind::kInteger:
      break;
  }
  return integer;
}

}  // namespace erank::rank
