// Where the Unicode tables behind Hugging Face's tokenizers 0.23 (Oniguruma: Unicode 16; Rust: 17;
// its NFC: 9) differ from ours (PCRE2 10.42: 14; utf8proc 2.8: 15). Measured, and written, by
// tools/tokenizer_tables.py; ids are equal only if the same characters count as letters, numbers
// and combining marks.
#pragma once

#include <cstdint>
#include <vector>

namespace erank::text {

struct CodeRange {
  uint32_t first;
  uint32_t last;  // inclusive
};
struct CategoryRange {
  uint32_t first;
  uint32_t last;         // inclusive
  const char* category;  // general category, two letters
};

// Sorted by `first`. Thread-safe.
const std::vector<CategoryRange>& later_categories();  // assigned, or moved, after Unicode 14
const std::vector<CodeRange>& later_digits();          // numeric in Rust, not yet in Oniguruma
const std::vector<CodeRange>&
other_word_characters();                          // \w in Oniguruma, beside L, M, Nd, Nl and Pc
const std::vector<CodeRange>& unordered_marks();  // starters in the reference's NFC, marks in ours

}  // namespace erank::text
