#include "erank/base/error.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

std::vector<std::string> names_of(const std::vector<std::string>& asked) {
  std::vector<std::string> names;
  for (const Measure& measure : parse_measures(asked)) names.push_back(measure.name);
  return names;
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& e) {
    return e.what();
  }
  return "(accepted)";
}

using Names = std::vector<std::string>;

TEST(MeasureNames, PrintTrecEvalsNamesInItsOrderHoweverTheyAreWritten) {
  EXPECT_EQ(names_of({"ndcg_cut_10", "P.10,5", "map", "iprec_at_recall.0.1", "ndcg.1=3,2=9"}),
            (Names{"map", "iprec_at_recall_0.10", "P_5", "P_10", "ndcg_1=3,2=9", "ndcg_cut_10"}));
  EXPECT_EQ(names_of({"iprec_at_recall_0.10", "ndcg_cut.10,20,23.4", "set_F.0.5", "success"}),
            (Names{"iprec_at_recall_0.10", "ndcg_cut_10", "ndcg_cut_20", "ndcg_cut_23", "success_1",
                   "success_5", "success_10", "set_F_0.5"}));
  EXPECT_EQ(names_of({"P.5", "P_10", "P.5"}), (Names{"P_5", "P_10"}));
  // As trec_eval reads it: one cut-off, of which the part after its dot is cut.
  EXPECT_EQ(names_of({"ndcg_cut.10.5"}), (Names{"ndcg_cut_10"}));
  EXPECT_EQ(names_of({"11pt_avg..25,.5,.75", "ndcg"}), (Names{"11pt_avg_.25,.5,.75", "ndcg"}));
  EXPECT_EQ(names_of({"ndcg.1=3", "ndcg", "ndcg_1=3"}), (Names{"ndcg", "ndcg_1=3"}));
}

TEST(MeasureNames, PrintIrMeasuresNamesAsAskedFor) {
  const Names asked = {"nDCG@10",
                       "P(rel=2)@5",
                       "AP(rel=2)@100",
                       "RR",
                       "RR@10",
                       "R@100",
                       "AP",
                       "Success@1",
                       "Judged@10",
                       "Bpref",
                       "IPrec@0.1",
                       "NumQ",
                       "NumRet",
                       "NumRet(rel=1)",
                       "NumRel",
                       "SetP",
                       "SetR",
                       "SetF(beta=2)",
                       "P@5",
                       "Rprec(rel=2)",
                       "MRR@10",
                       "nDCG(gains={0:1,2:2.5})@10",
                       "Judged"};
  EXPECT_EQ(names_of(asked), asked);
  EXPECT_EQ(names_of({"nDCG@10", "map", "nDCG@10"}), (Names{"map", "nDCG@10"}));
}

TEST(MeasureNames, KnowTheOfficialSetAndLetParametersReplaceIt) {
  const Names official = names_of({});
  ASSERT_EQ(official.size(), 30u);
  EXPECT_EQ(official.front(), "runid");
  EXPECT_EQ(official.back(), "P_1000");
  EXPECT_EQ(official, names_of({"official"}));
  const Names replaced = names_of({"official", "P.3"});
  EXPECT_EQ(replaced.size(), 22u);
  EXPECT_EQ(replaced.back(), "P_3");
  EXPECT_EQ(names_of({"set"}),
            (Names{"runid", "num_q", "num_ret", "num_rel", "num_rel_ret", "set_P", "set_relative_P",
                   "set_recall", "set_map", "set_F"}));
}

TEST(MeasureNames, RefuseWhatTheyDoNotKnowAndSayWhy) {
  EXPECT_NE(refusal([] { parse_measures({"ndgc_cut.10"}); }).find("known are"), std::string::npos);
  for (const char* name : {"",
                           "infAP",
                           "ndcg_rel",
                           "map_avgjg",
                           "map.5",
                           "P.",
                           "P.5,",
                           "P.x",
                           "P.0",
                           "P.-1",
                           "iprec_at_recall.1.1",
                           "ndcg.1",
                           "ndcg.1=",
                           "ndcg.1=3,1=4",
                           "ndcg.1.5=3",
                           "ndcg.x=3",
                           "set_F.x",
                           "P@",
                           "P@0",
                           "nDCG@x",
                           "P(rel=2",
                           "P(rel=x)@5",
                           "P(foo=1)@5",
                           "R",
                           "Judged(rel=1)@5",
                           "nDCG(dcg='exp-log2')@10",
                           "NumQ@10",
                           "AP@10x",
                           "ERR@10",
                           "P@nan",
                           "ndcg_cut.10.5.3",
                           "nDCG@10.5",
                           "nDCG(gains=1:3)@10",
                           "nDCG(gains={1=3})@10",
                           "nDCG(gains={1:3,1:4})@10",
                           "nDCG(gains={1:-1})@10",
                           "nDCG(gains={-1:1})@10",
                           "nDCG(gains={})@10",
                           "AP(gains={1:3})"}) {
    EXPECT_NE(refusal([&] { parse_measures({name}); }).find("[measures] '" + std::string(name)),
              std::string::npos)
        << name;
  }
}

