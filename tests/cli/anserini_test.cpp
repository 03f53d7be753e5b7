// The first stage against Anserini's, by the program that measures both (bench/bm25_peer.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "erank/base/files.h"
#include "tests/cli/program.h"
#include "tests/shared_data.h"

namespace erank::cli {
namespace {

class SlowFirstStage : public Program {};

// Fetches Anserini and a Java runtime on the first run, 200 MB.
TEST_F(SlowFirstStage, HasTheHitsAndScoresOfAnserini) {
  const std::string cranfield = erank::testing::shared_data("glasgow/cranfield");
  if (cranfield.empty())
    GTEST_SKIP() << "no glasgow/cranfield (ERANK_SHARED_DATA names the folder)";
  const std::string said = path("said"), table = path("table");
  const auto call = [&](const std::string& command) {
    return std::system((command + " 2>'" + said + "'").c_str());
  };
  if (call("timeout 240 '" ERANK_SOURCE_DIR "/tools/peers' anserini >&2") != 0)
    GTEST_SKIP() << "tools/peers anserini cannot fetch it: " << base::read_file(said);
  const std::string data = std::filesystem::path(cranfield).parent_path().parent_path();
  ASSERT_EQ(
      call("timeout 240 python3 '" ERANK_SOURCE_DIR
           "/bench/bm25_peer.py' --erank '" ERANK_BINARY_DIR "/erank' --data '" +
           data + "' --collections glasgow/cranfield --repeats 1 --threads 2 >'" + table + "'"),
      0)
      << base::read_file(said);
  // Every query has the same documents in the same order, with scores within 1e-4.
  EXPECT_THAT(base::read_file(table), ::testing::HasSubstr("| 225 of 225 |"));
}

}  // namespace
}  // namespace erank::cli
