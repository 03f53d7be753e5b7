// The answer's grammar: after the last `</think>`, optional white space, `<answer>`, optional white space, an
// integer on the scale, optional white space, `</answer>`. Anything else is unformatted (nullopt).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace erank::text {

struct Answer {
  int value = 0;
  std::string reasoning;    // the thought between <think> and the last </think>, trimmed
  size_t integer_begin = 0; // byte range of the integer in the text
  size_t integer_end = 0;
};

class AnswerParser {
 public:
  explicit AnswerParser(int max_value = 10) : max_value_(max_value) {}
  // `text`: what the model wrote (its thought first; `<think>` itself may be missing when the prompt held it).
  std::optional<Answer> parse(std::string_view text) const;
  // The thought alone, also of unfinished text.
  static std::string reasoning_of(std::string_view text);

 private:
  int max_value_;
};

}  // namespace erank::text
