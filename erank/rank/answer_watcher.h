// Follows the reasoning token by token and stops it where the answer's integer begins.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "erank/engine/engine.h"
#include "erank/text/answer_parser.h"
#include "erank/text/tokenizer.h"

namespace erank::rank {

// One a pair in thinking mode: Request::watch. Not thread-safe. The tokenizer must outlive it.
class AnswerWatcher {
 public:
  AnswerWatcher(const text::Tokenizer& tokenizer, text::Scale scale)
      : tokenizer_(&tokenizer), parser_(scale) {}

  // All new tokens so far -> whether to stop. The tokens that stay end right in front of the
  // integer, so that the probabilities are read there; where one token holds the integer and what
  // comes before it, the reasoning alone stays and the answer prefix is written after it.
  engine::Verdict operator()(std::span<const int32_t> new_tokens);

  // The model wrote an answer's opening and a digit, or a word of the scale.
  bool answered() const { return answered_; }

  // The reasoning that the first `num_tokens` new tokens spell, as valid UTF-8. REQUIRES: they have
  // been watched.
  std::string reasoning(size_t num_tokens) const;

 private:
  const text::Tokenizer* tokenizer_;
  text::AnswerParser parser_;
  std::string text_;
  std::vector<size_t> ends_;  // bytes of text_ after each token
  bool answered_ = false;
};

}  // namespace erank::rank
