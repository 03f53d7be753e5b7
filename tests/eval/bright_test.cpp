// A pointwise reasoning reranker's published outputs: confident scores, which floats tie and
// doubles do not, scored as its authors did (9.0.4) and as trec_eval 10.0 does.
#include "erank/base/json.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

struct Fusion {
  const char* name;
  double (*score)(const base::Json& row);
};
constexpr Fusion kFusions[] = {
    {"label", [](const base::Json& row) { return row["pred_label_avg"].get<double>(); }},
    {"yesno", [](const base::Json& row) { return row["p_yes"].get<double>(); }},
    {"merge",
     [](const base::Json& row) {
       return (row["pred_label_avg"].get<double>() / 4 + row["p_yes"].get<double>()) / 2;
     }},
};

TEST(BrightScores, GiveThePublishedNdcgInBothPrecisions) {
  const std::string root = testing::shared_data("bright");
  if (root.empty()) GTEST_SKIP() << "BRIGHT is not here";
  const std::string folder = root + "/tfrank_qwen3_8b_pointwise";
  const base::Json check = base::parse_json(base::read_file(folder + "/check.json"), "check.json");
  int num_tasks = 0, num_different = 0;
  for (const base::Json& row : check["rows"]) {
    if (row["input"] != "BRIGHT") continue;
    const std::string task = row["task"];
    SCOPED_TRACE(task);
    const std::string path = unpacked(folder + "/BRIGHT." + task + ".jsonl.xz");
    if (path.empty()) GTEST_SKIP() << "xz is not installed";
    data::Run runs[std::size(kFusions)];
    data::for_each_line(path, [&](std::string_view line, int64_t) {
      const base::Json output = base::parse_json(line, task);
      const std::string qid = output["qid"];
      for (size_t f = 0; f < std::size(kFusions); ++f)
        runs[f].hits[qid].push_back({output["docid"], kFusions[f].score(output)});
    });
    const auto qrels = data::read_qrels(root + "/qrels/" + task + ".txt");
    for (size_t f = 0; f < std::size(kFusions); ++f) {
      const base::Json& expected = row[kFusions[f].name];
      const auto ndcg = [&](TrecEvalRules rules) {
        return evaluate(qrels, runs[f], parse_measures({"nDCG@10"}), {.rules = rules}).summary[0];
      };
      const double nine = ndcg(TrecEvalRules::k9), ten = ndcg(TrecEvalRules::k10);
      EXPECT_NEAR(nine, expected["9.0.4_float32"].get<double>(), 5.1e-5) << kFusions[f].name;
      EXPECT_NEAR(ten, expected["10.0-rc2_float64"].get<double>(), 5.1e-5) << kFusions[f].name;
      EXPECT_NEAR(100 * nine, expected["published"].get<double>(), 0.0501) << kFusions[f].name;
      num_different += std::abs(nine - ten) > 1e-4;
    }
    ++num_tasks;
  }
  EXPECT_EQ(num_tasks, 8);
  EXPECT_GE(num_different, 4);
}

}  // namespace
}  // namespace erank::eval
