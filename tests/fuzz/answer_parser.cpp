// Answers of a model: any bytes are parsed or refused, and what is parsed is in the text as the
// scale spells it.
#include "erank/text/answer_parser.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "tests/fuzz/memory_file.h"

using erank::fuzz::demand;
using erank::text::AnswerParser;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string thought = AnswerParser::reasoning_of(text);
  demand(thought.size() <= size && AnswerParser::thought_end(text) <= size);
  const auto begin = AnswerParser().find_integer(text);
  const auto answer = AnswerParser().parse(text);
  if (!answer) return 0;
  demand(begin == answer->integer_begin && answer->reasoning == thought);
  demand(answer->value >= 0 && answer->value <= 10);
  demand(text.substr(answer->integer_begin, answer->integer_end - answer->integer_begin) ==
         std::to_string(answer->value));
  const std::string own = "<think></think><answer>" + std::to_string(answer->value) + "</answer>";
  demand(AnswerParser().parse(own)->value == answer->value);
  return 0;
}
