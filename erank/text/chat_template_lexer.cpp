#include "erank/text/chat_template_lexer.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/text/white_space.h"

namespace erank::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Newlines as \n, one at the end dropped.
std::string normal_source(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normal_source(source)) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) {
      const size_t open = next_tag(pos_);
      if (open == std::string::npos) {
        push_text(std::string_view(source_).substr(pos_));
        pos_ = source_.size();
        break;
      }
      read_text(open);
      read_tag(open);
    }
    push(TokenKind::kEnd, "end of the template");
    return std::move(tokens_);
  }

 private:
  std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag took the newline after it
  std::vector<Token> tokens_;

  [[noreturn]] void fail(const std::string& what) const { throw Fault{line_, what}; }

  void push(TokenKind kind, std::string text, int64_t integer = 0) {
    tokens_.push_back({kind, std::move(text), integer, line_});
  }
  void push_text(std::string_view text) {
    if (!text.empty()) push(TokenKind::kText, std::string(text));
  }

  size_t next_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string::npos;
         at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() &&
          std::string_view("{%#").find(source_[at + 1]) != std::string::npos) {
        return at;
      }
    }
    return std::string::npos;
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + pos_, source_.begin() + to, '\n'));
    pos_ = to;
  }

  // The text before the tag at `open`, cut as its sign and lstrip_blocks ask.
  void read_text(size_t open) {
    std::string_view text = std::string_view(source_).substr(pos_, open - pos_);
    const char kind = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
    if (sign == '-') {
      text = trim_white_space_right(text);
    } else if (sign != '+' && kind != '{') {
      const size_t newline = text.rfind('\n');
      const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((begin > 0 || line_starting_) && skip_white_space(text, begin) == text.size()) {
        text = text.substr(0, begin);
      }
    }
    push_text(text);
    advance(open);
  }

  void read_tag(size_t open) {
    const char kind = source_[open + 1];
    advance(open + 2);
    if (kind == '#') return read_comment();
    if (pos_ < source_.size() && (source_[pos_] == '-' || source_[pos_] == '+')) advance(pos_ + 1);
    const bool block = kind == '%';
    push(block ? TokenKind::kBlockBegin : TokenKind::kOutputBegin, block ? "{%" : "{{");
    if (block && is_raw()) fail("the tag 'raw' is not known here");
    std::string brackets;  // the closers that are due
    while (true) {
      advance(skip_white_space(source_, pos_));
      if (pos_ >= source_.size()) fail(base::str("'", block ? "{%" : "{{", "' is not closed"));
      if (brackets.empty() && read_end(block)) return;
      read_token(brackets);
    }
  }

  // The one tag whose inside is not made of tokens.
  bool is_raw() const {
    const size_t begin = skip_white_space(source_, pos_);
    const char next = begin + 3 < source_.size() ? source_[begin + 3] : '\0';
    return source_.compare(begin, 3, "raw") == 0 && !is_name_start(next) && !is_digit(next);
  }

  void read_comment() {
    if (pos_ < source_.size() && (source_[pos_] == '-' || source_[pos_] == '+')) advance(pos_ + 1);
    const size_t end = source_.find("#}", pos_);
    if (end == std::string::npos) fail("'{#' is not closed");
    const char sign = end > pos_ ? source_[end - 1] : '\0';
    advance(end + 2);
    close_tag(sign, true);
  }

  bool read_end(bool block) {
    const char first = source_[pos_];
    const bool sign = first == '-' || (first == '+' && block);
    if (source_.compare(pos_ + (sign ? 1 : 0), 2, block ? "%}" : "}}") != 0) return false;
    push(block ? TokenKind::kBlockEnd : TokenKind::kOutputEnd, block ? "%}" : "}}");
    advance(pos_ + (sign ? 3 : 2));
    close_tag(sign ? first : '\0', block);
    return true;
  }

  // What a tag's end takes of the text after it.
  void close_tag(char sign, bool trims_newline) {
    const size_t begin = pos_;
    if (sign == '-') {
      advance(skip_white_space(source_, pos_));
    } else if (sign != '+' && trims_newline && pos_ < source_.size() && source_[pos_] == '\n') {
      advance(pos_ + 1);
    }
    line_starting_ = pos_ > begin && source_[pos_ - 1] == '\n';
  }

  void read_token(std::string& brackets) {
    const char c = source_[pos_];
    if (is_name_start(c)) {
      size_t end = pos_;
      while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
      push(TokenKind::kName, source_.substr(pos_, end - pos_));
      return advance(end);
    }
    if (is_digit(c)) return read_number();
    if (c == '\'' || c == '"') return read_string(c);
    static constexpr std::string_view kTwo[] = {"==", "!=", "<=", ">=", "//", "**"};
    for (const std::string_view two : kTwo) {
      if (source_.compare(pos_, 2, two) != 0) continue;
      push(TokenKind::kOperator, std::string(two));
      return advance(pos_ + 2);
    }
    if (std::string_view("+-*/%~()[]{}<>=.,:|").find(c) == std::string_view::npos) {
      fail(base::str("unexpected character '", c, "'"));
    }
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) fail(base::str("unexpected '", c, "'"));
      brackets.pop_back();
    }
    push(TokenKind::kOperator, std::string(1, c));
    advance(pos_ + 1);
  }

  void read_number() {
    size_t end = pos_;
    int64_t value = 0;
    const auto digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || (source_[end] == '_'))) ++end;
    };
    digits();
    const size_t integer_end = end;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      ++end;
      digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
        ++exponent;
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        end = exponent;
        digits();
      }
    }
    std::string text = source_.substr(pos_, end - pos_);
    if (end != integer_end) {
      push(TokenKind::kFloat, std::move(text));
      return advance(end);
    }
    if (end < source_.size() && is_name_start(source_[end])) {
      fail(base::str("the number '", text, source_[end], "...' is not known here"));
    }
    for (const char c : text) {
      if (c == '_') continue;
      if (value > (int64_t{1} << 52)) fail(base::str("the number ", text, " is too large"));
      value = value * 10 + (c - '0');
    }
    push(TokenKind::kInteger, std::move(text), value);
    advance(end);
  }

  void read_string(char quote) {
    std::string value;
    size_t at = pos_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] == '\\') {
        at = read_escape(at, value);
      } else {
        value += source_[at++];
      }
    }
    if (at >= source_.size()) fail("a text is not closed");
    push(TokenKind::kString, std::move(value));
    advance(at + 1);
  }

  // Python's escapes; an unknown one keeps its backslash. Returns the position after it.
  size_t read_escape(size_t at, std::string& value) const {
    if (at + 1 >= source_.size()) fail("a text is not closed");
    const char c = source_[at + 1];
    static constexpr std::string_view kNames = "\\'\"abfnrtv";
    static constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t i = kNames.find(c); i != std::string_view::npos) {
      value += kValues[i];
      return at + 2;
    }
    if (c == '\n') return at + 2;
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t end = at + 1;
      while (end < source_.size() && end < at + 4 && source_[end] >= '0' && source_[end] <= '7') {
        code = code * 8 + static_cast<uint32_t>(source_[end++] - '0');
      }
      base::append_utf8(value, code);
      return end;
    }
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c == 'N') fail("the escape \\N{...} is not known here");
    if (length == 0) {
      value += '\\';
      return at + 1;
    }
    uint32_t code = 0;
    for (size_t i = 0; i < length; ++i) {
      const int digit = at + 2 + i < source_.size() ? hex_value(source_[at + 2 + i]) : -1;
      if (digit < 0) fail(base::str("the escape \\", c, " wants ", length, " hex digits"));
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    base::append_utf8(value, code);
    return at + 2 + length;
  }
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace erank::text::jinja
