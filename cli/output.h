// Where a verb writes, and that it is nothing which the verb reads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "erank/data/output_text.h"
#include "erank/data/records.h"

namespace erank::cli {

// --out FILE, or stdout for "" and "-"; docs/formats.md, "Output files". Compressed when the name
// ends in .gz or .zst. A regular file is refused without `overwrite`, and so is one of `inputs`
// (see rank::refuse_inputs). The record of what a file of that name was made of (made_of.h) goes
// when there is a new one.
class Output {
 public:
  Output(const std::string& path, bool overwrite, const std::vector<std::string>& inputs = {});
  void write(std::string_view text) { file_.write(text); }
  void flush() { file_.flush(); }  // to who reads a stream
  void commit();

 private:
  std::string replaced_;  // the file whose record goes, "" for a stream
  data::OutputText file_;
};

// Warns of what a reader left out of a file or changed in it, if anything.
void tell(const std::string& path, const data::ReadNotes& notes);

}  // namespace erank::cli
