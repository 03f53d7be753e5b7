#include "erank/text/split_classes.h"

#include <utf8proc.h>

#include <memory>

#include "erank/text/split_tables.h"

namespace erank::text {
namespace {

constexpr uint32_t kNumCodePoints = 0x110000;

uint8_t class_of_category(int category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber | kDigitSplit;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return kSpace;
    default:
      return 0;
  }
}

// utf8proc: the second half of a composition pair has the high bit of its index set.
bool composes_with_previous(const utf8proc_property_t& property) {
  return property.comb_index != UINT16_MAX && (property.comb_index & 0x8000) != 0;
}

bool changes_under_nfc(uint32_t code_point) {
  int32_t buffer[32];
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE);
  int boundary = 0;
  const auto n =
      utf8proc_decompose_char(static_cast<int32_t>(code_point), buffer, 32, options, &boundary);
  if (n <= 0 || n > 32) return true;
  const auto composed = utf8proc_normalize_utf32(
      buffer, n, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  return composed != 1 || buffer[0] != static_cast<int32_t>(code_point);
}

bool is_hangul_syllable(uint32_t c) { return c >= 0xac00 && c <= 0xd7a3; }
bool is_medial_or_final_jamo(uint32_t c) {
  return (c >= 0x1161 && c <= 0x1175) || (c >= 0x11a8 && c <= 0x11c2);
}

std::unique_ptr<uint8_t[]> build() {
  auto classes = std::make_unique<uint8_t[]>(kNumCodePoints);
  for (uint32_t c = 0; c < kNumCodePoints; ++c) {
    const utf8proc_property_t& property = *utf8proc_get_property(static_cast<int32_t>(c));
    uint8_t value = class_of_category(property.category);
    const bool decomposes = property.decomp_type == 0 && property.decomp_seqindex != UINT16_MAX;
    if (property.combining_class != 0 || composes_with_previous(property) ||
        is_medial_or_final_jamo(c) ||
        (decomposes && !is_hangul_syllable(c) && changes_under_nfc(c)))
      value |= kMayNeedNfc;
    classes[c] = value;
  }
  for (const CategoryRange& range : later_categories())
    for (uint32_t c = range.first; c <= range.last; ++c) {
      if (range.category[0] == 'L') classes[c] |= kLetter;
      if (range.category[0] == 'N') classes[c] |= kNumber | kDigitSplit;
    }
  for (const CodeRange& range : later_digits())
    for (uint32_t c = range.first; c <= range.last; ++c) classes[c] |= kDigitSplit;
  for (const CodeRange& range : unordered_marks())
    for (uint32_t c = range.first; c <= range.last; ++c) classes[c] |= kMayNeedNfc | kNfcBarrier;
  for (const uint32_t c : {0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x85}) classes[c] |= kSpace;
  return classes;
}

}  // namespace

const uint8_t* code_classes() {
  static const std::unique_ptr<uint8_t[]> classes = build();
  return classes.get();
}

}  // namespace erank::text
