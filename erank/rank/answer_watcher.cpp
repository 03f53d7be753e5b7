#include "erank/rank/answer_watcher.h"

#include <algorithm>

#include "erank/text/answer_parser.h"

namespace erank::rank {

engine::Verdict AnswerWatcher::operator()(std::span<const int32_t> new_tokens) {
  while (ends_.size() < new_tokens.size()) {
    text_ += tokenizer_->bytes_of(new_tokens[ends_.size()]);
    ends_.push_back(text_.size());
  }
  const auto begin = text::AnswerParser::find_integer(text_);
  if (!begin) return {};
  answered_ = true;
  const auto exact = std::find(ends_.begin(), ends_.end(), *begin);
  if (exact != ends_.end())
    return {.stop = true, .keep = static_cast<int>(exact - ends_.begin()) + 1, .close = false};
  const size_t thought_end = text::AnswerParser::thought_end(text_);
  const auto kept = std::upper_bound(ends_.begin(), ends_.end(), thought_end);
  return {.stop = true, .keep = static_cast<int>(kept - ends_.begin()), .close = true};
}

}  // namespace erank::rank
