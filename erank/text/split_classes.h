// What the splitters and the NFC check need to know about a code point, one byte each.
#pragma once

#include <cstdint>
#include <string_view>

namespace erank::text {

enum CodeClass : uint8_t {
  kLetter = 1,       // \p{L}
  kNumber = 2,       // \p{N}
  kSpace = 4,        // \s: Unicode's White_Space
  kDigitSplit = 8,   // what the pre-tokeniser `Digits` takes for a digit (Rust's char::is_numeric)
  kMayNeedNfc = 16,  // combining class not 0, or NFC quick check not "yes"
  kNfcBarrier = 32,  // NFC neither moves it nor joins it to anything, and stops there
  kSplitMask = kLetter | kNumber | kSpace,
};

// 0x110000 classes, built at the first call (a few milliseconds). Thread-safe.
const uint8_t* code_classes();

// The code point at text[i] and its length. REQUIRES: text is valid UTF-8, i is the start of a
// character.
struct CodePoint {
  uint32_t value;
  uint32_t length;  // bytes
};
inline CodePoint code_point_at(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) {
    return static_cast<uint32_t>(static_cast<uint8_t>(text[i + k]));
  };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xe0) return {(first & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (first < 0xf0) return {(first & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f),
          4};
}

}  // namespace erank::text
