// `erank report` and `erank calibrate` on small files, and what rerank does with a calibration.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "erank/data/source.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
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
  for (const char* name : {"packed.html.gz", "packed.md.zst"}) {
    ASSERT_EQ(run(args({"--out", path(name)})).exit_code, 0);
    data::ByteSource packed(path(name));
    std::string text(packed.next());
    EXPECT_THAT(text, AnyOf(StartsWith("<!doctype html>"), StartsWith("# Comparison"))) << name;
    EXPECT_NE(base::read_file(path(name)).substr(0, 5), text.substr(0, 5));
  }
}

TEST_F(TinyReport, ShowsTheTimesThatRerankKept) {
  put_runs(3);
  put("times.jsonl",
      "{\"qid\":\"q0\",\"pairs\":2,\"seconds\":0.5}\n{\"qid\":\"q1\",\"seconds\":2}\n"
      "{\"qid\":\"q0\",\"seconds\":0.25}\n");
  const std::string stats = path("erank.jsonl") + "=" + path("times.jsonl");
  const Outcome json = run(args({"--stats", stats, "--json"}));
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const base::Json runs = json_lines(json.out).at(0)["runs"];
  EXPECT_DOUBLE_EQ(runs[1]["seconds"]["mean"], (0.75 + 2) / 2);
  EXPECT_DOUBLE_EQ(runs[1]["new_tokens"]["median"], 2);
  EXPECT_TRUE(runs[0]["seconds"].is_null());
  expect_refused(run(args({"--stats", "nobody=x"})), "expected RUN=FILE");
  expect_refused(run(args({"--stats", stats, "--stats", stats})), "once for a run");
  put("times.jsonl", "{\"qid\":\"q0\"}\n");
  expect_refused(run(args({"--stats", stats})), "times.jsonl:1");
}

TEST_F(TinyReport, RefusesInOneLine) {
  put_runs(4);
  expect_refused(run(args({"--out", path("report.pdf")})), ".html or .md (or with .gz or .zst");
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
  EXPECT_THAT(made.err,
              HasSubstr("erank: 40 judged pairs, scores from 0 to 10 (guessed); expected"));
  expect_refused(run({"calibrate", path("bm25.run"), "--qrels", path("corpus.jsonl")}),
                 "read_qrels");

  put("docs.jsonl",
      "{\"_id\":\"a\",\"text\":\"blue sky\"}\n{\"_id\":\"b\",\"text\":\"bread\"}\n"
      "{\"_id\":\"c\",\"text\":\"air\"}\n");
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"--query", "sky", "--docs", path("docs.jsonl"), "--direct"});
    return rerank(more);
  };
  const auto plain = json_lines(with({}).out);
  ASSERT_EQ(plain.size(), 3u);
  EXPECT_FALSE(plain[0].contains("relevance"));

  // From 0.1 at the last pair's score to 0.9 at the first one's.
  const double low = plain[2]["score"], high = plain[0]["score"];
  ASSERT_LT(low, high);
  base::Json map = {{"erank_calibration", 1}, {"method", "isotonic"}};
  map["isotonic"] = {{"scores", {low, high}}, {"probabilities", {0.1, 0.9}}};
  map["platt"] = {{"slope", 1.0}, {"intercept", 0.0}};
  put("map.json", base::dump_json(map));
  const auto lines = json_lines(with({"--calibrated", path("map.json")}).out);
  EXPECT_EQ(column(lines, "docid"), column(plain, "docid"));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["relevance"], 0.9);
  EXPECT_EQ(lines[2]["relevance"], 0.1);
  const auto kept =
      json_lines(with({"--calibrated", path("map.json"), "--min-probability", "0.5"}).out);
  EXPECT_EQ(kept.size(), lines[1]["relevance"] >= 0.5 ? 2u : 1u);
  ASSERT_GT(kept.size(), 0u);
  EXPECT_EQ(kept[0]["docid"], lines[0]["docid"]);

  expect_refused(with({"--min-probability", "0.5"}), "needs a calibration");
  std::filesystem::copy_file(path("map.json"), tiny_model() + "/calibration.json");
  EXPECT_THAT(with({}).err, HasSubstr("does not say which scores it is for"));
  EXPECT_EQ(with({"--min-probability", "1"}).out, "");
  EXPECT_TRUE(json_lines(with({}).out)[0].contains("relevance"));
  put("map.json", "{}");
  expect_refused(with({"--calibrated", path("map.json")}), "no calibration");
}

