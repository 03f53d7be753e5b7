#include "erank/eval/p_mrr.h"

#include <gmock/gmock.h>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

using Changed = std::unordered_map<std::string, std::vector<std::string>>;

void append(data::Run& run, const base::Json& rankings) {
  for (const auto& [qid, scores] : rankings.items()) {
    run.qids.push_back(qid);
    for (const auto& [docid, score] : scores.items())
      run.hits[qid].push_back({docid, score.get<double>()});
  }
}

TEST(PMrr, GivesThePublishedValues) {
  const std::string folder = testing::shared_data("followir");
  if (folder.empty()) GTEST_SKIP() << "FollowIR is not here";
  const auto json = base::parse_json(base::read_file(folder + "/p_mrr_cases.json"), "cases");
  ASSERT_EQ(json["cases"].size(), 4u);
  for (const base::Json& test : json["cases"]) {
    data::Run run;
    append(run, test["og"]);
    append(run, test["changed"]);
    EXPECT_DOUBLE_EQ(p_mrr(run, test["changed_qrels"].get<Changed>()).mean,
                     test["p_mrr"].get<double>())
        << test["name"];
  }
}

TEST(PMrr, AveragesOverDocumentsThenOverQueries) {
  const auto run = make_run(
      "q-og a 9 q-og b 8 q-og c 7 q-changed b 9 q-changed c 8 "  // a: 1 to 3, after the last
      "p-og x 2 p-og y 1 p-changed y 2 p-changed x 2");          // equal scores: y before x
  const PMrr result = p_mrr(run, {{"q", {"a", "b"}}, {"p", {"x"}}, {"gone", {"a"}}, {"none", {}}});
  EXPECT_EQ(result.qids, (std::vector<std::string>{"p", "q"}));
  EXPECT_DOUBLE_EQ(result.values[0], 1 - 1.0 / 2);
  EXPECT_DOUBLE_EQ(result.values[1], ((1 - 1.0 / 3) + (1.0 / 2 - 1)) / 2);
  EXPECT_DOUBLE_EQ(result.mean, (result.values[0] + result.values[1]) / 2);
  EXPECT_EQ(missing_topics(result),
            "queries without both rankings, -og and -changed, left out of p-MRR: 1 (gone)");
  EXPECT_EQ(format_lines(result, {.per_topic = true}),
            "p-MRR                 \tp\t0.5000\np-MRR                 \tq\t0.0833\n"
            "p-MRR                 \tall\t0.2917\n");
  EXPECT_DOUBLE_EQ(to_json(result)["queries"]["p"].get<double>(), 0.5);
  try {
    p_mrr(make_run("q a 1"), {{"q", {"a"}}});
    ADD_FAILURE() << "accepted";
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("q-og"));
  }
}

}  // namespace
}  // namespace erank::eval
