// The tokenizer. First byte even: the rest is a text, which must come back from its ids, with and
// without added tokens. First byte odd: the rest is a tokenizer.json, which loads or gives an
// Error; one that loads encodes a text.
#include "erank/text/tokenizer.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/text/tokenizer_nfc.h"
#include "tests/fuzz/memory_file.h"
#include "tests/text/tokenizer_small.h"

namespace {

using namespace erank;

text::Tokenizer small() {
  base::Json json = text::small_tokenizer(
      {{"a", "a"}, {" ", "a"}, {"\n", "\n"}, {"\xcc", "\x81"}, {"\xc3", "\xa9"}, {"<", "a"}});
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = {
      {{"id", 300}, {"content", "<a>"}, {"special", true}, {"normalized", false}},
      {{"id", 301}, {"content", "<b>"}, {"special", false}, {"normalized", true}}};
  return text::Tokenizer::from_json(base::dump_json(json));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    static const text::Tokenizer tokenizer = small();
    const std::string valid = base::sanitize_utf8(rest);
    std::string storage;
    const std::string normal(text::nfc(valid, storage));
    const text::Ids plain = tokenizer.encode(rest);
    for (const int32_t id : plain) fuzz::demand(id != 300);
    fuzz::demand(tokenizer.decode(plain) == normal);
    // Added tokens are cut out of the raw text, so that NFC does not reach across them.
    const text::Ids cut = tokenizer.encode(rest, {.parse_specials = true});
    fuzz::demand(base::is_valid_utf8(tokenizer.decode(cut)));
    return 0;
  }
  try {
    const text::Tokenizer tokenizer = text::Tokenizer::from_json(rest);
    const text::Ids ids =
        tokenizer.encode("It's  12 e\xcc\x81\r\n <a>\xff", {.parse_specials = true});
    fuzz::demand(base::is_valid_utf8(tokenizer.decode(ids)));
  } catch (const base::Error&) {
  }
  return 0;
}
