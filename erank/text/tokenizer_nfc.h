// Unicode normal form C, as the reference's tokenizers compute it.
#pragma once

#include <string>
#include <string_view>

namespace erank::text {

// The NFC of `text`. When `text` is in NFC already it is returned as it is; else the result is
// written to `storage` and a view of it returned. Linear but for the ordering of runs of combining
// marks (O(k log k)). Thread-safe. REQUIRES: text is valid UTF-8.
std::string_view nfc(std::string_view text, std::string& storage);

// True when no byte is over 0x7f. Runs at memory speed.
bool is_ascii(std::string_view text);

}  // namespace erank::text
