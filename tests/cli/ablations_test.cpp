// tools/ablations from nothing to its table, on the tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using base::str;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class SlowAblations : public Program {
 protected:
  // A folder as tools/lay_out_data.py makes it: 70 documents, of 6 queries five are judged.
  void SetUp() override {
    const std::vector<std::pair<std::string, std::vector<std::string>>> sets = {
        {"nfcorpus", {"train", "dev", "test"}},
        {"marco", {"train"}},
        {"dl19", {"dev"}},
        {"cranfield", {"test"}},
        {"npl", {"test"}},
        {"cacm", {"test"}},
        {"clinical-trial.dev", {"test"}}};
    std::string corpus, queries, qrels = "query-id\tcorpus-id\tscore\n";
    for (int d = 0; d < 70; ++d)
      corpus +=
          str(R"({"_id": "d)", d, R"(", "title": "", "text": "letter of number )", d, "\"}\n");
    for (int q = 0; q < 6; ++q) {
      queries += str(R"({"_id": "q)", q, R"(", "text": "letter number )", q, "\"}\n");
      for (int d = 0; d < 5; ++d) qrels += str("q", q, "\td", q + d, "\t", d == 0 ? 2 : 0, "\n");
    }
    for (const auto& [name, splits] : sets) {
      fs::create_directories(path(str("data/", name, "/qrels")));
      put(str("data/", name, "/corpus.jsonl"), corpus);
      put(str("data/", name, "/queries.jsonl"), queries);
      for (const auto& split : splits) put(str("data/", name, "/qrels/", split, ".tsv"), qrels);
    }
  }
  int ablations(const std::string& more) {
    const std::string program = std::string(ERANK_BINARY_DIR) + "/erank";
    const std::string command =
        str("cd '", ERANK_SOURCE_DIR, "' && python3 tools/ablations '", path("data"), "' '",
            path("out"), "' --erank '", program, "' --base '", tiny_model(), "' --default '",
            tiny_model(), "' --pairs 80 --step-pairs 40 --lists 8 --queries 3 --depth 6 ",
            "--choose-queries 2 ", more, " >'", path("printed"), "' 2>'", path("said"), "'");
    return std::system(command.c_str());
  }
  std::string printed() const { return base::read_file(path("printed")); }
};

TEST_F(SlowAblations, TrainsMeasuresAndGoesOnWhereItWas) {
  ASSERT_EQ(ablations("--study stages reasoning --seeds 1"), 0) << base::read_file(path("said"));
  EXPECT_THAT(printed(), ContainsRegex("\\| sft\\+rl \\| direct +\\| 1 "));
  EXPECT_THAT(printed(), ContainsRegex("\\| by-rule \\| think +\\| 1 "));
  EXPECT_THAT(base::read_file(path("said")), HasSubstr("teacher is left out: no --teacher"));
  EXPECT_THAT(base::read_file(path("out/stages.svg")), HasSubstr("sft+rl"));
  const std::string weights = "out/seed-1/sft/adapter_model.safetensors";
  const auto written = fs::last_write_time(path(weights));

  fs::remove(path("out/seed-1/runs/sft+rl-direct.run"));
  ASSERT_EQ(ablations("--study stages --seeds 1 --table"), 0) << base::read_file(path("said"));
  EXPECT_THAT(printed(), Not(HasSubstr("sft+rl")));
  ASSERT_EQ(ablations("--study stages --seeds 1 2"), 0) << base::read_file(path("said"));
  EXPECT_THAT(printed(), ContainsRegex("\\| sft\\+rl \\| direct +\\| 2 "));
  EXPECT_EQ(fs::last_write_time(path(weights)), written);

  // Settings of an earlier call stay; those that were never kept are taken as they are.
  for (const char* option : {"--pairs 120", "--rl-rate 0.001", "--depth 5", "--base other"}) {
    const std::string name = std::string(option).substr(0, std::string(option).find(' '));
    EXPECT_NE(ablations(str("--study stages --seeds 1 ", option)), 0);
    EXPECT_THAT(base::read_file(path("said")),
                ContainsRegex(str("^ablations: .*/out: ", name, " was .*, now it is .*; give ",
                                  name, " .* again, or another OUT\n$")));
  }
  EXPECT_NE(ablations("--dry-run --lists 4"), 0);
  fs::remove(path("out/settings.json"));
  ASSERT_EQ(ablations("--study stages --seeds 1 --teacher t.jsonl"), 0);
  ASSERT_EQ(ablations("--study stages --seeds 1"), 0) << base::read_file(path("said"));
  EXPECT_NE(ablations("--study stages --seeds 1 --teacher u.jsonl"), 0);

  // The tiny model's tokenizer has no "yes".
  ASSERT_EQ(ablations("--study scale reward --arms sft-0-3 sft+ndcg sft+se --seeds 1"), 0)
      << base::read_file(path("said"));
  for (const char* arm : {"sft-0-3", "sft\\+ndcg", "sft\\+se"})
    EXPECT_THAT(printed(), ContainsRegex(str("\\| ", arm, " +\\| direct +\\| 1 ")));

  ASSERT_EQ(ablations("--study on --dry-run"), 0);
  EXPECT_THAT(printed(), ContainsRegex("on-rr +seed 1 +grpo from default +2 steps +not begun"));
}

}  // namespace
}  // namespace erank::cli
