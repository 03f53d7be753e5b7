// Against pytrec_eval (trec_eval 9.0.8's own code) on random rankings that are mostly ties.
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

struct Case {
  data::Qrels qrels;
  data::Run run;
  EvalOptions options;
};

// Ids in which byte order, length and case all matter.
std::string random_id(base::Random& random) {
  static const std::string letters = "aAbB019-_z";
  std::string id;
  for (uint64_t i = 0, n = 1 + random.below(6); i < n; ++i)
    id += letters[random.below(letters.size())];
  return random.below(8) == 0 ? id + "\xc3\xa9" : id;
}

// Few different scores, and some that only a double tells apart.
double random_score(base::Random& random) {
  switch (random.below(4)) {
    case 0:
      return 10.0 * (1.0 - 1e-9 * static_cast<double>(random.below(5)));
    case 1:
      return static_cast<double>(random.below(4)) - 2.0;
    case 2:
      return 1e-42 * static_cast<double>(random.below(9));
    default:
      return random.uniform();
  }
}

Case random_case(base::Random& random) {
  Case test;
  test.options.relevance_level = 1 + static_cast<int64_t>(random.below(3));
  test.options.judged_only = random.below(4) == 0;
  const uint64_t num_ids = 2 + random.below(60);
  std::vector<std::string> ids;
  for (uint64_t i = 0; i < num_ids; ++i) ids.push_back(random_id(random));
  for (const char* qid : {"1", "10", "2", "b", "B"}) {
    auto& grades = test.qrels.grades[qid];
    auto& hits = test.run.hits[qid];
    test.qrels.qids.push_back(qid);
    test.run.qids.push_back(qid);
    // pytrec_eval reads past its table when no judgement reaches the level below the one asked for.
    grades["top"] = test.options.relevance_level;
    std::set<std::string> used;
    for (const std::string& id : ids) {
      if (random.below(2)) grades[id] = static_cast<int64_t>(random.below(5));
      if (random.below(3) && used.insert(id).second) hits.push_back({id, random_score(random)});
    }
    if (hits.empty() || random.below(2)) hits.push_back({"top", random_score(random)});
  }
  return test;
}

base::Json to_case_json(const Case& test, const std::vector<std::string>& measures) {
  base::Json json = {{"relevance_level", test.options.relevance_level},
                     {"judged_only", test.options.judged_only},
                     {"measures", measures}};
  for (const auto& [qid, grades] : test.qrels.grades)
    for (const auto& [docid, grade] : grades) json["qrels"][qid][docid] = grade;
  for (const auto& [qid, hits] : test.run.hits)
    for (const data::Hit& hit : hits) json["run"][qid][hit.docid] = hit.score;
  return json;
}

TEST(PytrecEval, GivesTheSameValuesOnRandomRankingsFullOfTies) {
  const std::string python = testing::test_python();
  if (python.empty()) GTEST_SKIP() << "no test-time Python with pytrec_eval";
  const std::vector<std::string> names = {"map",
                                          "Rprec",
                                          "bpref",
                                          "recip_rank",
                                          "iprec_at_recall",
                                          "P.1,2,3,7,30",
                                          "recall",
                                          "11pt_avg",
                                          "ndcg",
                                          "ndcg_cut.1,2,3,7,30",
                                          "map_cut",
                                          "success",
                                          "set_P",
                                          "set_recall",
                                          "set_relative_P",
                                          "set_map",
                                          "set_F",
                                          "num_ret",
                                          "num_rel",
                                          "num_rel_ret",
                                          "num_nonrel_judged_ret"};
  base::Random random(20240607);
  std::vector<Case> cases;
  base::Json input = base::Json::array();
  for (int i = 0; i < 150; ++i) {
    cases.push_back(random_case(random));
    input.push_back(to_case_json(cases.back(), names));
  }
  const std::string stem = ::testing::TempDir() + "erank_pytrec_" + std::to_string(getpid());
  base::write_file_atomic(stem + ".in", base::dump_json(input));
  const std::string command = "'" + python +
                              "' '" ERANK_SOURCE_DIR "/tests/eval/pytrec_eval_oracle.py' < '" +
                              stem + ".in' > '" + stem + ".out'";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  const base::Json expected = base::parse_json(base::read_file(stem + ".out"), "pytrec_eval");
  ASSERT_EQ(expected.size(), cases.size());

  int64_t num_compared = 0, num_tied = 0, num_only_float = 0;
  for (size_t c = 0; c < cases.size(); ++c) {
    const Evaluation ours =
        evaluate(cases[c].qrels, cases[c].run, parse_measures(names), cases[c].options);
    num_tied += ours.ties.num_tied, num_only_float += ours.ties.num_only_float;
    ASSERT_EQ(expected[c].size(), ours.qids.size());
    for (size_t t = 0; t < ours.qids.size(); ++t) {
      const base::Json& theirs = expected[c][ours.qids[t]];
      for (size_t m = 0; m < ours.measures.size(); ++m) {
        const std::string& name = ours.measures[m].name;
        ASSERT_TRUE(theirs.contains(name)) << name;
        if (theirs[name].is_null()) continue;  // 0/0 in trec_eval
        ASSERT_DOUBLE_EQ(ours.values[t][m], theirs[name].get<double>())
            << name << " of topic " << ours.qids[t] << ", case " << c << ": "
            << input[c].dump(-1, ' ', false, base::Json::error_handler_t::replace);
        ++num_compared;
      }
    }
  }
  EXPECT_GT(num_compared, 40000);
  EXPECT_GT(num_tied, 5000);
  EXPECT_GT(num_only_float, 300);
}

}  // namespace
}  // namespace erank::eval
