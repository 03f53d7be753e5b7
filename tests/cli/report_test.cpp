// `erank report` and `erank calibrate` on small files, and what rerank does with a calibration.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class TinyReport : public Program {
 protected:
  // Judgements and two runs of `n` queries: the second one is right, the first half of the time.
  void put_runs(int n) const {
    std::string qrels, first, second, queries;
    for (int q = 0; q < n; ++q) {
      const std::string qid = "q" + std::to_string(q);
      qrels += qid + " 0 good 1\n" + qid + " 0 bad 0\n";
      first += qid + " Q0 good 1 " + (q % 2 ? "2" : "1") + " t\n" + qid + " Q0 bad 2 1.5 t\n";
      second += "{\"qid\":\"" + qid +
                "\",\"docid\":\"good\",\"score\":" + std::to_string(7 + q % 3) +
                ",\"reasoning\":\"fits\",\"new_tokens\":3}\n" + "{\"qid\":\"" + qid +
                "\",\"docid\":\"bad\",\"score\":" + std::to_string(q % 4) +
                ",\"reasoning\":\"\",\"new_tokens\":1}\n";
      queries += "{\"_id\":\"" + qid + "\",\"text\":\"question " + qid + "\"}\n";
    }
    put("qrels", qrels);
    put("bm25.run", first);
    put("erank.jsonl", second);
    put("queries.jsonl", queries);
    put("corpus.jsonl",
        "{\"_id\":\"good\",\"text\":\"a fitting text\"}\n{\"_id\":\"bad\",\"text\":\"another\"}\n");
  }
  std::vector<std::string> args(const std::vector<std::string>& more) const {
    std::vector<std::string> all = {"report", path("bm25.run"), path("erank.jsonl"), "--qrels",
                                    path("qrels")};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(TinyReport, SaysWhetherRerankingHelpsInThreeForms) {
  put_runs(24);
  const Outcome markdown = run(args({"-m", "RR"}));
  ASSERT_EQ(markdown.exit_code, 0) << markdown.err;
  EXPECT_THAT(markdown.out, HasSubstr("**Yes, on these 24 queries: erank alone +0.2500 RR"));
  const Outcome json = run(args({"-m", "RR", "--json"}));
  const base::Json report = json_lines(json.out).at(0);
  EXPECT_EQ(report["runs"][1]["answer"], "yes");
  EXPECT_EQ(report["runs"][1]["test"]["wins"], 12);
  EXPECT_EQ(report["runs"][0]["queries"]["q0"], 0.5);
  const Outcome page = run(args({"-m", "RR", "--queries", path("queries.jsonl"), "--corpus",
                                 path("corpus.jsonl"), "--out", path("report.html")}));
  ASSERT_EQ(page.exit_code, 0) << page.err;
  EXPECT_EQ(page.out + page.err, "");
  const std::string html = base::read_file(path("report.html"));
  for (const char* part : {"<!doctype html>", "question q0", "a fitting text", "fits"})
    EXPECT_THAT(html, HasSubstr(part));
  expect_refused(run(args({"--out", path("report.html")})), "--overwrite");
}

TEST_F(TinyReport, RefusesInOneLine) {
  put_runs(4);
  expect_refused(run(args({"--out", path("report.pdf")})), ".html or .md");
  expect_refused(run(args({"-m", "num_q"})), "no value for each query");
  expect_refused(run(args({"-m", "nGCD"})), "nGCD");
  expect_refused(run(args({"--corpus", path("none.jsonl")})), "none.jsonl");
  put("erank.jsonl", "{\"qid\":\"q0\"}\n");
  expect_refused(run(args({})), "erank.jsonl:1");
}

TEST_F(TinyReport, CallsRunsOfOneNameByTheirPaths) {
  put_runs(4);
  put("a/x.run", "q0 Q0 good 1 1 t\n");
  put("b/x.run", "q0 Q0 good 1 1 t\n");
  const Outcome o =
      run({"report", path("a/x.run"), path("b/x.run"), "--qrels", path("qrels"), "--json"});
  const base::Json report = json_lines(o.out).at(0);
  EXPECT_EQ(report["runs"][0]["name"], path("a/x.run"));
  EXPECT_EQ(report["runs"][1]["name"], path("b/x.run"));
}

TEST_F(TinyReport, CalibratesScoresWhichRerankThenReports) {
  put_runs(20);
  const Outcome made = run({"calibrate", path("erank.jsonl"), "--qrels", path("qrels"), "--out",
                            path("calibration.json")});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.err, StartsWith("erank: 40 judged pairs; expected calibration error"));
  expect_refused(run({"calibrate", path("bm25.run"), "--qrels", path("corpus.jsonl")}),
                 "read_qrels");

  // A map by which a score under 5 is 0.25 and one over 6 is 0.75.
  put("map.json",
      R"({"erank_calibration":1,"method":"isotonic","isotonic":{"scores":[0,10],"probabilities":[0.2,0.6]},)"
      R"("platt":{"slope":1,"intercept":0},"measured":{}})");
  put("docs.jsonl",
      "{\"_id\":\"a\",\"text\":\"blue sky\"}\n{\"_id\":\"b\",\"text\":\"bread\"}\n"
      "{\"_id\":\"c\",\"text\":\"air\"}\n");
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"--query", "sky", "--docs", path("docs.jsonl"), "--direct"});
    return rerank(more);
  };
  const Outcome plain = with({});
  const Outcome calibrated = with({"--calibrated", path("map.json")});
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  const auto lines = json_lines(calibrated.out);
  ASSERT_EQ(lines.size(), 3u);
  for (const auto& line : lines)
    EXPECT_NEAR(line["relevance"].get<double>(), 0.2 + 0.04 * line["score"].get<double>(), 1e-12);
  EXPECT_FALSE(json_lines(plain.out)[0].contains("relevance"));
  EXPECT_EQ(column(lines, "docid"), column(json_lines(plain.out), "docid"));

  // Between the first and the last.
  const double between =
      (lines[0]["relevance"].get<double>() + lines[2]["relevance"].get<double>()) / 2;
  const auto kept = json_lines(
      with({"--calibrated", path("map.json"), "--min-probability", std::to_string(between)}).out);
  EXPECT_LT(kept.size(), 3u);
  ASSERT_GT(kept.size(), 0u);
  EXPECT_EQ(kept[0]["docid"], lines[0]["docid"]);
  for (const auto& line : kept) EXPECT_GE(line["relevance"].get<double>(), between);

  expect_refused(with({"--min-probability", "0.5"}), "needs a calibration");
  std::filesystem::copy_file(path("map.json"), tiny_model() + "/calibration.json");
  EXPECT_EQ(with({"--min-probability", "1"}).out, "");
  EXPECT_TRUE(json_lines(with({}).out)[0].contains("relevance"));
  put("map.json", "{}");
  expect_refused(with({"--calibrated", path("map.json")}), "no calibration");
}

}  // namespace
}  // namespace erank::cli
