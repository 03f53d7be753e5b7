#include <array>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/text/split_classes.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {
namespace {

struct Alphabet {
  std::array<uint32_t, 256> character{};
  std::array<int, 0x144> byte{};  // by character, -1 for none

  Alphabet() {
    byte.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable =
          (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
      character[b] = printable ? b : next++;
      byte[character[b]] = static_cast<int>(b);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet table;
  return table;
}

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) base::append_utf8(out, alphabet().character[static_cast<uint8_t>(c)]);
  return out;
}

std::optional<std::string> bytes_of_piece(std::string_view piece) {
  const auto& byte = alphabet().byte;
  std::string out;
  out.reserve(piece.size());
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = code_point_at(piece, i);
    if (c.value >= byte.size() || byte[c.value] < 0) return std::nullopt;
    out += static_cast<char>(byte[c.value]);
    i += c.length;
  }
  return out;
}

std::pair<std::string, std::string> split_merge(std::string_view line, std::string_view where) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
      line.find(' ', space + 1) != std::string_view::npos)
    base::fail(base::ErrorKind::kCorrupt, "Tokenizer", where, ": merge '", line,
               "': expected two pieces with one space between them");
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

}  // namespace erank::text
