#include "erank/data/parquet_lines.h"

#include <dlfcn.h>

#include <filesystem>

#include "erank/base/error.h"

namespace erank::data {

std::unique_ptr<ParquetLines> open_parquet(const std::string& path) {
  std::error_code none;
  const auto module_path =
      std::filesystem::read_symlink("/proc/self/exe", none).parent_path() / "erank_parquet.so";
  void* module = ::dlopen(module_path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!module && std::filesystem::exists(module_path, none))
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

}  // namespace erank::data
