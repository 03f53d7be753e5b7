// What the tokenizer's tests share: scratch folders, Qwen's vocabulary unpacked, a small vocabulary
// of our own.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/text/tokenizer_spec.h"
#include "tests/shared_data.h"

namespace erank::text {

// A folder that goes with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("erank_tokenizer_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  void write(const std::string& name, std::string_view text) const {
    base::write_file_atomic(*this / name, text);
  }

 private:
  std::filesystem::path path_;
};

// Qwen3's vocab.json, merges.txt and added_tokens.json in `folder`, or false when the collection is
// missing.
inline bool unpack_qwen(const ScratchFolder& folder) {
  const std::string source = erank::testing::shared_data("qwen-tokenizer");
  if (source.empty()) return false;
  for (const char* name : {"vocab.json", "merges.txt"}) {
    const std::string command =
        "xz -dc '" + source + "/" + name + ".xz' > '" + (folder / name) + "'";
    if (std::system(command.c_str()) != 0) return false;
  }
  folder.write("added_tokens.json", base::read_file(source + "/added_tokens.qwen3.json"));
  return true;
}
inline constexpr const char* kNoQwen = "needs qwen-tokenizer of the shared data, and xz";

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
