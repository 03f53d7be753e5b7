#include "erank/eval/comparison.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/eval/comparison_report.h"
#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// w first + (1 - w) own, without z-scores.
std::vector<double> plain_blend(std::span<const double> first, std::span<const double> own,
                                double w) {
  std::vector<double> out;
  for (size_t i = 0; i < first.size(); ++i) out.push_back(w * first[i] + (1 - w) * own[i]);
  return out;
}

data::Results to_results(const data::Run& run, bool is_jsonl = false) {
  data::Results results;
  results.is_jsonl = is_jsonl;
  results.qids = run.qids;
  for (const auto& [qid, hits] : run.hits)
    for (const data::Hit& hit : hits) results.results[qid].push_back({hit.docid, hit.score});
  return results;
}

// `n` queries of ten documents with one relevant each, which the first stage ranks at random and
// the other run in a better place the higher `skill` is.
struct Collection {
  data::Qrels qrels;
  std::vector<NamedRun> runs;
};
Collection collection(size_t n, double skill, uint64_t seed = 1) {
  base::Random random(seed);
  data::Run first, other;
  Collection out;
  for (size_t q = 0; q < n; ++q) {
    const std::string qid = "q" + std::to_string(q);
    out.qrels.qids.push_back(qid), first.qids.push_back(qid), other.qids.push_back(qid);
    for (int d = 0; d < 10; ++d) {
      const std::string docid = "d" + std::to_string(d);
      out.qrels.grades[qid][docid] = d == 0;
      first.hits[qid].push_back({docid, random.uniform()});
      other.hits[qid].push_back({docid, random.uniform() * 5 + (d == 0 ? skill : 0)});
    }
  }
  out.runs = {{"first", to_results(first)}, {"other", to_results(other)}};
  return out;
}

Comparison compared(const Collection& c, const ComparisonOptions& options = {}) {
  return compare(c.qrels, c.runs, options, plain_blend);
}

TEST(Comparison, AnswersYesNoOrThatItCannotBeTold) {
  const auto yes = compared(collection(60, 4));
  EXPECT_EQ(yes.runs[1].answer, Answer::kYes);
  EXPECT_THAT(answer_text(yes, yes.runs[1]), HasSubstr("Yes, on these 60 queries: other alone +"));
  const auto few = compared(collection(6, 0.5, 3));
  EXPECT_EQ(few.runs[1].answer, Answer::kCannotTell) << answer_text(few, few.runs[1]);
  EXPECT_THAT(answer_text(few, few.runs[1]), HasSubstr("It cannot be told with 6 queries"));
  const auto no = compared(collection(400, -3));
  EXPECT_EQ(no.runs[1].answer, Answer::kNo) << answer_text(no, no.runs[1]);
  EXPECT_THAT(answer_text(no, no.runs[1]), HasSubstr("No, on these 400 queries"));
  // The same ranking twice changes nothing, which can be told.
  Collection same = collection(30, 1);
  same.runs[1].results = same.runs[0].results;
  const auto nothing = compared(same);
  EXPECT_EQ(nothing.runs[1].answer, Answer::kNo);
  EXPECT_EQ(nothing.runs[1].test->ties, 30);
  EXPECT_EQ(nothing.runs[1].test->p_randomization, 1);
  EXPECT_EQ(nothing.runs[1].test->p_t, 1);
}

