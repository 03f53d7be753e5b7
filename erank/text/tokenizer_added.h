// Added tokens cut out of a text, as Hugging Face's AddedVocabulary does it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "erank/text/tokenizer_spec.h"

namespace erank::text {

// Finds the leftmost, of equal starts the longest, added token again and again. Immutable;
// thread-safe.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  struct Match {
    size_t begin = 0;  // with the white space that the token takes
    size_t end = 0;
    int32_t id = 0;
  };
  // All tokens in `text`, in order. A token may begin inside the white space that the one before it
  // took. REQUIRES: text is valid UTF-8.
  std::vector<Match> find_all(std::string_view text) const;

  bool empty() const { return tokens_.empty(); }

 private:
  std::vector<AddedToken> tokens_;                          // by first byte, then longest first
  std::array<std::pair<uint32_t, uint32_t>, 256> range_{};  // tokens that begin with a byte
};

}  // namespace erank::text
