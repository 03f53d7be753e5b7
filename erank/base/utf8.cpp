#include "erank/base/utf8.h"

#include <algorithm>

namespace erank::base {
namespace {

// Length of the well-formed character at text[i], or 0; then `bad` is the length of the maximal
// ill-formed part there (table 3-7 of the Unicode standard: which second bytes each first byte
// allows).
size_t character(std::string_view text, size_t i, size_t& bad) {
  const auto at = [&](size_t k) { return k < text.size() ? static_cast<uint8_t>(text[k]) : 0; };
  const uint8_t first = at(i);
  bad = 1;
  if (first < 0x80) return 1;
  size_t length = 0;
  uint8_t low = 0x80, high = 0xbf;
  if (first >= 0xc2 && first <= 0xdf)
    length = 2;
  else if (first >= 0xe0 && first <= 0xef) {
    length = 3;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  } else {
    return 0;
  }
  for (size_t k = 1; k < length; ++k) {
    const uint8_t byte = at(i + k);
    if (i + k >= text.size() || byte < low || byte > high) return 0;
    bad = k + 1;
    low = 0x80, high = 0xbf;
  }
  return length;
}

// Position of the first fault, or text.size().
size_t valid_prefix(std::string_view text) {
  size_t i = 0, bad = 0;
  while (i < text.size()) {
    if (static_cast<uint8_t>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const size_t n = character(text, i, bad);
    if (n == 0) return i;
    i += n;
  }
  return i;
}

}  // namespace

bool is_valid_utf8(std::string_view text) { return valid_prefix(text) == text.size(); }

std::string sanitize_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t good = valid_prefix(text);
    out.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) break;
    size_t bad = 0;
    character(text, 0, bad);
    out += "\xef\xbf\xbd";
    text.remove_prefix(bad);
  }
  return out;
}

size_t utf8_prefix(std::string_view text, size_t max_bytes) {
  size_t n = std::min(max_bytes, text.size());
  while (n > 0 && n < text.size() && (static_cast<uint8_t>(text[n]) & 0xc0) == 0x80) --n;
  return n;
}

std::string_view utf8_slice(std::string_view text, int64_t begin, int64_t end) {
  size_t from = text.size(), to = text.size();
  int64_t number = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) == 0x80) continue;
    if (number == begin) from = i;
    if (number++ == end) {
      to = i;
      break;
    }
  }
  return text.substr(from, std::max(from, to) - from);
}

void append_utf8(std::string& out, uint32_t c) {
  if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = 0xfffd;
  const auto byte = [&](uint32_t value) { out += static_cast<char>(value); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xc0 | c >> 6), byte(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    byte(0xe0 | c >> 12), byte(0x80 | (c >> 6 & 0x3f)), byte(0x80 | (c & 0x3f));
  } else {
    byte(0xf0 | c >> 18), byte(0x80 | (c >> 12 & 0x3f)), byte(0x80 | (c >> 6 & 0x3f)),
        byte(0x80 | (c & 0x3f));
  }
}

std::string printable(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  const auto byte = [&](char c) {
    const auto value = static_cast<uint8_t>(c);
    out.append("\\x").append(1, kHex[value >> 4]).append(1, kHex[value & 15]);
  };
  for (size_t i = 0, bad = 0; i < text.size();) {
    const char c = text[i];
    const size_t n = character(text, i, bad);
    const std::string_view whole = text.substr(i, n);
    if (n == 0 || c == '\x7f' || (n == 1 && static_cast<uint8_t>(c) < 0x20)) {
      if (c == '\n')
        out += "\\n";
      else if (c == '\t')
        out += "\\t";
      else if (c == '\r')
        out += "\\r";
      else
        byte(c);
      ++i;
      continue;
    }
    if (n == 2 && c == '\xc2' && static_cast<uint8_t>(text[i + 1]) < 0xa0) {  // U+0080 to U+009F
      byte(text[i + 1]);
    } else if (n == 3 && (whole.substr(0, 2) == "\xe2\x80" || whole.substr(0, 2) == "\xe2\x81")) {
      const uint32_t code = 0x2000 | (static_cast<uint32_t>(text[i + 1]) & 3) << 6 |
                            (static_cast<uint32_t>(text[i + 2]) & 63);
      const bool turns = code == 0x200e || code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
                         (code >= 0x2066 && code <= 0x2069);
      if (turns)
        out.append("\\u20").append(1, kHex[code >> 4 & 15]).append(1, kHex[code & 15]);
      else
        out += whole;
    } else {
      out += whole;
    }
    i += n;
  }
  return out;
}

std::string in_quotes(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return "'" + printable(text) + "'";
  return "'" + printable(text.substr(0, utf8_prefix(text, max_bytes))) + "...'";
}

}  // namespace erank::base
