// A small vocabulary of our own, for tests and fuzzing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "erank/base/json.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {

// A tokenizer.json of all 256 bytes (id = byte) and `merges`, whose results take the ids from 256
// on.
inline base::Json small_tokenizer(const std::vector<std::pair<std::string, std::string>>& merges) {
  base::Json vocabulary = base::Json::object(), pairs = base::Json::array();
  for (int b = 0; b < 256; ++b) vocabulary[spell_bytes(std::string(1, static_cast<char>(b)))] = b;
  int next = 256;
  for (const auto& [left, right] : merges) {
    const std::string l = spell_bytes(left), r = spell_bytes(right);
    if (!vocabulary.contains(l + r)) vocabulary[l + r] = next++;
    pairs.push_back({l, r});
  }
  const base::Json byte_level = {{"type", "ByteLevel"},
                                 {"add_prefix_space", false},
                                 {"trim_offsets", true},
                                 {"use_regex", true}};
  return {{"version", "1.0"},
          {"added_tokens", base::Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", pairs}}}};
}

}  // namespace erank::text
