// Programs in Python with the built program: the package python/erank, and recorded calls.
#include <gtest/gtest.h>

#include <cstdlib>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

class TinyPython : public Program {};

TEST_F(TinyPython, RanksThroughAServerOfItsOwn) {
  const std::string said = path("said");
  const std::string command =
      "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='" ERANK_SOURCE_DIR
      "/python' ERANK_PROGRAM='" ERANK_BINARY_DIR "/erank' ERANK_TEST_MODEL='" +
      tiny_model() + "' python3 '" ERANK_SOURCE_DIR "/tests/python/reranker_test.py' >'" + said +
      "' 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << base::read_file(said);
  EXPECT_NE(base::read_file(said).find("Ran 12 tests"), std::string::npos);
}

// tests/serve/recorded_calls_test.py
TEST_F(TinyPython, ServesWhatApplicationsWereSeenToSend) {
  const std::string said = path("said");
  const std::string command = "python3 '" ERANK_SOURCE_DIR
                              "/tests/serve/recorded_calls_test.py' '" ERANK_BINARY_DIR
                              "/erank' '" +
                              tiny_model() + "' >'" + said + "' 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << base::read_file(said);
  EXPECT_NE(base::read_file(said).find("Ran 9 tests"), std::string::npos);
}

class SlowPython : public Program {};

TEST_F(SlowPython, AWheelRanksInAnEnvironmentOfItsOwn) {
  if (!base::file_exists(base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    GTEST_SKIP() << "the default model's base is not here; tools/setup fetches it";
  const std::string script =
      "set -eu\ncd '" ERANK_SOURCE_DIR "'\npython3 -m venv '" + path("venv") + "'\npython='" +
      path("venv") + "/bin/python'\n\"$python\" -m pip wheel -q . --no-deps -w '" + path("wheel") +
      "'\n\"$python\" -m pip install -q '" + path("wheel") +
      "'/erank-*.whl\ncd /\nexport ERANK_CACHE=/nonexistent\n\"$python\" -c 'from erank import "
      "Reranker\nwith Reranker() as r: print([d.index for d in r.rank(\"why is the sky blue\", "
      "[\"Bread rises.\", \"Air scatters blue light.\"])])' >'" +
      path("ranked") + "'\n'" + path("venv") + "/bin/erank' --version\n";
  const std::string said = path("said");
  ASSERT_EQ(std::system(("bash '" + put("script", script) + "' >'" + said + "' 2>&1").c_str()), 0)
      << base::read_file(said);
  EXPECT_EQ(base::read_file(path("ranked")), "[1, 0]\n");
}

}  // namespace
}  // namespace erank::cli
