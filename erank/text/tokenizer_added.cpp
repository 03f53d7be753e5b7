#include "erank/text/tokenizer_added.h"

#include <utf8proc.h>

#include <algorithm>

#include "erank/text/split_classes.h"

namespace erank::text {
namespace {

size_t previous_character(std::string_view text, size_t end) {
  size_t i = end - 1;
  while ((static_cast<uint8_t>(text[i]) & 0xc0) == 0x80) --i;
  return i;
}

// \w of Rust's regex: letters, marks, decimal and letter numbers, connectors, the two joiners.
bool is_word(uint32_t c) {
  if ((code_classes()[c] & kLetter) != 0 || c == 0x200c || c == 0x200d) return true;
  switch (utf8proc_category(static_cast<int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word(code_point_at(text, previous_character(text, begin)).value)) ||
         (end < text.size() && is_word(code_point_at(text, end).value));
}

bool is_space_at(std::string_view text, size_t i) {
  return (code_classes()[code_point_at(text, i).value] & kSpace) != 0;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  const auto first = [](const AddedToken& t) { return static_cast<uint8_t>(t.content[0]); };
  std::stable_sort(tokens_.begin(), tokens_.end(), [&](const AddedToken& a, const AddedToken& b) {
    return first(a) != first(b) ? first(a) < first(b) : a.content.size() > b.content.size();
  });
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    auto& range = range_[first(tokens_[i])];
    if (range.second == 0) range.first = i;
    range.second = i + 1;
  }
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::find_all(std::string_view text) const {
  std::vector<Match> matches;
  size_t taken = 0;  // end of the last match, with the white space after it
  for (size_t i = 0; i < text.size();) {
    const auto [from, to] = range_[static_cast<uint8_t>(text[i])];
    const AddedToken* token = nullptr;
    for (uint32_t k = from; k < to && token == nullptr; ++k)
      if (text.substr(i, tokens_[k].content.size()) == tokens_[k].content) token = &tokens_[k];
    if (token == nullptr) {
      ++i;
      continue;
    }
    Match match{i, i + token->content.size(), token->id};
    i = match.end;
    if (token->single_word && touches_word(text, match.begin, match.end)) continue;
    if (token->lstrip)
      while (match.begin > taken) {
        const size_t before = previous_character(text, match.begin);
        if (before < taken || !is_space_at(text, before)) break;
        match.begin = before;
      }
    if (token->rstrip)
      while (match.end < text.size() && is_space_at(text, match.end))
        match.end += code_point_at(text, match.end).length;
    matches.push_back(match);
    taken = match.end;
  }
  return matches;
}

}  // namespace erank::text
