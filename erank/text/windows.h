// Long documents as overlapping windows that a model with a small budget reads one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "erank/text/tokenizer.h"

namespace erank::text {

struct Window {
  std::string text;  // of all but the first after Windows::head and a blank
  // Where it, without the head, is in the document, in code points as Python's slices count them,
  // of the valid UTF-8 that the tokenizer reads (in NFC where it composes).
  int64_t begin = 0, end = 0;
};

struct Windows {
  // The document's first sentence, or as many of its words as a quarter of the budget takes: what
  // the document is about, a title say. Empty for a budget under 32 ids and a single window.
  std::string head;
  std::vector<Window> windows;  // in the document's order; none of a document of white space
  bool complete = true;         // false: the last one ends before the document does
};

// Windows of at most `max_tokens` ids each, as encoded alone, and at most `max_windows` of them. A
// window ends at the last end of a sentence in its second half, else at the last white space there,
// else after a character. The next one begins about a quarter of a window before that, likewise at
// a sentence where there is one; white space at a window's ends is left out. Sentences end after
// . ! ? and their like followed by white space and no lower-case letter of ASCII, at line ends, and
// after CJK's full stops. REQUIRES: max_tokens >= 1 and max_windows >= 1.
Windows split_windows(const Tokenizer& tokenizer, std::string_view document, int max_tokens,
                      int max_windows);

}  // namespace erank::text
