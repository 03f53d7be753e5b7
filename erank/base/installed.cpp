#include "erank/base/installed.h"

#include <dlfcn.h>

#include <filesystem>

namespace erank::base {

namespace fs = std::filesystem;

namespace {

fs::path own_folder() {
  std::error_code none;
  Dl_info info{};
  // Of the program itself dladdr knows only what it was called by.
  if (::dladdr(reinterpret_cast<void*>(&own_folder), &info) != 0 && info.dli_fname &&
      fs::path(info.dli_fname).filename().string().find(".so") != std::string::npos)
    return fs::canonical(info.dli_fname, none).parent_path();
  return fs::read_symlink("/proc/self/exe", none).parent_path();
}

}  // namespace

std::string find_installed(const std::string& name) {
  static const fs::path own = own_folder();
  std::error_code none;
  for (const char* place :
       {".", "..", "../share/erank", "share/erank", "../lib/erank", "lib/erank"})
    if (const fs::path path = own / place / name; fs::exists(path, none))
      return path.lexically_normal();
  return "";
}

}  // namespace erank::base
