// Any other split pattern of a tokenizer.json, run by PCRE2 with the meaning that Oniguruma gives
// it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace erank::text {

// `pattern`, as Oniguruma reads it, rewritten for PCRE2: white space without U+180E, categories
// with the characters assigned since Unicode 14, scripts, `^` and `$` at lines. Throws
// Error{kInvalidInput} that names a construct whose meaning differs between the two and that we do
// not rewrite. `where` names the file in messages.
std::string translate_split_pattern(std::string_view pattern, std::string_view where);

// A compiled pattern. Immutable; thread-safe (each thread has its own matching state).
class SplitRegex {
 public:
  // `literal`: the pattern is text, not a regular expression. Throws Error{kInvalidInput} with
  // PCRE2's message.
  SplitRegex(std::string_view pattern, bool literal, std::string_view where);
  ~SplitRegex();
  SplitRegex(const SplitRegex&) = delete;
  SplitRegex& operator=(const SplitRegex&) = delete;

  // The first match at or after `from`: false when there is none; empty matches count. Throws
  // Error{kExhausted} when the pattern needs more steps or memory than PCRE2's limits. REQUIRES:
  // text is valid UTF-8.
  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace erank::text
