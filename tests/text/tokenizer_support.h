// What the tokenizer's tests share: scratch folders, and Qwen's vocabulary unpacked.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "erank/base/files.h"
#include "tests/shared_data.h"
#include "tests/text/tokenizer_small.h"

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

}  // namespace erank::text
