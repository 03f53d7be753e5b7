#include "erank/data/parquet_lines.h"

#include <dlfcn.h>

#include <charconv>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/installed.h"

namespace erank::data {

std::unique_ptr<ParquetLines> open_parquet(const std::string& path) {
  const std::string path_of_module = base::find_installed("erank_parquet.so");
  void* module =
      path_of_module.empty() ? nullptr : ::dlopen(path_of_module.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!module && !path_of_module.empty())
    base::fail(base::ErrorKind::kInvalidInput, "read_parquet", path,
               ": the reader of Parquet files does not load (", ::dlerror(),
               "); run tools/setup --parquet and build again");
  if (!module)
    base::fail(base::ErrorKind::kInvalidInput, "read_parquet", path,
               ": is a Parquet file, which this build cannot read; run tools/setup --parquet and "
               "build again, or write it as JSON lines, e.g. with pandas: "
               "read_parquet(file).to_json(out, orient='records', lines=True)");
  using Open = ParquetLines* (*)(const std::string&);
  const auto open = reinterpret_cast<Open>(::dlsym(module, "erank_open_parquet"));
  ERANK_CHECK(open, "another version's erank_parquet.so");
  return std::unique_ptr<ParquetLines>(open(path));
}

std::vector<std::string> parquet_parts(const std::string& path) {
  constexpr std::string_view kFirst = "-00000-of-", kEnding = ".parquet";
  constexpr size_t kDigits = 5;
  const size_t tail = kFirst.size() + kDigits + kEnding.size();
  if (!path.ends_with(kEnding) || path.size() < tail ||
      path.compare(path.size() - tail, kFirst.size(), kFirst) != 0)
    return {path};
  const std::string total = path.substr(path.size() - kEnding.size() - kDigits, kDigits);
  int count = 0;
  const auto read = std::from_chars(total.data(), total.data() + kDigits, count);
  if (read.ptr != total.data() + kDigits || count < 1) return {path};
  std::vector<std::string> parts = {path};
  for (int number = 1; number < count; ++number) {
    const std::string digits = std::to_string(number);
    std::string part = path;
    part.replace(path.size() - tail + 1 + kDigits - digits.size(), digits.size(), digits);
    if (!base::file_exists(part))
      base::fail(base::ErrorKind::kNotFound, "read_parquet", path, ": is the first of ", count,
                 " parts, and ", part, " is not there");
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace erank::data
