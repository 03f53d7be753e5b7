#include "erank/text/tokenizer_nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/text/split_classes.h"

namespace erank::text {
namespace {

// Start of the first character at or after `i` that is not ASCII.
size_t skip_ascii(std::string_view text, size_t i) {
  while (i + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080ull) != 0) break;
    i += 8;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i;
}

int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Appends the NFC of a part that starts with a starter (or with the text) and ends before one.
void append_normalized(std::string_view part, std::string& out, std::vector<int32_t>& buffer) {
  buffer.clear();
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE);
  for (size_t i = 0; i < part.size();) {
    const CodePoint c = code_point_at(part, i);
    i += c.length;
    int32_t parts[32];
    int boundary = 0;
    const auto n =
        utf8proc_decompose_char(static_cast<int32_t>(c.value), parts, 32, options, &boundary);
    ERANK_CHECK(n > 0 && n <= 32, "decomposition of code point ", c.value);
    buffer.insert(buffer.end(), parts, parts + n);
  }
  // utf8proc's own ordering is quadratic in a run of marks, so we order before it composes.
  for (size_t i = 0; i < buffer.size();) {
    if (combining_class(buffer[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < buffer.size() && combining_class(buffer[end]) != 0) ++end;
    std::stable_sort(buffer.begin() + static_cast<ptrdiff_t>(i),
                     buffer.begin() + static_cast<ptrdiff_t>(end),
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
  const auto composed =
      utf8proc_normalize_utf32(buffer.data(), static_cast<utf8proc_ssize_t>(buffer.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  ERANK_CHECK(composed >= 0, "utf8proc: ", composed);
  for (utf8proc_ssize_t i = 0; i < composed; ++i)
    base::append_utf8(out, static_cast<uint32_t>(buffer[static_cast<size_t>(i)]));
}

}  // namespace

bool is_ascii(std::string_view text) { return skip_ascii(text, 0) == text.size(); }

std::string_view nfc(std::string_view text, std::string& storage) {
  const uint8_t* classes = code_classes();
  std::vector<int32_t> buffer;
  bool changed = false;
  size_t copied = 0;   // text[0, copied) is in storage, once `changed`
  size_t starter = 0;  // start of the last character that nothing before it can join
  for (size_t i = 0; i < text.size();) {
    if (static_cast<uint8_t>(text[i]) < 0x80) {
      i = skip_ascii(text, i);
      starter = i - 1;
      continue;
    }
    const CodePoint c = code_point_at(text, i);
    const uint8_t flags = classes[c.value];
    if ((flags & kMayNeedNfc) == 0) {
      starter = i;
      i += c.length;
      continue;
    }
    if ((flags & kNfcBarrier) != 0) {
      i += c.length;
      starter = i;
      continue;
    }
    size_t end = i;
    while (end < text.size()) {
      const CodePoint next = code_point_at(text, end);
      if ((classes[next.value] & (kMayNeedNfc | kNfcBarrier)) != kMayNeedNfc) break;
      end += next.length;
    }
    if (!changed) storage.clear();
    changed = true;
    storage.append(text.substr(copied, starter - copied));
    append_normalized(text.substr(starter, end - starter), storage, buffer);
    copied = starter = i = end;
  }
  if (!changed) return text;
  storage.append(text.substr(copied));
  return storage;
}

}  // namespace erank::text
