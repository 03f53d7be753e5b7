// The answer's grammar: after the last `</think>`, optional white space, `<answer>`, optional white
// space, an answer on the scale, optional white space, `</answer>`, optional white space, the end.
// Anything else is unformatted (nullopt): no answer is ever guessed.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "erank/text/scale.h"

namespace erank::text {

struct Answer {
  int value = 0;
  std::string reasoning;     // the reasoning before the last </think>, trimmed
  size_t integer_begin = 0;  // byte range of the integer, or the word, in the text
  size_t integer_end = 0;
};

// Immutable; thread-safe.
class AnswerParser {
 public:
  // The answers are 0..max_value. REQUIRES: 0 <= max_value < 1000.
  explicit AnswerParser(int max_value = 10);
  explicit AnswerParser(Scale scale)
      : max_value_(max_answer(scale)), words_(scale == Scale::kYesNo) {}

  // `text`: what the model wrote, decoded (its reasoning first; `<think>` itself may be missing
  // when the prompt held it). Tags are matched as lower-case text. The integer is written as on the
  // scale: ASCII digits, no sign, no leading zero, no fraction; on kYesNo "yes" or "no" in lower
  // case. White space is Unicode's.
  // Broken UTF-8 is text like any other.
  std::optional<Answer> parse(std::string_view text) const;

  // The reasoning alone, trimmed, also of unfinished text: what comes before the last `</think>`
  // (the whole text when there is none), without a `<think>` at its beginning.
  static std::string reasoning_of(std::string_view text);

  // Of a reply whose server took the reasoning out of it, or whose reasoning the server kept to
  // itself: as parse(), but `text` may begin with the answer. The reasoning is `reasoning` unless
  // that is empty.
  std::optional<Answer> parse_reply(std::string_view reasoning, std::string_view text) const;

  // `reasoning` without the tags of this grammar: what serving reads back as reasoning.
  static std::string without_tags(std::string_view reasoning);

  // For text that is still being written. Where the reasoning ends: the byte at which the last
  // `</think>` begins, text.size() when there is none.
  static size_t thought_end(std::string_view text);
  // The byte at which the answer's integer begins: a digit after the opening that parse() expects;
  // nullopt as long as there is none. Whether the integer is on the scale is not looked at. On
  // kYesNo: the byte at which "yes" or "no" begins there.
  std::optional<size_t> find_integer(std::string_view text) const;

 private:
  int max_value_;
  bool words_ = false;  // "no" and "yes" in place of 0 and 1
};

}  // namespace erank::text
