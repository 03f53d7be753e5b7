// Where tests find real collections that are not part of this repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace erank::testing {

// The path of `name` under $ERANK_SHARED_DATA, else under ../shared/data beside this repository, or
// "" when it is not there; then the test skips and says which collection it misses.
inline std::string shared_data(const std::string& name) {
  const char* own = std::getenv("ERANK_SHARED_DATA");
  const std::filesystem::path root =
      own ? std::filesystem::path(own) : std::filesystem::path(ERANK_SOURCE_DIR) / "../shared/data";
  const auto path = root / name;
  return std::filesystem::exists(path) ? path.lexically_normal().string() : "";
}

// The Python of the test-time environment (tools/setup --tests says what is in it), or "".
inline std::string test_python() {
  if (const char* own = std::getenv("ERANK_TEST_PYTHON")) return own;
  const char* cache = std::getenv("ERANK_CACHE");
  const char* home = std::getenv("HOME");
  const std::filesystem::path folder =
      cache ? std::filesystem::path(cache)
            : std::filesystem::path(home ? home : "") / ".cache/erank";
  const auto path = folder / "venv/bin/python";
  return std::filesystem::exists(path) ? path.string() : "";
}

}  // namespace erank::testing
