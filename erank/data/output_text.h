// What a verb writes, compressed when its name says so.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "erank/base/files.h"

namespace erank::data {

// `name` without the .gz or .zst that it ends in.
std::string_view without_packing(std::string_view name);

// A base::OutputFile whose bytes are gzip data when the name ends in .gz, zstd data when it ends in
// .zst, else as they are. What is written does not depend on the time or the machine.
class OutputText {
 public:
  // Throws as base::OutputFile, and Error{kInvalidInput} for such an ending in a build without
  // compression.
  explicit OutputText(const std::string& path,
                      base::OutputFile::Existing existing = base::OutputFile::Existing::kReplace,
                      const std::function<bool()>& stop = {});
  ~OutputText();

  // These throw as those of base::OutputFile.
  void write(std::string_view bytes);
  void flush();  // a stream's reader can unpack all that was written
  void commit();

 private:
  class Packer;
  class Gzip;
  class Zstd;
  base::OutputFile file_;
  std::unique_ptr<Packer> packer_;  // nullptr: not compressed
  std::string packed_;
};

}  // namespace erank::data
