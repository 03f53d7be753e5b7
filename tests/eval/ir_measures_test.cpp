// Every ir_measures name that erank takes, against ir_measures itself: negative grades, lists
// shorter than the cut-off, ties.
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "tests/eval/eval_fixtures.h"
#include "tests/eval/oracle.h"

namespace erank::eval {
namespace {

// ir_measures has no NumRel but of rel=1, and wants SetF's beta with a point.
const std::vector<std::string>& names() {
  static const std::vector<std::string> names = {"AP",
                                                 "AP@3",
                                                 "AP(rel=2)@30",
                                                 "MAP(rel=2)",
                                                 "RR",
                                                 "MRR",
                                                 "RR(rel=2)",
                                                 "nDCG",
                                                 "nDCG@1",
                                                 "NDCG@10",
                                                 "nDCG(gains={1:3,2:9})",
                                                 "nDCG(gains={0:1,1:0,3:7})@5",
                                                 "P@1",
                                                 "P(rel=2)@10",
                                                 "R@2",
                                                 "R(rel=2)@10",
                                                 "Rprec",
                                                 "Rprec(rel=2)",
                                                 "Bpref",
                                                 "Bpref(rel=2)",
                                                 "Success@1",
                                                 "Success(rel=2)@5",
                                                 "IPrec@0.0",
                                                 "IPrec@0.5",
                                                 "IPrec(rel=2)@0.3",
                                                 "SetP",
                                                 "SetP(rel=2)",
                                                 "SetR",
                                                 "SetAP",
                                                 "SetF",
                                                 "SetF(beta=2.0)",
                                                 "SetF(rel=2,beta=0.5)",
                                                 "NumRet",
                                                 "NumRet(rel=1)",
                                                 "NumRet(rel=2)",
                                                 "NumRel"};
  return names;
}

// These two order equal scores by docid ascending there, and keep scores as doubles.
const std::vector<std::string>& names_with_another_order() {
  static const std::vector<std::string> names = {"RR@2",      "RR(rel=2)@10", "MRR@3",
                                                 "Judged@10", "Judged@1",     "Judged"};
  return names;
}

struct Case {
  data::Qrels qrels;
  data::Run run;
};

Case random_case(base::Random& random, bool tied) {
  Case test;
  for (const char* qid : {"1", "10", "2"}) {
    auto& grades = test.qrels.grades[qid];
    auto& hits = test.run.hits[qid];
    test.qrels.qids.push_back(qid);
    test.run.qids.push_back(qid);
    // pytrec_eval, which computes most of these, reads past its table when no grade reaches `rel`.
    grades["top"] = 2 + static_cast<int64_t>(random.below(2));
    const uint64_t num_ids = 1 + random.below(25);
    for (uint64_t i = 0; i < num_ids; ++i) {
      const std::string id = "d" + std::to_string(i);
      if (random.below(2)) grades[id] = static_cast<int64_t>(random.below(6)) - 2;
      const double score = tied ? static_cast<double>(random.below(4))
                                : static_cast<double>(i) + 0.5 * random.uniform();
      if (hits.empty() || random.below(3)) hits.push_back({id, score});
    }
    if (random.below(2)) hits.push_back({"top", tied ? 1.0 : 100 * random.uniform()});
  }
  return test;
}

void expect_same(const std::vector<Case>& cases, const std::vector<std::string>& names,
                 const base::Json& expected, int64_t& num_compared) {
  ASSERT_EQ(expected.size(), cases.size());
  for (size_t c = 0; c < cases.size(); ++c) {
    const Evaluation ours = evaluate(cases[c].qrels, cases[c].run, parse_measures(names));
    for (size_t t = 0; t < ours.qids.size(); ++t)
      for (size_t m = 0; m < ours.measures.size(); ++m) {
        const std::string& name =
            ours.measures[m].name;  // Rprec is trec_eval's too, and comes first
        ASSERT_DOUBLE_EQ(ours.values[t][m], expected[c][name][ours.qids[t]].get<double>())
            << name << " of topic " << ours.qids[t] << ", case " << c;
        ++num_compared;
      }
  }
}

base::Json to_input(const std::vector<Case>& cases, const std::vector<std::string>& names) {
  base::Json input = base::Json::array();
  for (const Case& test : cases) {
    base::Json json = {{"measures", names}};
    for (const auto& [qid, grades] : test.qrels.grades)
      for (const auto& [docid, grade] : grades) json["qrels"][qid][docid] = grade;
    for (const auto& [qid, hits] : test.run.hits)
      for (const data::Hit& hit : hits) json["run"][qid][hit.docid] = hit.score;
    input.push_back(std::move(json));
  }
  return input;
}

TEST(IrMeasures, GivesTheSameValuesForEveryNameTaken) {
  base::Random random(7);
  for (const bool tied : {true, false}) {
    std::vector<std::string> asked = names();
    if (!tied)
      asked.insert(asked.end(), names_with_another_order().begin(),
                   names_with_another_order().end());
    std::vector<Case> cases;
    for (int i = 0; i < 60; ++i) cases.push_back(random_case(random, tied));
    const auto expected =
        ask_python("ir_measures_oracle.py", "ir_measures", to_input(cases, asked));
    if (!expected) GTEST_SKIP() << "no test-time Python with ir_measures";
    int64_t num_compared = 0;
    expect_same(cases, asked, *expected, num_compared);
    EXPECT_EQ(num_compared, static_cast<int64_t>(60 * 3 * asked.size()));
  }
}

// What docs/evaluation.md says of equal scores: one order for all measures here.
TEST(IrMeasures, OrdersEqualScoresOtherwiseForTwoOfItsMeasures) {
  Case test{make_qrels("q b 1"), make_run("q a 1 q b 1")};
  const auto expected = ask_python("ir_measures_oracle.py", "ir_measures",
                                   to_input({test}, {"RR", "RR@10", "Judged@1"}));
  if (!expected) GTEST_SKIP() << "no test-time Python with ir_measures";
  EXPECT_EQ((*expected)[0]["RR"]["q"], 1.0);
  EXPECT_EQ((*expected)[0]["RR@10"]["q"], 0.5);
  EXPECT_EQ((*expected)[0]["Judged@1"]["q"], 0.0);
  for (const char* name : {"RR", "RR@10", "Judged@1"})
    EXPECT_EQ(value_of(name, test.qrels, test.run), 1.0) << name;
}

}  // namespace
}  // namespace erank::eval
