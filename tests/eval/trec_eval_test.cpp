// Against what trec_eval itself printed: its own tests (10.0), a 9.0.4 output, and real runs.
#include "erank/base/json.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

// What trec_eval prints and this project leaves out.
const std::set<std::string> kLeftOut = {"infAP", "binG", "G", "ndcg_rel", "Rndcg"};
bool is_left_out(const std::string& name) {
  for (const char* family : {"relstring", "utility", "rbp", "Rprec_mult", "relative_P"})
    if (name.starts_with(family)) return true;
  return kLeftOut.contains(name);
}
bool is_interpolated(const std::string& name) {
  return name.starts_with("iprec") || name.starts_with("11pt");
}

struct Case {
  const char* expected;
  const char* qrels;
  const char* run;
  std::vector<std::string> measures = {};
  EvalOptions options = {};
  ReportOptions report = {};
};

// Every expected line of a measure that we have must be among ours, in the same order, and we must
// print no other line of the measures that it holds.
void expect_lines(const std::string& folder, const Case& test, TrecEvalRules rules) {
  SCOPED_TRACE(test.expected);
  const std::string qrels = unpacked(folder + "/" + test.qrels);
  const std::string run = unpacked(folder + "/" + test.run);
  if (qrels.empty() || run.empty()) GTEST_SKIP() << "xz is not installed";
  EvalOptions options = test.options;
  options.rules = rules;
  const Evaluation evaluation = evaluate(data::read_qrels(qrels), data::read_run(run),
                                         parse_measures(test.measures), options);
  std::set<std::string> names;
  std::vector<std::string> expected, ours;
  for (const std::string& line : lines_of(base::read_file(folder + "/" + test.expected))) {
    const std::string name = name_of(line);
    if (is_left_out(name)) continue;
    names.insert(name);
    expected.push_back(line);
  }
  for (const std::string& line : lines_of(format_lines(evaluation, test.report)))
    if (names.contains(name_of(line))) ours.push_back(line);
  EXPECT_EQ(ours, expected);
}

TEST(TrecEval, PrintsEveryLineOfItsOwnTests) {
  const std::string folder = testing::shared_data("trec_eval/test");
  if (folder.empty()) GTEST_SKIP() << "trec_eval's tests are not here";
  const std::vector<std::string> all = {"all_trec"};
  const std::vector<std::string> parameters = {"iprec_at_recall..10,.20,.25,.75,.50",
                                               "P.5,7,3",
                                               "recall.20,2000",
                                               "11pt_avg..25,.5,.75",
                                               "ndcg.1=3,2=9,4=4.5",
                                               "ndcg_cut.10,20,23.4",
                                               "success.2,5,20"};
  const Case cases[] = {
      {"out.test", "qrels.test", "results.test"},
      {"out.test", "qrels.test.with-comments", "results.test"},
      {"out.comment.test", "qrels.comment.test.xz", "results.comment.test.xz"},
      {"out.test.a", "qrels.test", "results.test", all},
      {"out.test.aq", "qrels.test", "results.test", all, {}, {.per_topic = true}},
      {"out.test.aqc", "qrels.test", "results.trunc", all, {.complete = true}, {.per_topic = true}},
      {"out.test.aqcM",
       "qrels.test",
       "results.trunc",
       all,
       {.max_hits = 100, .complete = true},
       {.per_topic = true}},
      {"out.test.aql",
       "qrels.rel_level",
       "results.test",
       all,
       {.relevance_level = 2},
       {.per_topic = true}},
      {"out.test.meas_params", "qrels.test", "results.test", parameters, {}, {.per_topic = true}},
  };
  for (const Case& test : cases) expect_lines(folder, test, TrecEvalRules::k10);
}

TEST(TrecEval, Version9DiffersOnlyInInterpolationAndMissingTopics) {
  const std::string folder = testing::shared_data("trec_eval/test");
  if (folder.empty()) GTEST_SKIP() << "trec_eval's tests are not here";
  const auto run = data::read_run(folder + "/results.trunc");
  const auto qrels = data::read_qrels(folder + "/qrels.test");
  const auto measures = parse_measures({"all_trec"});
  const ReportOptions report = {.per_topic = true};
  const Evaluation nine = evaluate(qrels, run, measures, {.complete = true});
  std::vector<std::string> expected, ours;
  const auto keep = [](const std::string& line) {
    return !is_left_out(name_of(line)) && !is_interpolated(name_of(line));
  };
  for (const std::string& line : lines_of(base::read_file(folder + "/out.test.aqc")))
    if (keep(line) && line.find("\t302\t") == line.npos) expected.push_back(line);
  for (const std::string& line : lines_of(format_lines(nine, report)))
    if (keep(line)) ours.push_back(line);
  EXPECT_EQ(ours, expected);
}

