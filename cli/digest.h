// What a journal's header says of texts and files, so that a job is not resumed with others.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace erank::cli {

// FNV-1a over texts and where each ends.
class Digest {
 public:
  void add(std::string_view text);
  std::string hex() const;

 private:
  uint64_t hash_ = 0xcbf29ce484222325ull;
};

// `path`, or those files in it that a model may consist of; sorted. No fault where nothing is.
std::vector<std::string> model_files(const std::string& path);

// Of the names, sizes and bytes of the files that model_files() gives for each path. Of a file over
// a megabyte 256 blocks of 4 KiB spread over it are read: trained weights differ everywhere. A path
// where nothing is counts as such.
std::string files_digest(const std::vector<std::string>& paths);

}  // namespace erank::cli