TEST(Comparison, HoldsTheNumbersOfItsParts) {
  Collection c = collection(25, 1.5);
  c.runs.push_back({"worse", to_results(c.runs[0].results.run())});
  for (auto& [qid, list] : c.runs[2].results.results)
    for (auto& result : list) result.score = -*result.score;
  const auto out = compared(c, {.measures = {"nDCG@10", "RR"}});
  EXPECT_THAT(out.measures, ElementsAre("nDCG@10", "RR"));
  ASSERT_EQ(out.qids.size(), 25u);
  std::vector<double> holm_in, differences;
  for (size_t r = 0; r < 3; ++r) {
    const auto evaluation =
        evaluate(c.qrels, c.runs[r].results.run(), parse_measures({"nDCG@10", "RR"}));
    for (size_t m : {0, 1}) {
      EXPECT_DOUBLE_EQ(out.runs[r].estimates[m].mean, evaluation.summary[m]);
      EXPECT_LE(out.runs[r].estimates[m].interval.low, evaluation.summary[m]);
      EXPECT_GE(out.runs[r].estimates[m].interval.high, evaluation.summary[m]);
    }
    if (r == 0) continue;
    for (const PairedTest* test : {&*out.runs[r].test, &out.runs[r].blend->test})
      holm_in.push_back(test->p_t);
    EXPECT_EQ(out.runs[r].test->wins + out.runs[r].test->ties + out.runs[r].test->losses, 25);
  }
  for (size_t q = 0; q < 25; ++q)
    differences.push_back(out.runs[1].values[q] - out.runs[0].values[q]);
  EXPECT_DOUBLE_EQ(out.runs[1].test->p_t, paired_t_test(differences));
  EXPECT_DOUBLE_EQ(out.runs[1].test->difference.mean, mean(differences));
  EXPECT_DOUBLE_EQ(out.runs[1].test->holm_t, holm(holm_in)[0]);
  EXPECT_DOUBLE_EQ(out.runs[2].blend->test.holm_t, holm(holm_in)[3]);
  // The same seed, the same numbers; another one, other draws.
  const auto again = compared(c, {.measures = {"nDCG@10", "RR"}});
  EXPECT_EQ(to_json(out, {}).dump(), to_json(again, {}).dump());
  const auto other = compared(c, {.measures = {"nDCG@10", "RR"}, .seed = 2});
  EXPECT_NE(out.runs[1].test->difference.interval.low, other.runs[1].test->difference.interval.low);
}

TEST(Comparison, ChoosesTheWeightOfAHalfOnTheOtherHalf) {
  // The other run is right on four queries and the first stage on four, each by far. A half in
  // which one of them is right more often gives its weight to the other half, where it is right
  // less often: what is chosen honestly is right on at most four queries, and on fewer wherever the
  // halves differ. Weights chosen on the half itself would be right on at least four.
  Collection c;
  data::Run first, other;
  for (int q = 0; q < 8; ++q) {
    const std::string qid = "q" + std::to_string(q);
    c.qrels.qids.push_back(qid), first.qids.push_back(qid), other.qids.push_back(qid);
    c.qrels.grades[qid] = {{"good", 1}, {"bad", 0}};
    first.hits[qid] = {{"good", q < 4 ? 1.0 : 0.0}, {"bad", q < 4 ? 0.0 : 1.0}};
    other.hits[qid] = {{"good", q < 4 ? 0.0 : 1.0}, {"bad", q < 4 ? 1.0 : 0.0}};
  }
  c.runs = {{"first", to_results(first)}, {"other", to_results(other)}};
  int num_right = 0;
  constexpr int kSeeds = 10;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto out = compared(c, {.measures = {"RR"}, .seed = seed});
    const auto& values = out.runs[1].blend->values;
    const auto right = std::count(values.begin(), values.end(), 1.0);
    EXPECT_LE(right, 4);
    num_right += static_cast<int>(right);
  }
  EXPECT_LT(num_right, 4 * kSeeds);
  EXPECT_GT(num_right, 0);
  // With one run right everywhere both halves agree.
  for (auto& [qid, list] : c.runs[1].results.results) list = {{"good", 5.0}, {"bad", 0.0}};
  const auto right = compared(c, {.measures = {"RR"}});
  EXPECT_EQ(right.runs[1].blend->weights[0], 0);
  EXPECT_EQ(right.runs[1].blend->weights[1], 0);
  EXPECT_EQ(right.runs[1].blend->value.mean, 1);
}

TEST(Comparison, TakesTheQueriesThatAllHaveAndSaysWhichItLeavesOut) {
  Collection c = collection(6, 2);
  c.runs[1].results.qids.pop_back();
  c.runs[1].results.results.erase("q5");
  c.qrels.qids.push_back("unasked");
  c.qrels.grades["unasked"]["d0"] = 1;
  const auto out = compared(c);
  EXPECT_THAT(out.qids, ElementsAre("q0", "q1", "q2", "q3", "q4"));
  EXPECT_THAT(out.warnings, ElementsAre(HasSubstr("first: topics of the judgements that the run "
                                                  "lacks, left out: 1 (unasked)"),
                                        HasSubstr("other: topics of the judgements that the run "
                                                  "lacks, left out: 2 (q5, unasked)")));
  const auto all = compared(c, {.complete = true});
  EXPECT_EQ(all.qids.size(), 7u);
  EXPECT_EQ(all.runs[1].values[5], 0);
  EXPECT_THAT(all.warnings[1], HasSubstr("counted as 0: 2"));
}

