// Values computed by a Python package, for the tests that compare with them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "tests/shared_data.h"

namespace erank::eval {

// What tests/eval/SCRIPT (or ../ROOM/SCRIPT) prints for `input`; nullopt when there is no test-time
// Python or it lacks `package`. Throws when the script fails.
inline std::optional<base::Json> ask_python(const std::string& script, const std::string& package,
                                            const base::Json& input) {
  const std::string python = testing::test_python();
  if (python.empty() ||
      std::system(("'" + python + "' -c 'import " + package + "' 2>/dev/null").c_str()) != 0)
    return std::nullopt;
  const std::string stem = ::testing::TempDir() + "erank_" + script.substr(script.rfind('/') + 1) +
                           "_" + std::to_string(getpid());
  base::write_file_atomic(stem + ".in", base::dump_json(input));
  const std::string command = "'" + python + "' '" ERANK_SOURCE_DIR "/tests/eval/" + script +
                              "' < '" + stem + ".in' > '" + stem + ".out'";
  ERANK_CHECK(std::system(command.c_str()) == 0, command);
  return base::parse_json(base::read_file(stem + ".out"), script);
}

}  // namespace erank::eval