// Two queries with three documents each, the first of which is relevant.
class TinyCalibration : public Program {
 protected:
  void SetUp() override {
    std::string candidates, qrels;
    for (const char* qid : {"p", "q"}) {
      candidates += std::string("{\"qid\":\"") + qid + "\",\"query\":\"sky " + qid +
                    "\",\"hits\":[{\"docid\":\"a\",\"text\":\"blue\",\"score\":3},"
                    "{\"docid\":\"b\",\"text\":\"bread\",\"score\":2},"
                    "{\"docid\":\"c\",\"text\":\"air\",\"score\":1}]}\n";
      qrels += std::string(qid) + " 0 a 1\n" + qid + " 0 b 0\n" + qid + " 0 c 0\n";
    }
    put("candidates.jsonl", candidates);
    put("qrels", qrels);
  }
  Outcome scored(const std::string& out, std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"--candidates", path("candidates.jsonl"), "--direct", "--overwrite"});
    if (!out.empty()) more.insert(more.end(), {"--out", path(out)});
    return rerank(more);
  }
  Outcome calibrate(const std::string& of, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"calibrate", path(of), "--qrels", path("qrels"), "--overwrite"});
    return run(more);
  }
  static std::string scale(const std::string& highest, const std::string& from) {
    return "6 judged pairs, scores from 0 to " + highest + " (" + from + ")";
  }
};