TEST(Comparison, RefusesWhatItCannotCompare) {
  const auto said = [](Collection c, const ComparisonOptions& options = {}) -> std::string {
    try {
      compared(c, options);
    } catch (const base::Error& e) {
      return e.what();
    }
    return "(accepted)";
  };
  Collection c = collection(3, 1);
  EXPECT_THAT(said(c, {.measures = {"num_q"}}), HasSubstr("no value for each query"));
  c.runs[1].name = "first";
  EXPECT_THAT(said(c), HasSubstr("two runs are called 'first'"));
  c.runs[1].name = "other";
  for (const char* qid : {"q1", "q2"}) c.runs[0].results.results.erase(qid);
  c.runs[0].results.qids = {"q0"};
  c.runs[1].results.results.erase("q0");
  EXPECT_THAT(said(c), HasSubstr("no query is in the judgements and in every run"));
}

TEST(Comparison, CountsScoresByGradeTiesAndLengths) {
  Collection c = collection(3, 1);
  c.runs[1].results = to_results(make_run("q0 d0 8 q0 d1 8 q0 new 3 q1 d0 9 q2 d0 10"), true);
  auto& list = c.runs[1].results.results["q0"];
  list[0].new_tokens = 7, list[0].prompt_tokens = 90;
  list.push_back({"unscored", std::nullopt});
  list.back().new_tokens = 0, list.back().prompt_tokens = 0;
  c.runs[1].seconds = {{"q2", 0.5}, {"q0", 2}, {"nobody's", 9}};
  const auto run = compared(c).runs[1];
  EXPECT_THAT(run.seconds, ElementsAre(2, 0.5));
  Collection more = c;
  more.qrels.qids.push_back("q3");
  more.qrels.grades["q3"]["d0"] = 1;
  EXPECT_THAT(compared(more, {.complete = true}).warnings.back(),
              HasSubstr("other: 1 of 5 scored documents are not in first"));
  ASSERT_EQ(run.scores.size(), 3u);
  EXPECT_EQ(run.scores[0].grade, 1);
  EXPECT_THAT(run.scores[0].scores, ElementsAre(8, 9, 10));
  EXPECT_EQ(run.scores[2].grade, std::nullopt);
  EXPECT_EQ(run.ties.num_tied, 2);
  EXPECT_EQ(run.ties.num_hits, 5);
  EXPECT_THAT(run.new_tokens, ElementsAre(7));
  EXPECT_THAT(run.prompt_tokens, ElementsAre(90));
  EXPECT_EQ(run.scale.highest, 10);
  EXPECT_EQ(run.scale.from, ScoreScale::From::kGuess);
  EXPECT_EQ(run.reliability->bins[8].num_pairs, 2);
  EXPECT_DOUBLE_EQ(run.reliability->bins[8].share_relevant, 0.5);
}

TEST(Reliability, IsOfTheScaleThatIsSaidElseOfTheDistributions) {
  Collection c = collection(20, 3);
  for (auto& [qid, list] : c.runs[1].results.results)
    for (auto& result : list) result.score = 0.2;
  const auto stated = [&] {
    const auto run = compared(c).runs[1];
    if (!run.reliability) return std::pair(0.0, 0.0);
    double mean = 0;
    for (const ReliabilityBin& bin : run.reliability->bins) mean += bin.mean_probability;
    return std::pair(run.scale.highest, std::round(mean * 1e9) / 1e9);
  };
  EXPECT_EQ(stated(), std::pair(1.0, 0.2));
  c.runs[1].results.highest_answer = 10;
  EXPECT_EQ(stated(), std::pair(10.0, 0.02));
  using From = ScoreScale::From;
  c.runs[1].scale = ScoreScale{0, From::kRecord};
  EXPECT_EQ(stated(), std::pair(0.0, 0.0));
  c.runs[1].scale = ScoreScale{1, From::kOption};
  EXPECT_EQ(stated(), std::pair(1.0, 0.2));
  EXPECT_THAT(to_markdown(compared(c), {}), HasSubstr("on the scale 0 to 1 (as --scale says)"));
  c.runs[1].results.results["q0"][0].score = 1.5;
  EXPECT_THAT([&] { compared(c); },
              ::testing::ThrowsMessage<base::Error>(HasSubstr("score 1.5, expected 0 to 1")));
  c.runs[1].scale->from = From::kRecord;
  EXPECT_EQ(stated(), std::pair(0.0, 0.0));
}