TEST(TrecEval, PrintsEveryLineOfVersion904) {
  const std::string folder = testing::shared_data("ir_measures");
  if (folder.empty()) GTEST_SKIP() << "the ir_measures fixtures are not here";
  expect_lines(folder,
               {"compat.trec_eval-9.0.4_all_trec_qc.txt",
                "compat.qrels",
                "compat.run",
                {"all_trec"},
                {.complete = true},
                {.per_topic = true}},
               TrecEvalRules::k9);
}

std::string run_file(const std::string& folder, const std::string& name) {
  const std::string file = name == "BM25" ? "/run.bm25-top100" : "/runs/run." + name;
  return unpacked(folder + file + ".trec.txt.xz");
}

TEST(TrecEval, AgreesOnEveryQueryOfNineRealRunsInBothVersions) {
  const std::string root = testing::shared_data("msmarco-dl");
  if (root.empty()) GTEST_SKIP() << "the runs of TREC DL are not here";
  const base::Json summaries = base::parse_json(base::read_file(root + "/expected_trec_eval.json"),
                                                "expected_trec_eval.json");
  ASSERT_EQ(summaries.size(), 9u);
  for (const base::Json& summary : summaries) {
    const std::string folder = root + "/" + summary["set"].get<std::string>();
    const std::string name = summary["run"];
    SCOPED_TRACE(folder + " " + name);
    const std::string plain = folder + "/qrels.txt";
    const auto qrels = data::read_qrels(base::file_exists(plain) ? plain : unpacked(plain + ".xz"));
    const std::string path = run_file(folder, name);
    if (path.empty()) GTEST_SKIP() << "xz is not installed";
    const auto run = data::read_run(path);
    for (const TrecEvalRules rules : {TrecEvalRules::k9, TrecEvalRules::k10}) {
      const Evaluation ndcg =
          evaluate(qrels, run, parse_measures({"ndcg_cut.10"}), {.rules = rules});
      EXPECT_EQ(format_lines(ndcg, {.per_topic = true}),
                base::read_file(folder + "/expected/" + name + ".ndcg_cut_10.per_query.txt"));
      for (const auto& [key, value] : summary.items()) {
        if (key == "set" || key == "run") continue;
        const bool level2 = key.ends_with("(l=2)");
        const std::string measure = key.substr(0, key.find('('));
        const Evaluation one = evaluate(qrels, run, parse_measures({measure}),
                                        {.rules = rules, .relevance_level = level2 ? 2 : 1});
        const std::string line = format_lines(one);
        EXPECT_EQ(line.substr(line.rfind('\t') + 1), value.get<std::string>() + "\n") << key;
      }
    }
  }
}

TEST(TrecEval, ReadsTheTsvJudgementsOfBeirAsWellAsTrecForm) {
  const std::string folder = testing::shared_data("beir/nfcorpus");
  if (folder.empty()) GTEST_SKIP() << "NFCorpus is not here";
  const std::string path = unpacked(folder + "/run.bm25-top100.trec.txt.xz");
  if (path.empty()) GTEST_SKIP() << "xz is not installed";
  const auto run = data::read_run(path);
  const auto measures = parse_measures({"num_q", "map", "recip_rank", "recall.100", "ndcg_cut.10"});
  const std::string lines = format_lines(
      evaluate(data::read_qrels(folder + "/qrels/test.tsv"), run, measures, {.complete = true}));
  EXPECT_EQ(lines, format_lines(evaluate(data::read_qrels(folder + "/qrels.test.trec.txt"), run,
                                         measures, {.complete = true})));
  EXPECT_EQ(lines,
            "num_q                 \tall\t323\n"
            "map                   \tall\t0.1447\n"
            "recip_rank            \tall\t0.5254\n"
            "recall_100            \tall\t0.2457\n"
            "ndcg_cut_10           \tall\t0.3200\n");
}

}  // namespace
}  // namespace erank::eval
