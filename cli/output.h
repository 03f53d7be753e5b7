// Where a verb writes, and that it is nothing which the verb reads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "erank/base/files.h"

namespace erank::cli {

// --out FILE, or stdout for "" and "-"; docs/formats.md, "Output files". A regular file is refused
// without `overwrite`, and so is one of `inputs` (see rank::refuse_inputs).
class Output {
 public:
  Output(const std::string& path, bool overwrite, const std::vector<std::string>& inputs = {});
  void write(std::string_view text) { file_.write(text); }
  void flush() { file_.flush(); }  // to who reads a stream
  void commit() { file_.commit(); }

 private:
  base::OutputFile file_;
};

}  // namespace erank::cli