// b c a d in order; grades a 2, b 0, d 1, e 3.
const char* const kRun = "q b 9\nq a 7\nq c 8\nq d 6";
const char* const kQrels = "q a 2\nq b 0\nq d 1\nq e 3\nq f -1";

TEST(Measures, AreWhatTheirFormulasSayOnOneSmallRanking) {
  const auto run = make_run(kRun);
  const auto qrels = make_qrels(kQrels);
  const auto value = [&](const char* name) { return value_of(name, qrels, run); };
  EXPECT_DOUBLE_EQ(value("num_rel"), 3);
  EXPECT_DOUBLE_EQ(value("num_rel_ret"), 2);
  EXPECT_DOUBLE_EQ(value("num_nonrel_judged_ret"), 1);
  EXPECT_DOUBLE_EQ(value("AP"), (1.0 / 3 + 2.0 / 4) / 3);
  EXPECT_DOUBLE_EQ(value("AP@3"), (1.0 / 3) / 3);
  EXPECT_DOUBLE_EQ(value("AP(rel=2)"), (1.0 / 3) / 2);
  EXPECT_DOUBLE_EQ(value("P@3"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(value("P@10"), 2.0 / 10);
  EXPECT_DOUBLE_EQ(value("R@4"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(value("R(rel=3)@4"), 0);
  EXPECT_DOUBLE_EQ(value("Rprec"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(value("RR"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(value("RR@2"), 0);
  EXPECT_DOUBLE_EQ(value("RR(rel=1)@3"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(value("Success@2"), 0);
  EXPECT_DOUBLE_EQ(value("Success@3"), 1);
  EXPECT_DOUBLE_EQ(value("Judged@4"), 3.0 / 4);
  EXPECT_DOUBLE_EQ(value("Judged@20"), 3.0 / 4);
  EXPECT_DOUBLE_EQ(value("Judged@1"), 1);
  EXPECT_DOUBLE_EQ(value("Judged"), 3.0 / 4);
  EXPECT_DOUBLE_EQ(value("unj.4"), 1.0 / 4);
  EXPECT_DOUBLE_EQ(value("unj.20"), 1.0 / 20);
  EXPECT_DOUBLE_EQ(value("bpref"), 0);  // the one judged non-relevant document is first
  EXPECT_DOUBLE_EQ(value("SetF(beta=2)"), 3 * 0.5 * (2.0 / 3) / (2 * 0.5 + 2.0 / 3));
  EXPECT_DOUBLE_EQ(value("set_relative_P"), 2.0 / 3);
  const double ideal = 3 + 2 / std::log2(3) + 1 / std::log2(4);
  EXPECT_DOUBLE_EQ(value("nDCG"), (2 / std::log2(4) + 1 / std::log2(5)) / ideal);
  EXPECT_DOUBLE_EQ(value("nDCG@3"), (2 / std::log2(4)) / ideal);
}

TEST(Measures, TakeCustomGainsAlsoForGradeZeroAndBelowOne) {
  const auto run = make_run(kRun);
  const auto qrels = make_qrels(kQrels);
  EXPECT_DOUBLE_EQ(
      value_of("ndcg.0=1,1=0.5,3=-1", qrels, run),
      (1 + 2 / std::log2(4) + 0.5 / std::log2(5)) / (2 + 1 / std::log2(3) + 0.5 / std::log2(4)));
  EXPECT_DOUBLE_EQ(value_of("ndcg.1=0,2=0,3=0", qrels, run), 0);
  EXPECT_DOUBLE_EQ(value_of("nDCG(gains={0:1,1:0.5})", qrels, run),
                   value_of("ndcg.0=1,1=0.5", qrels, run));
  EXPECT_DOUBLE_EQ(value_of("nDCG(gains={1:3,2:9})@3", qrels, run),
                   (9 / std::log2(4)) / (9 + 3 / std::log2(3) + 3 / std::log2(4)));
}

TEST(Measures, BreakTiesByTheGreaterDocidByteByByte) {
  // Bytes: "9" > "10", "a" > "A", "\xc3\xa9" > "z", "ab" > "a".
  for (const auto& [first, second] : std::vector<std::pair<std::string, std::string>>{
           {"9", "10"}, {"a", "A"}, {"\xc3\xa9", "z"}, {"ab", "a"}}) {
    for (const bool swapped : {false, true}) {
      const auto run = make_run(swapped ? "q " + second + " 1 q " + first + " 1"
                                        : "q " + first + " 1 q " + second + " 1");
      EXPECT_DOUBLE_EQ(value_of("RR", make_qrels("q " + first + " 1"), run), 1) << first;
      EXPECT_DOUBLE_EQ(value_of("RR", make_qrels("q " + second + " 1"), run), 0.5) << first;
    }
  }
}

TEST(Measures, KeepScoresAsFloatsOrDoublesByTheRules) {
  // As floats the two scores are equal, and z is first.
  const auto run = make_run("q a 0.99999999 q z 0.99999998");
  const auto qrels = make_qrels("q a 1");
  EXPECT_DOUBLE_EQ(value_of("RR", qrels, run), 0.5);
  EXPECT_DOUBLE_EQ(value_of("RR", qrels, run, {.rules = TrecEvalRules::k10}), 1);
  const auto ties = evaluate(qrels, run, {}).ties;
  EXPECT_EQ(ties.num_tied, 2);
  EXPECT_EQ(ties.num_groups, 1);
  EXPECT_EQ(ties.num_only_float, 1);
  EXPECT_EQ(evaluate(qrels, run, {}, {.rules = TrecEvalRules::k10}).ties.num_tied, 0);
}

TEST(Measures, RoundTheRecallPointByTheRules) {
  // A tenth of two relevant documents is 0.2: one document by trunc(x + 0.9), none by lround. Only
  // the second relevant document, at rank 4, is as good as a recall of 0.8 in both.
  const auto run = make_run("q a 9 q b 8 q c 7 q d 6");
  const auto qrels = make_qrels("q b 1 q c 1 q x 1 q y 1 q z 1 q w 1");
  EXPECT_DOUBLE_EQ(value_of("IPrec@0.4", qrels, run), 0);  // 2.4: three documents
  EXPECT_DOUBLE_EQ(value_of("IPrec@0.4", qrels, run, {.rules = TrecEvalRules::k10}), 2.0 / 3);
}

TEST(Measures, CountTheJudgedOnlyUnderJudgedOnly) {
  const auto run = make_run(kRun);
  const auto qrels = make_qrels(kQrels);
  EvalOptions options{.judged_only = true};
  EXPECT_DOUBLE_EQ(value_of("RR", qrels, run, options), 0.5);  // c, not judged, is gone
  EXPECT_DOUBLE_EQ(value_of("num_ret", qrels, run, options), 3);
  options.max_hits = 2;  // -M cuts first
  EXPECT_DOUBLE_EQ(value_of("RR", qrels, run, options), 0);
  EXPECT_DOUBLE_EQ(value_of("num_ret", qrels, run, options), 1);
  const auto unjudged = make_run("q x 1");
  for (const Measure& measure : parse_measures({"all_trec"}))
    EXPECT_FALSE(std::isnan(evaluate(qrels, unjudged, {measure}, options).summary[0]))
        << measure.name;
}

TEST(Measures, TreatNegativeGradesAsNotJudged) {
  const auto run = make_run("q f 2 q a 1");
  const auto qrels = make_qrels(kQrels);
  EXPECT_DOUBLE_EQ(value_of("num_nonrel_judged_ret", qrels, run), 0);
  EXPECT_DOUBLE_EQ(value_of("Bpref", qrels, run), 1.0 / 3);
  EXPECT_DOUBLE_EQ(value_of("nDCG@1", qrels, run), 0);
  EXPECT_DOUBLE_EQ(value_of("unj.1", qrels, run), 1);
  EXPECT_DOUBLE_EQ(value_of("Judged@1", qrels, run), 1);  // but for ir_measures' Judged
  EXPECT_DOUBLE_EQ(value_of("Judged@5", qrels, make_run("q f 2 q x 1 q a 0.5 q y 0")), 2.0 / 4);
}

const char* const kTwoTopics = "1 a 1\n2 a 2\n2 b 1";

TEST(MissingTopics, AreLeftOutOrCountedAsZeroAsEachVersionDoes) {
  const auto run = make_run("1 a 1 3 a 1");
  const auto qrels = make_qrels(kTwoTopics);
  const auto measures = parse_measures({"num_q", "num_rel", "map", "gm_map", "NumRel(rel=2)"});
  const auto lines = [&](const EvalOptions& options) {
    return format_lines(evaluate(qrels, run, measures, options), {.per_topic = true});
  };
  EXPECT_EQ(lines({}),
            "num_rel               \t1\t1\nmap                   \t1\t1.0000\n"
            "NumRel(rel=2)         \t1\t0\n"
            "num_q                 \tall\t1\nnum_rel               \tall\t1\n"
            "map                   \tall\t1.0000\ngm_map                \tall\t1.0000\n"
            "NumRel(rel=2)         \tall\t0\n");
  EXPECT_EQ(lines({.complete = true}),
            "num_rel               \t1\t1\nmap                   \t1\t1.0000\n"
            "NumRel(rel=2)         \t1\t0\n"
            "num_q                 \tall\t2\nnum_rel               \tall\t3\n"
            "map                   \tall\t0.5000\ngm_map                \tall\t0.0032\n"
            "NumRel(rel=2)         \tall\t1\n");
  EXPECT_EQ(lines({.rules = TrecEvalRules::k10, .complete = true}),
            "num_rel               \t1\t1\nmap                   \t1\t1.0000\n"
            "NumRel(rel=2)         \t1\t0\n"
            "num_rel               \t2\t2\nmap                   \t2\t0.0000\n"
            "NumRel(rel=2)         \t2\t1\n"
            "num_q                 \tall\t2\nnum_rel               \tall\t3\n"
            "map                   \tall\t0.5000\ngm_map                \tall\t0.0032\n"
            "NumRel(rel=2)         \tall\t1\n");
}

TEST(MissingTopics, AreSaidInOneLine) {
  const auto qrels = make_qrels(kTwoTopics);
  const auto run = make_run("1 a 1 3 a 1");
  EXPECT_EQ(missing_topics(evaluate(qrels, run, {})),
            "topics of the run without judgements, left out: 1 (3); topics of the judgements that "
            "the run lacks, left out: 1 (2), which eval -c counts as 0");
  EXPECT_EQ(missing_topics(evaluate(qrels, make_run("1 a 1"), {}, {.complete = true})),
            "topics of the judgements that the run lacks, counted as 0: 1 (2)");
  EXPECT_EQ(
      missing_topics(evaluate(make_qrels("1 a 1"), make_run("1 a 1 2 a 1 3 a 1 4 a 1 5 a 1"), {})),
      "topics of the run without judgements, left out: 4 (2, 3, 4, ...)");
  EXPECT_EQ(missing_topics(evaluate(qrels, make_run("1 a 1 2 a 1"), {})), "");
  EXPECT_NE(refusal([&] { evaluate(qrels, make_run("x a 1"), {}); }).find("no topic is in both"),
            std::string::npos);
  EXPECT_NE(refusal([&] { evaluate(qrels, {}, {}); }).find("the run has 0 topics"),
            std::string::npos);
}

TEST(MissingTopics, AllOfThemAreAMeanOfZeroWithComplete) {
  const auto qrels = make_qrels(kTwoTopics);
  const auto measures = parse_measures({"num_q", "num_ret", "num_rel", "map", "gm_map", "nDCG@10"});
  for (const data::Run& run : {make_run(""), make_run("x a 1")})
    for (const TrecEvalRules rules : {TrecEvalRules::k9, TrecEvalRules::k10}) {
      const auto evaluation = evaluate(qrels, run, measures, {.rules = rules, .complete = true});
      EXPECT_EQ(evaluation.qids.size(), rules == TrecEvalRules::k9 ? 0u : 2u);
      EXPECT_EQ(evaluation.not_in_run, (std::vector<std::string>{"1", "2"}));
      EXPECT_NEAR(evaluation.summary[4], 1e-5, 1e-18);
      EXPECT_EQ(evaluation.summary[0], 2);
      EXPECT_EQ(evaluation.summary[1], 0);
      EXPECT_EQ(evaluation.summary[2], 3);
      EXPECT_EQ(evaluation.summary[3], 0);
      EXPECT_EQ(evaluation.summary[5], 0);
    }
  EXPECT_NE(refusal([&] {
              evaluate({}, make_run("x a 1"), {}, {.complete = true});
            }).find("no topic is in both"),
            std::string::npos);
}

TEST(MissingTopics, WithOnlyZeroGradesStillCount) {
  const auto evaluation = evaluate(make_qrels("1 a 0 2 a 1"), make_run("1 a 1 2 a 1"),
                                   parse_measures({"num_q", "nDCG@10", "recall.5", "bpref"}));
  EXPECT_EQ(evaluation.summary, (std::vector<double>{2, 0.5, 0.5, 0.5}));
}

TEST(Report, SortsTopicsByBytesAndKeepsLongNames) {
  const auto evaluation =
      evaluate(make_qrels("b a 1 10 a 1 2 a 0 B a 1"), make_run("b a 1 10 a 1 2 a 1 B a 1"),
               parse_measures({"num_nonrel_judged_ret", "AP(rel=1)@1000000000"}));
  EXPECT_EQ(format_lines(evaluation, {.per_topic = true, .summary = false}),
            "num_nonrel_judged_ret \t10\t0\nAP(rel=1)@1000000000  \t10\t1.0000\n"
            "num_nonrel_judged_ret \t2\t1\nAP(rel=1)@1000000000  \t2\t0.0000\n"
            "num_nonrel_judged_ret \tB\t0\nAP(rel=1)@1000000000  \tB\t1.0000\n"
            "num_nonrel_judged_ret \tb\t0\nAP(rel=1)@1000000000  \tb\t1.0000\n");
}

TEST(Report, WritesJsonWithFullPrecision) {
  const auto evaluation =
      evaluate(make_qrels("1 a 1 2 b 1 2 c 1 2 d 1"), make_run("1 a 1 2 x 2 2 b 1"),
               parse_measures({"runid", "num_ret", "gm_map", "nDCG@10", "AP"}));
  const auto json = to_json(evaluation);
  EXPECT_EQ(json["runid"].dump(), R"({"all":"tag"})");
  EXPECT_EQ(json["num_ret"].dump(), R"({"all":3,"queries":{"1":1,"2":2}})");
  EXPECT_FALSE(json["gm_map"].contains("queries"));
  EXPECT_DOUBLE_EQ(json["AP"]["queries"]["2"].get<double>(), 1.0 / 6);
  EXPECT_DOUBLE_EQ(json["AP"]["all"].get<double>(), (1 + 1.0 / 6) / 2);
  EXPECT_FALSE(to_json(evaluation, {.summary = false})["AP"].contains("all"));
}

TEST(Report, SaysHowMuchTiesLeaveOpen) {
  const auto qrels = make_qrels("1 a 1 2 a 1");
  const auto run = make_run("1 a 5 1 b 5 1 c 5 1 d 1 2 a 3 2 b 2");
  const auto measures = parse_measures({"num_q", "recip_rank"});
  const auto ours = evaluate(qrels, run, measures);
  const auto worst = evaluate(qrels, run, measures, {.ties = TieOrder::kWorst});
  const auto best = evaluate(qrels, run, measures, {.ties = TieOrder::kBest});
  EXPECT_EQ(ours.ties.num_hits, 6);
  EXPECT_EQ(format_ties({ours, worst, best}),
            "tie_hits              \tall\t3\ntie_groups            \tall\t1\n"
            "tie_largest           \tall\t3\ntie_topics            \tall\t1\n"
            "tie_only_float        \tall\t0\n"
            "recip_rank            \tworst\t0.6667\nrecip_rank            \tbest\t1.0000\n");
  EXPECT_EQ(to_json(TieReport{ours, worst, best})["measures"]["recip_rank"]["best"], 1.0);
}

}  // namespace
}  // namespace erank::eval
