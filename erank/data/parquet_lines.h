// The rows of a Parquet file as JSON lines, by the module erank_parquet.so beside the program.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace erank::data {

class ParquetLines {
 public:
  virtual ~ParquetLines() = default;
  // Some of the next rows, a line each: an object of the columns by name. Empty at the end.
  // Numbers, booleans and text are values of JSON, lists, structs and maps its lists and objects;
  // of other types what Arrow prints. Throws Error{kCorrupt}.
  virtual std::string next() = 0;
};

// Throws Error{kInvalidInput} where the program has no such module and for what is no Parquet file,
// Error{kCorrupt} for a damaged one. `name`: the file in messages.
std::unique_ptr<ParquetLines> open_parquet(const std::string& path);

// Hugging Face's collections are cut into parts: of NAME-00000-of-00003.parquet all three files, of
// any other path that path alone. Throws Error{kNotFound} that names a part that is not there.
std::vector<std::string> parquet_parts(const std::string& path);

}  // namespace erank::data
