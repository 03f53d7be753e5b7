// The pre-tokeniser: text into the pieces that BPE takes as words.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "erank/text/split_classes.h"
#include "erank/text/split_regex.h"
#include "erank/text/split_words.h"

namespace erank::text {

struct SplitStep {
  enum class Kind { kQwen2, kLlama3, kGpt2, kDigits, kDigitRuns, kRegex, kPrefixSpace };
  Kind kind = Kind::kGpt2;
  std::shared_ptr<const SplitRegex> regex = {};  // of kRegex
  bool keep_matches = true;                      // of kRegex: matches are pieces
  bool keep_gaps = true;                         // of kRegex: the text between them is a piece
};

// A step that splits at `pattern` (Oniguruma's notation): one of the hand-written scans when the
// pattern is one of theirs, else a regex. Throws Error{kInvalidInput}.
SplitStep split_step_for(std::string_view pattern, std::string_view where);

// Immutable; thread-safe.
class SplitSteps {
 public:
  SplitSteps() = default;
  explicit SplitSteps(std::vector<SplitStep> steps)
      : steps_(std::move(steps)), classes_(code_classes()) {}

  // Calls piece(string_view) for each piece, none of them empty, in order. Each step splits each
  // piece of the step before as a text of its own. REQUIRES: text is valid UTF-8.
  template <typename F>
  void for_each(std::string_view text, F&& piece) const {
    split(0, text, piece);
  }

 private:
  template <typename Next, typename F>
  void scan(size_t step, std::string_view text, F& piece, Next next) const {
    const bool last = step + 1 == steps_.size();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = next(begin);
      const std::string_view part = text.substr(begin, end - begin);
      if (last)
        piece(part);
      else
        split(step + 1, part, piece);
      begin = end;
    }
  }

  template <typename F>
  void split(size_t step, std::string_view text, F& piece) const {
    if (text.empty()) return;
    if (step == steps_.size()) return piece(text);
    switch (steps_[step].kind) {
      case SplitStep::Kind::kQwen2:
        return scan(step, text, piece,
                    [&](size_t i) { return next_qwen2_piece(classes_, text, i, 1); });
      case SplitStep::Kind::kLlama3:
        return scan(step, text, piece,
                    [&](size_t i) { return next_qwen2_piece(classes_, text, i, 3); });
      case SplitStep::Kind::kGpt2:
        return scan(step, text, piece,
                    [&](size_t i) { return next_gpt2_piece(classes_, text, i); });
      case SplitStep::Kind::kDigits:
        return scan(step, text, piece,
                    [&](size_t i) { return next_digits_piece(classes_, text, i, true); });
      case SplitStep::Kind::kDigitRuns:
        return scan(step, text, piece,
                    [&](size_t i) { return next_digits_piece(classes_, text, i, false); });
      case SplitStep::Kind::kPrefixSpace:
        if (text[0] == ' ') return split(step + 1, text, piece);
        return split(step + 1, std::string(" ").append(text), piece);
      case SplitStep::Kind::kRegex:
        return split_by_regex(step, text, piece);
    }
  }

  template <typename F>
  void split_by_regex(size_t step, std::string_view text, F& piece) const {
    const SplitStep& s = steps_[step];
    size_t done = 0, from = 0, begin = 0, end = 0;
    while (from <= text.size() && s.regex->find(text, from, begin, end)) {
      if (s.keep_gaps) split(step + 1, text.substr(done, begin - done), piece);
      if (s.keep_matches) split(step + 1, text.substr(begin, end - begin), piece);
      done = from = end;
      if (begin == end) {
        if (end == text.size()) break;
        from += code_point_at(text, end).length;
      }
    }
    if (s.keep_gaps) split(step + 1, text.substr(done), piece);
  }

  std::vector<SplitStep> steps_;
  const uint8_t* classes_ = nullptr;
};

}  // namespace erank::text
