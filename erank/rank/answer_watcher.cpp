#include "erank/rank/answer_watcher.h"

#include <algorithm>

#include "erank/base/utf8.h"

namespace erank::rank {

engine::Verdict AnswerWatcher::operator()(std::span<const int32_t> new_tokens) {
  while (ends_.size() < new_tokens.size()) {
    const int32_t id = new_tokens[ends_.size()];
    // A network may have more rows than its tokenizer has tokens; an id from there has no text.
    if (tokenizer_->has(id)) text_ += tokenizer_->bytes_of(id);
    ends_.push_back(text_.size());
  }
  const auto begin = parser_.find_integer(text_);
  if (!begin) return {};
  answered_ = true;
  const auto exact = std::find(ends_.begin(), ends_.end(), *begin);
  if (exact != ends_.end())
    return {.stop = true, .keep = static_cast<int>(exact - ends_.begin()) + 1, .force = false};
  const size_t reasoning_end = text::AnswerParser::thought_end(text_);
  const auto kept = std::upper_bound(ends_.begin(), ends_.end(), reasoning_end);
  return {.stop = true, .keep = static_cast<int>(kept - ends_.begin()), .force = true};
}

std::string AnswerWatcher::reasoning(size_t num_tokens) const {
  const size_t end = num_tokens == 0 ? 0 : ends_.at(num_tokens - 1);
  return text::AnswerParser::reasoning_of(
      base::sanitize_utf8(std::string_view(text_).substr(0, end)));
}

}  // namespace erank::rank
