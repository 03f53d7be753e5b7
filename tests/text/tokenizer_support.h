// What the tokenizer's tests share: Qwen's vocabulary unpacked.
#pragma once

#include <cstdlib>
#include <string>

#include "erank/base/files.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"
#include "tests/text/tokenizer_small.h"

namespace erank::text {

// Qwen3's vocab.json, merges.txt and added_tokens.json in `folder`, or false when the collection is
// missing.
inline bool unpack_qwen(const TestFolder& folder) {
  const std::string source = erank::testing::shared_data("qwen-tokenizer");
  if (source.empty()) return false;
  for (const char* name : {"vocab.json", "merges.txt"}) {
    const std::string command =
        "xz -dc '" + source + "/" + name + ".xz' > '" + folder.path(name) + "'";
    if (std::system(command.c_str()) != 0) return false;
  }
  folder.write("added_tokens.json", base::read_file(source + "/added_tokens.qwen3.json"));
  return true;
}
inline constexpr const char* kNoQwen = "needs qwen-tokenizer of the shared data, and xz";

}  // namespace erank::text