TEST_F(TinyCalibration, TakesTheScaleFromWhatTheRunSays) {
  ASSERT_EQ(scored("three.jsonl", {"--scale", "0-3", "--score", "expected"}).exit_code, 0);
  ASSERT_EQ(scored("three.trec", {"--scale", "0-3", "--format", "trec"}).exit_code, 0);
  ASSERT_EQ(scored("ten.trec", {"--format", "trec"}).exit_code, 0);
  EXPECT_THAT(calibrate("three.jsonl").err, HasSubstr(scale("3", "as its .made.json says")));
  EXPECT_THAT(calibrate("three.trec").err, HasSubstr(scale("3", "as its .made.json says")));
  EXPECT_THAT(calibrate("ten.trec").err, HasSubstr(scale("10", "as its .made.json says")));
  for (const char* name : {"three.jsonl", "three.trec", "ten.trec"})
    std::filesystem::remove(path(std::string(name) + ".made.json"));
  EXPECT_THAT(calibrate("three.jsonl").err, HasSubstr(scale("3", "as its distributions say")));
  EXPECT_THAT(calibrate("three.trec").err, HasSubstr("guessed"));
  EXPECT_THAT(calibrate("three.trec", {"--scale", "0-3"}).err,
              HasSubstr(scale("3", "as --scale says")));
  expect_refused(calibrate("three.trec", {"--scale", "0-4"}), "--scale");

  const auto reliability = [&](const std::string& of, const std::vector<std::string>& more) {
    std::vector<std::string> args = {"report", path(of), "--qrels", path("qrels"), "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return json_lines(run(args).out).at(0)["runs"][0]["reliability"];
  };
  const base::Json said = reliability("three.jsonl", {});
  EXPECT_EQ(said["scale"], 3);
  EXPECT_EQ(said["scale_from"], "distributions");
  const base::Json option = reliability("three.trec", {"--scale", path("three.trec") + "=0-3"});
  EXPECT_EQ(option["scale"], 3);
  EXPECT_EQ(option["scale_from"], "option");
  expect_refused(run({"report", path("three.trec"), "--qrels", path("qrels"), "--scale", "0-3"}),
                 "expected RUN=yes-no, 0-3 or 0-10");
  put("mixed.jsonl",
      base::read_file(path("three.jsonl")) +
          "{\"qid\":\"z\",\"docid\":\"d\",\"score\":1,\"distribution\":[0.1,0.2]}\n");
  expect_refused(calibrate("mixed.jsonl"), "mixed.jsonl:7: 'distribution' has 2 answers");
}

TEST_F(TinyCalibration, IsUsedForTheScoresThatItWasMadeOfAlone) {
  ASSERT_EQ(scored("run.jsonl").exit_code, 0);
  const std::string beside = tiny_model() + "/calibration.json";
  ASSERT_EQ(calibrate("run.jsonl", {"--model", tiny_model()}).exit_code, 0);
  EXPECT_TRUE(base::file_exists(beside));
  const Outcome same = scored("again.jsonl");
  EXPECT_THAT(same.err, Not(HasSubstr("calibration.json")));
  EXPECT_TRUE(json_lines(base::read_file(path("again.jsonl"))).at(0).contains("relevance"));

  // The same under other names, of the model and of the calibration, may be resumed with.
  std::filesystem::rename(beside, path("renamed.json"));
  const std::vector<std::string> named = {"--calibrated", path("renamed.json"), "--resume"};
  std::vector<std::string> resume = {"rerank",
                                     "--model",
                                     path("moved"),
                                     "--threads",
                                     "1",
                                     "--candidates",
                                     path("candidates.jsonl"),
                                     "--direct",
                                     "--out",
                                     path("again.jsonl")};
  resume.insert(resume.end(), named.begin(), named.end());
  std::filesystem::copy(tiny_model(), path("moved"));
  EXPECT_THAT(run(resume).err, HasSubstr("is complete already; nothing to resume"));
  std::filesystem::rename(path("renamed.json"), beside);

  // One that lies beside the model is left alone for other scores.
  for (const std::vector<std::string>& other : std::vector<std::vector<std::string>>{
           {"--instruction", "find poems"}, {"--scale", "0-3"}, {"--score", "integer"}}) {
    const Outcome o = scored("other.jsonl", other);
    EXPECT_EQ(o.exit_code, 0) << o.err;
    EXPECT_THAT(o.err, HasSubstr("calibration.json is for other scores and is not used: '" +
                                 other[0].substr(2) + "' was '"));
    EXPECT_FALSE(json_lines(base::read_file(path("other.jsonl"))).at(0).contains("relevance"));
    std::vector<std::string> named = other;
    named.insert(named.end(), {"--calibrated", beside});
    expect_refused(scored("other.jsonl", named), "is for other scores: '" + other[0].substr(2));
  }
  Outcome limited =
      scored("other.jsonl", {"--score", "integer", "--min-probability", "0.5", "--quiet"});
  expect_refused(limited, "needs a calibration for these scores");

  // A file that has taken the run's place, whatever program wrote it.
  const std::string written = base::read_file(path("run.jsonl"));
  std::filesystem::copy_file(path("again.jsonl"), path("run.jsonl"),
                             std::filesystem::copy_options::overwrite_existing);
  expect_refused(calibrate("run.jsonl"), "run.jsonl.made.json is of another file");
  expect_refused(run({"report", path("run.jsonl"), "--qrels", path("qrels")}),
                 "run.jsonl.made.json is of another file");
  put("run.jsonl", written);
  EXPECT_EQ(calibrate("run.jsonl").exit_code, 0);

  // What a file without a record may not be made of.
  ASSERT_EQ(scored("blend.jsonl", {"--hybrid", "zscore:0.2", "--quiet"}).exit_code, 0);
  expect_refused(calibrate("blend.jsonl"), "--hybrid zscore:0.2");
  const Outcome stream = scored("");
  put("stream.jsonl", stream.out);
  EXPECT_THAT(calibrate("stream.jsonl").err, HasSubstr("nothing says which model"));
  std::filesystem::copy(tiny_model(), path("copy"));
  ASSERT_EQ(calibrate("run.jsonl", {"--model", path("copy")}).exit_code, 0);
  base::write_file_atomic(path("copy/erank.json"), "{\"layout\": \"passage-last\"}");
  expect_refused(calibrate("run.jsonl", {"--model", path("copy")}), "was made with other files");
}

// How much is reasoned, and how it is sampled, makes other scores too.
TEST_F(TinyCalibration, KnowsHowItsScoresWereReasoned) {
  const auto thought = [&](const std::string& out, std::vector<std::string> more) {
    more.insert(more.begin(), {"--candidates", path("candidates.jsonl"), "--think", "--quiet",
                               "--overwrite", "--out", path(out)});
    return rerank(more);
  };
  const std::vector<std::string> short_of = {"--max-think-tokens", "4"};
  ASSERT_EQ(thought("run.jsonl", short_of).exit_code, 0);
  const base::Json by = base::parse_json(base::read_file(path("run.jsonl.made.json")), "made");
  EXPECT_EQ(by["scored_by"]["max_think_tokens"], 4);
  EXPECT_EQ(by["scored_by"]["samples"], 1);
  EXPECT_EQ(by["scored_by"]["temperature"], 0);
  ASSERT_EQ(calibrate("run.jsonl", {"--out", path("map.json")}).exit_code, 0);
  const auto with = [&](std::vector<std::string> options) {
    options.insert(options.end(), {"--calibrated", path("map.json")});
    return thought("other.jsonl", options);
  };
  EXPECT_EQ(with(short_of).exit_code, 0);
  expect_refused(with({"--max-think-tokens", "5"}), "'max_think_tokens' was 4, now it is 5");
  expect_refused(with({"--max-think-tokens", "4", "--temperature", "0.5"}),
                 "'temperature' was 0, now it is 0.5");
  expect_refused(with({"--max-think-tokens", "4", "--temperature", "0.5", "--samples", "2"}),
                 "'samples' was 1, now it is 2");
  // A calibration of an earlier version does not say them.
  base::Json map = base::parse_json(base::read_file(path("map.json")), "map.json");
  for (const char* key : {"max_think_tokens", "samples", "temperature"})
    map["scored_by"].erase(key);
  put("map.json", base::dump_json(map));
  EXPECT_EQ(with({"--max-think-tokens", "5"}).exit_code, 0);
}

// And so does what is read of a text.
TEST_F(TinyCalibration, KnowsWhatOfTheTextsWasRead) {
  const std::vector<std::string> budgets = {"--max-doc-tokens", "20", "--max-query-tokens", "9"};
  ASSERT_EQ(scored("run.jsonl", budgets).exit_code, 0);
  const base::Json by = base::parse_json(base::read_file(path("run.jsonl.made.json")), "made");
  EXPECT_EQ(by["scored_by"]["max_doc_tokens"], 20);
  EXPECT_EQ(by["scored_by"]["max_query_tokens"], 9);
  EXPECT_EQ(by["scored_by"]["long_docs"], "windows");
  EXPECT_EQ(by["scored_by"]["max_windows"], 8);
  ASSERT_EQ(calibrate("run.jsonl", {"--out", path("map.json")}).exit_code, 0);
  const auto with = [&](std::vector<std::string> options) {
    options.insert(options.end(), {"--calibrated", path("map.json"), "--quiet"});
    return scored("other.jsonl", options);
  };
  EXPECT_EQ(with(budgets).exit_code, 0);
  expect_refused(with({"--max-query-tokens", "9"}), "'max_doc_tokens' was 20, now it is 2048");
  expect_refused(with({"--max-doc-tokens", "20", "--max-query-tokens", "10"}),
                 "'max_query_tokens' was 9, now it is 10; score as then, or make one");
  std::vector<std::string> cut = budgets, fewer = budgets;
  cut.insert(cut.end(), {"--long-docs", "cut"});
  expect_refused(with(cut), "'long_docs' was windows, now it is cut");
  fewer.insert(fewer.end(), {"--max-windows", "2"});
  expect_refused(with(fewer), "'max_windows' was 8, now it is 2");
  // Of what is cut there are no windows.
  ASSERT_EQ(scored("cut.jsonl", cut).exit_code, 0);
  const base::Json of_cut = base::parse_json(base::read_file(path("cut.jsonl.made.json")), "made");
  EXPECT_EQ(of_cut["scored_by"]["long_docs"], "cut");
  EXPECT_FALSE(of_cut["scored_by"].contains("max_windows"));
}

}  // namespace
}  // namespace erank::cli
