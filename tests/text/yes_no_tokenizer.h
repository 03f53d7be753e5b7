// The byte tokenizer with the answers of the scale yes-no as tokens.
#pragma once

#include <string>

#include "erank/base/files.h"
#include "erank/base/json.h"

namespace erank::text {

constexpr int kNo = 302, kYes = 301;

// Makes pieces that mean nothing in `folder`/tokenizer.json into "ye", "yes" and "no".
inline void add_yes_no(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  base::Json json = base::parse_json(base::read_file(path), path);
  base::Json& vocabulary = json["model"]["vocab"];
  for (const char* piece : {"~300", "~301", "~302"}) vocabulary.erase(piece);
  vocabulary["ye"] = 300, vocabulary["yes"] = kYes, vocabulary["no"] = kNo;
  json["model"]["merges"] = {"y e", "ye s", "n o"};
  base::write_file_atomic(path, base::dump_json(json));
}

}  // namespace erank::text
