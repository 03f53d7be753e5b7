#include "erank/text/white_space.h"

namespace erank::text {

size_t white_space_at(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) {
    return pos + i < text.size() ? static_cast<unsigned char>(text[pos + i]) : 0u;
  };
  const unsigned a = byte(0);
  if (a == ' ' || (a >= 0x09 && a <= 0x0d) || (a >= 0x1c && a <= 0x1f)) return 1;
  if (a == 0xc2) return byte(1) == 0x85 || byte(1) == 0xa0 ? 2 : 0;  // U+0085, U+00A0
  const unsigned b = byte(1), c = byte(2);
  if (a == 0xe1) return b == 0x9a && c == 0x80 ? 3 : 0;  // U+1680
  if (a == 0xe2 && b == 0x80)                            // U+2000..200A, 2028, 2029, 202F
    return (c >= 0x80 && c <= 0x8a) || c == 0xa8 || c == 0xa9 || c == 0xaf ? 3 : 0;
  if (a == 0xe2) return b == 0x81 && c == 0x9f ? 3 : 0;  // U+205F
  if (a == 0xe3) return b == 0x80 && c == 0x80 ? 3 : 0;  // U+3000
  return 0;
}

size_t skip_white_space(std::string_view text, size_t pos) {
  while (const size_t length = white_space_at(text, pos)) pos += length;
  return pos;
}

std::string_view trim_white_space_right(std::string_view text) {
  for (bool more = true; more;) {
    more = false;
    for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
      if (white_space_at(text, text.size() - length) != length) continue;
      text.remove_suffix(length);
      more = true;
      break;
    }
  }
  return text;
}

std::string_view trim_white_space(std::string_view text) {
  text.remove_prefix(skip_white_space(text, 0));
  return trim_white_space_right(text);
}

}  // namespace erank::text
