// The benchmarks' rules: published outputs of another reranker, FollowIR's cases, what is averaged.
#include "erank/eval/benchmarks.h"

#include <gmock/gmock.h>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::StartsWith;

TEST(Benchmarks, HaveThePapersTasksAndInstructions) {
  EXPECT_EQ(find_benchmark("bright").tasks.size(), 12u);
  EXPECT_THAT(find_benchmark("followir").tasks, ElementsAre("core17", "robust04", "news21"));
  EXPECT_EQ(find_benchmark("followir").top, 1000);
  EXPECT_EQ(find_benchmark("beir").top, 100);
  EXPECT_TRUE(find_benchmark("beir").drops_identical_ids);
  EXPECT_TRUE(find_benchmark("beir").tasks.empty());
  const Benchmark& bright = find_benchmark("bright");
  EXPECT_THAT(std::string(instruction_of(bright, "theoremqa_theorems")),
              EndsWith("uses the same mathematical process as the query."));
  EXPECT_THAT(std::string(instruction_of(bright, "pony")),
              StartsWith("I will use the programming"));
  EXPECT_EQ(instruction_of(bright, "biology"), instruction_of(bright, "stackoverflow"));
  EXPECT_EQ(instruction_of(find_benchmark("trec-dl"), "dl19"),
            "Given a query, retrieval relevant passage.");
  for (const char* name : {"beir", "trec-dl", "bright", "followir"}) {
    const Benchmark& benchmark = find_benchmark(name);
    EXPECT_EQ(benchmark.paper.size(), 9u) << name;
    for (const auto& row : benchmark.paper)
      if (!row.tasks.empty()) {
        double sum = 0;
        for (const auto& [task, value] : row.tasks) sum += value;
        EXPECT_NEAR(sum / static_cast<double>(row.tasks.size()), row.mean, 0.051) << row.system;
      }
  }
  EXPECT_THROW(find_benchmark("Beir"), base::Error);
}

// The paper's overall means are those of its four benchmarks.
TEST(Benchmarks, HaveRowsThatGiveThePapersOverallMeans) {
  const double expected[] = {25.9, 34.6, 35.3, 32.1, 34.6, 37.7, 36.8, 36.9, 38.1};
  for (size_t i = 0; i < std::size(expected); ++i) {
    double sum = 0;
    for (const char* name : {"bright", "followir", "beir", "trec-dl"})
      sum += find_benchmark(name).paper[i].mean;
    EXPECT_NEAR(sum / 4, expected[i], 0.0751) << find_benchmark("beir").paper[i].system;
  }
}

TEST(Benchmarks, ScorePublishedOutputsAsPublished) {
  const std::string root = testing::shared_data("bright");
  if (root.empty()) GTEST_SKIP() << "BRIGHT is not here";
  const std::string folder = root + "/tfrank_qwen3_8b_pointwise";
  const base::Json check = base::parse_json(base::read_file(folder + "/check.json"), "check.json");
  const Benchmark& bright = find_benchmark("bright");
  int num_rows = 0;
  for (const base::Json& row : check["rows"]) {
    if (row["input"] != "BRIGHT") continue;
    const std::string task = row["task"];
    SCOPED_TRACE(task);
    const std::string path = unpacked(folder + "/BRIGHT." + task + ".jsonl.xz");
    if (path.empty()) GTEST_SKIP() << "xz is not installed";
    data::Run label, yes_no, merge;
    data::for_each_line(path, [&](std::string_view line, int64_t) {
      const base::Json output = base::parse_json(line, task);
      const std::string qid = output["qid"], docid = output["docid"];
      const double a = output["pred_label_avg"], b = output["p_yes"];
      label.hits[qid].push_back({docid, a});
      yes_no.hits[qid].push_back({docid, b});
      merge.hits[qid].push_back({docid, (a / 4 + b) / 2});
    });
    TaskJudgements judgements;
    judgements.qrels = data::read_qrels(root + "/qrels/" + task + ".txt");
    const auto check_row = [&](const char* name, const data::Run& run) {
      const double value = score_task(bright, task, judgements, run).at(0);
      EXPECT_NEAR(value, row[name]["9.0.4_float32"].get<double>(), 5.1e-5) << name;
      EXPECT_NEAR(100 * value, row[name]["published"].get<double>(), 0.0501) << name;
      ++num_rows;
    };
    check_row("label", label);
    check_row("yesno", yes_no);
    check_row("merge", merge);
  }
  EXPECT_EQ(num_rows, 24);
}

TEST(Benchmarks, ScoreFollowIrsCasesAsPublished) {
  const std::string folder = testing::shared_data("followir");
  if (folder.empty()) GTEST_SKIP() << "FollowIR is not here";
  const auto json = base::parse_json(base::read_file(folder + "/p_mrr_cases.json"), "cases");
  ASSERT_EQ(json["cases"].size(), 4u);
  for (const base::Json& test : json["cases"]) {
    data::Run run;
    TaskJudgements judgements;
    for (const char* side : {"og", "changed"})
      for (const auto& [qid, scores] : test[side].items())
        for (const auto& [docid, score] : scores.items()) {
          run.hits[qid].push_back({docid, score.get<double>()});
          if (qid.ends_with("-og")) judgements.qrels.grades[qid][docid] = docid == "0";
        }
    for (const auto& [qid, grades] : judgements.qrels.grades) judgements.qrels.qids.push_back(qid);
    judgements.changed = test["changed_qrels"].get<data::DocumentLists>();
    EXPECT_DOUBLE_EQ(score_task(find_benchmark("followir"), "core17", judgements, run).at(0),
                     test["p_mrr"].get<double>())
        << test["name"];
  }
}

TEST(Benchmarks, CountTopicsWithoutHitsAsZeroAndMeasureTheFirstInstruction) {
  TaskJudgements judgements;
  judgements.qrels = make_qrels("q a 1 p a 1");
  const auto run = make_run("q b 2 q a 1");
  EXPECT_NEAR(score_task(find_benchmark("beir"), "x", judgements, run).at(0),
              1 / std::log2(3.0) / 2, 1e-12);
  judgements.qrels = make_qrels("q-og a 1 q-og c 1");
  judgements.changed = {{"q", {"a"}}};
  const auto pairs =
      make_run("q-og b 3 q-og a 2 q-og c 1 q-changed c 3 q-changed b 2 q-changed a 1");
  const Benchmark& followir = find_benchmark("followir");
  EXPECT_THAT(
      score_task(followir, "robust04", judgements, pairs),
      ElementsAre(::testing::DoubleEq(1 - 2.0 / 3), ::testing::DoubleEq((1.0 / 2 + 2.0 / 3) / 2)));
  const double ideal = 1 + 1 / std::log2(3.0);
  EXPECT_NEAR(score_task(followir, "news21", judgements, pairs).at(1),
              (1 / std::log2(3.0) + 1 / std::log2(4.0)) / ideal, 1e-12);
}

}  // namespace
}  // namespace erank::eval
