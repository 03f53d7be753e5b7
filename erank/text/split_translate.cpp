#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>

#include "erank/base/error.h"
#include "erank/text/split_regex.h"
#include "erank/text/split_tables.h"

namespace erank::text {
namespace {

using base::ErrorKind;
using base::fail;

constexpr std::string_view kSpaces = R"(\x{9}-\x{d}\x{20}\x{85}\p{Z})";
// The complement of White_Space: the ranges between its members.
constexpr std::string_view kNotSpaces =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

std::string range_text(uint32_t first, uint32_t last) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "\\x{%x}-\\x{%x}", first, last);
  return buffer;
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) outside();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    fail(ErrorKind::kInvalidInput, "Tokenizer", where_, ": split pattern '", pattern_, "': '",
         construct,
         "' is not supported; expected letters, categories \\p{..}, \\s \\d \\w, classes, "
         "groups, look-ahead and quantifiers");
  }
  bool next_is(std::string_view text) const { return pattern_.substr(at_, text.size()) == text; }
  void copy(size_t n) {
    out_ += pattern_.substr(at_, n);
    at_ += n;
  }

  void outside() {
    const char c = pattern_[at_];
    if (c == '\\') {
      escape(false);
    } else if (c == '[') {
      character_class();
    } else if (c == '(') {
      group();
    } else if (c == '^' || c == '$') {
      out_ += c == '^' ? "(?m:^)" : "(?m:$)";
      ++at_;
    } else if (c == '}' && (next_is("}+") || next_is("}*"))) {
      refuse(pattern_.substr(at_, 2));  // Oniguruma repeats the interval, PCRE2 makes it possessive
    } else if (c == '{' && next_is("{,")) {
      refuse("{,");
    } else {
      copy(1);
    }
  }

  void group() {
    static constexpr std::array<std::string_view, 8> kKnown = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"};
    if (!next_is("(?")) {
      if (next_is("(*")) refuse("(*");
      return copy(1);
    }
    for (const std::string_view known : kKnown)
      if (next_is(known)) return copy(known.size());
    refuse(pattern_.substr(at_, 3));
  }

  void character_class() {
    out_ += '[';
    ++at_;
    if (next_is("^")) copy(1);
    if (next_is("]")) refuse("[]");
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      if (pattern_[at_] == '\\') {
        escape(true);
      } else if (pattern_[at_] == '[') {
        refuse("[ inside a class");
      } else if (next_is("&&")) {
        refuse("&&");
      } else {
        copy(1);
      }
    }
    if (at_ == pattern_.size()) refuse("[ without ]");
    copy(1);
  }

  // A set of characters, `members` as written inside brackets.
  void set(std::string_view members, bool negated, bool in_class) {
    if (in_class) {
      out_ += members;
    } else {
      out_ += negated ? "[^" : "[";
      out_ += members;
      out_ += ']';
    }
  }

  static std::string category(std::string_view name) {
    std::string members = "\\p{" + std::string(name) + "}";
    for (const CategoryRange& range : later_categories())
      if (std::string_view(range.category).substr(0, name.size()) == name)
        members += range_text(range.first, range.last);
    return members;
  }

  void property(bool in_class) {
    const size_t close = pattern_.find('}', at_);
    if (at_ + 2 >= pattern_.size() || pattern_[at_ + 2] != '{' || close == std::string_view::npos)
      refuse("\\p without {..}");
    const std::string_view whole = pattern_.substr(at_, close + 1 - at_);
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    bool negated = pattern_[at_ + 1] == 'P';
    if (name.substr(0, 1) == "^") {
      negated = !negated;
      name.remove_prefix(1);
    }
    static constexpr std::array<std::string_view, 30> kCategories = {
        "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",
        "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Cc"};
    // With what Unicode 15 and 15.1 added to them.
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kScripts = {
        {{"Han", R"(\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"},
         {"Hiragana", R"(\x{1b132})"},
         {"Katakana", R"(\x{1b155})"},
         {"Hangul", ""}}};
    std::string members;
    for (const std::string_view known : kCategories)
      if (name == known) members = category(name);
    for (const auto& [known, later] : kScripts)
      if (name == known) members = base::str("\\p{sc:", name, "}", later);
    if (members.empty() || (negated && in_class)) refuse(whole);
    set(members, negated, in_class);
    at_ = close + 1;
  }

  void escape(bool in_class) {
    if (at_ + 1 >= pattern_.size()) refuse("\\ at the end");
    const char c = pattern_[at_ + 1];
    switch (c) {
      case 'p':
      case 'P':
        return property(in_class);
      case 's':
        set(kSpaces, false, in_class);
        break;
      case 'S':
        set(kNotSpaces, false, in_class);
        break;
      case 'd':
        set(category("Nd"), false, in_class);
        break;
      case 'D':
      case 'W':
        if (in_class) refuse(pattern_.substr(at_, 2));
        set(c == 'D' ? category("Nd") : word(in_class), true, in_class);
        break;
      case 'w':
        set(word(in_class), false, in_class);
        break;
      case 'v':
        out_ += "\\x{b}";
        break;
      case 'u':
        if (pattern_.size() < at_ + 6) refuse("\\u");
        for (size_t i = 2; i < 6; ++i)
          if (!is_hex(pattern_[at_ + i])) refuse("\\u");
        out_ += "\\x{" + std::string(pattern_.substr(at_ + 2, 4)) + "}";
        at_ += 6;
        return;
      case 'x':
        if (pattern_.size() < at_ + 3 || pattern_[at_ + 2] != '{') refuse("\\x without {..}");
        return copy(std::min(pattern_.find('}', at_), pattern_.size() - 1) + 1 - at_);
      case 'n':
      case 'r':
      case 't':
      case 'f':
        return copy(2);
      case 'A':
      case 'z':
        if (in_class) refuse(pattern_.substr(at_, 2));
        return copy(2);
      default:
        if (static_cast<uint8_t>(c) >= 0x80 || is_alphanumeric(c)) refuse(pattern_.substr(at_, 2));
        return copy(2);
    }
    at_ += 2;
  }

  static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  }
  static bool is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }

  // Oniguruma counts a few Latin-1 numbers into \\w, but not inside a class.
  static std::string word(bool in_class) {
    std::string members =
        category("L") + category("M") + category("Nd") + category("Nl") + category("Pc");
    for (const CodeRange& range : other_word_characters())
      if (!in_class || range.first > 0xff) members += range_text(range.first, range.last);
    return members;
  }

  std::string_view pattern_, where_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_split_pattern(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

}  // namespace erank::text
