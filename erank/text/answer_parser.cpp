#include "erank/text/answer_parser.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/text/white_space.h"

namespace erank::text {
namespace {

constexpr std::string_view kThinkOpen = "<think>";
constexpr std::string_view kThinkClose = "</think>";
constexpr std::string_view kAnswerOpen = "<answer>";
constexpr std::string_view kAnswerClose = "</answer>";
constexpr std::string_view kYes = "yes", kNo = "no";

// Moves `pos` past `tag` when it is there.
bool take(std::string_view text, size_t& pos, std::string_view tag) {
  if (text.substr(pos, tag.size()) != tag) return false;
  pos += tag.size();
  return true;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

AnswerParser::AnswerParser(int max_value) : max_value_(max_value) {
  ERANK_CHECK(max_value >= 0 && max_value < 1000, "max_value ", max_value);
}

std::optional<Answer> AnswerParser::parse(std::string_view text) const {
  const std::optional<size_t> begin = find_integer(text);
  if (!begin) return std::nullopt;
  size_t pos = *begin;
  Answer answer;
  answer.integer_begin = pos;
  if (words_) {
    answer.value = take(text, pos, kYes) ? 1 : 0;
    if (answer.value == 0) take(text, pos, kNo);
  } else {
    while (pos < text.size() && is_digit(text[pos]) && pos - answer.integer_begin < 4) {
      answer.value = answer.value * 10 + (text[pos++] - '0');
    }
  }
  answer.integer_end = pos;
  const size_t num_digits = answer.integer_end - answer.integer_begin;
  if (answer.value > max_value_) return std::nullopt;
  if (num_digits > 1 && text[answer.integer_begin] == '0') return std::nullopt;

  pos = skip_white_space(text, pos);
  if (!take(text, pos, kAnswerClose)) return std::nullopt;
  if (skip_white_space(text, pos) != text.size()) return std::nullopt;
  answer.reasoning = reasoning_of(text);
  return answer;
}

std::optional<Answer> AnswerParser::parse_reply(std::string_view reasoning,
                                                std::string_view text) const {
  const bool closed = thought_end(text) < text.size();
  std::optional<Answer> answer = parse(closed ? std::string(text) : base::str(kThinkClose, text));
  if (!answer) return answer;
  if (!closed) {
    answer->integer_begin -= kThinkClose.size();
    answer->integer_end -= kThinkClose.size();
  }
  if (const auto own = trim_white_space(reasoning); !own.empty()) answer->reasoning = own;
  return answer;
}

std::string AnswerParser::without_tags(std::string_view reasoning) {
  std::string kept;  // never holds a tag: one goes when its last byte comes
  for (const char c : reasoning) {
    kept += c;
    if (c != kThinkOpen.back()) continue;
    for (const std::string_view tag : {kThinkOpen, kThinkClose, kAnswerOpen, kAnswerClose})
      if (kept.ends_with(tag)) kept.resize(kept.size() - tag.size());
  }
  return std::string(trim_white_space(kept));
}

size_t AnswerParser::thought_end(std::string_view text) {
  return std::min(text.rfind(kThinkClose), text.size());
}

std::optional<size_t> AnswerParser::find_integer(std::string_view text) const {
  const size_t close = thought_end(text);
  if (close == text.size()) return std::nullopt;
  size_t pos = skip_white_space(text, close + kThinkClose.size());
  if (!take(text, pos, kAnswerOpen)) return std::nullopt;
  pos = skip_white_space(text, pos);
  const std::string_view rest = text.substr(pos);
  const bool found = words_ ? rest.starts_with(kYes) || rest.starts_with(kNo)
                            : !rest.empty() && is_digit(rest.front());
  return found ? std::optional(pos) : std::nullopt;
}

std::string AnswerParser::reasoning_of(std::string_view text) {
  text = text.substr(0, thought_end(text));
  size_t pos = skip_white_space(text, 0);
  if (take(text, pos, kThinkOpen)) text.remove_prefix(pos);
  return std::string(trim_white_space(text));
}

}  // namespace erank::text