TEST(MostChanged, AreTheLargestDifferencesOfEachRun) {
  const Collection c = collection(20, 3);
  const auto out = compared(c);
  const auto shown = most_changed(out, c.qrels, c.runs, 5, 2);
  ASSERT_EQ(shown.size(), 5u);
  double before = 1;
  for (const ShownQuery& query : shown) {
    EXPECT_LE(std::abs(query.after - query.before), before);
    before = std::abs(query.after - query.before);
    EXPECT_GT(before, 0);
    ASSERT_EQ(query.own.size(), 2u);
    EXPECT_GE(*query.own[0].score, *query.own[1].score);
    EXPECT_EQ(query.own[0].grade, query.own[0].docid == "d0" ? 1 : 0);
  }
}

TEST(ComparisonReport, IsOnePageThatLoadsNothing) {
  Collection c = collection(20, 3);
  c.runs[1].name = "<other> & \"co\"";
  for (auto& [qid, list] : c.runs[1].results.results)
    for (auto& result : list) result.new_tokens = 5, result.reasoning = "since <b>";
  for (int i = 0; i < 20; ++i) c.runs[1].seconds["q" + std::to_string(i)] = 1 + i;
  const auto out = compared(c, {.measures = {"nDCG@10", "P@1"}});
  auto shown = most_changed(out, c.qrels, c.runs);
  for (auto& query : shown) query.text = "what & why";
  const std::string page = to_html(out, shown);
  for (const char* part :
       {"&lt;other&gt; &amp; &quot;co&quot;", "what &amp; why", "since &lt;b&gt;",
        "width=device-width", "prefers-color-scheme:dark", "@media print", "<b>Yes</b>",
        "Reliability of", "by grade", "Text written by", "Seconds of a query of",
        "Most changed queries", "Holm"})
    EXPECT_THAT(page, HasSubstr(part));
  for (const char* part : {"<other>", "http", "src=", "url(", "@import", "<script", "nan", "inf\""})
    EXPECT_THAT(page, Not(HasSubstr(part)));
  const auto count = [&](const std::string& what) {
    size_t n = 0;
    for (size_t at = 0; (at = page.find(what, at)) != page.npos; at += what.size()) ++n;
    return n;
  };
  EXPECT_EQ(count("<svg"), count("</svg>"));
  // Means, scatter, scores and reliability, lengths, times.
  EXPECT_EQ(count("<svg"), 1u + 1 + 2 * 2 + 1 + 1);
  EXPECT_EQ(count("<div"), count("</div>"));
  EXPECT_EQ(count("class=\"query\""), shown.size());
  const std::string text = to_markdown(out, shown);
  EXPECT_THAT(text, HasSubstr("**Yes, on these 20 queries"));
  EXPECT_THAT(text, HasSubstr("| run | nDCG@10 | 95 % interval | P@1 | 95 % interval |\n"));
  EXPECT_THAT(text, HasSubstr("| <other> & \"co\" | - | 5 (5) | 10.5 (19.1) |\n"));
  EXPECT_THAT(text, Not(HasSubstr("| first | - |")));
  const auto run = to_json(out, {})["runs"][1];
  EXPECT_TRUE(run["prompt_tokens"].is_null());
  EXPECT_DOUBLE_EQ(run["seconds"]["median"], 10.5);
  EXPECT_DOUBLE_EQ(run["seconds"]["p95"], 19.05);
}

TEST(ComparisonReport, OfOneRunAndOneQueryHasNoTests) {
  Collection c = collection(1, 1);
  c.runs.resize(1);
  const auto out = compared(c);
  const std::string page = to_html(out, most_changed(out, c.qrels, c.runs));
  EXPECT_THAT(page, Not(HasSubstr("Holm randomisation")));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_TRUE(to_json(out, {})["runs"][0]["answer"].is_null());
}

}  // namespace
}  // namespace erank::eval
