// `erank data`, and what other verbs say of the data they read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class TinyData : public Program {
 protected:
  void SetUp() override {
    put("b/corpus.jsonl",
        "{\"_id\": \"d1\", \"title\": \"Sky\", \"text\": \"Why it is blue.\"}\n"
        "{\"_id\": \"d1\", \"title\": \"Sky\", \"text\": \"Why it is blue.\"}\n"
        "{\"_id\": \"d 2\", \"text\": \"blue \\ud800 paint\"}\n"
        "{\"_id\": \"#3\", \"text\": \"\"}\n"
        "{\"_id\": \"d\xc3\xa9\", \"text\": \"Sky Why it is blue.\"}\n"
        "{\"text\": \"bread\"}\n");
    put("b/queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"blue\"}\n{\"_id\": \"q2\", \"text\": \"bread\"}\n");
    put("b/qrels/test.tsv",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\tlost\t1\nq9\td1\t0\n# a comment\n");
    put("run.txt", "q1 Q0 d1 1 2 t\nq1 Q0 #3 2 2 t\nq1 Q0 gone 3 1 t\n");
  }
};

TEST_F(TinyData, CheckCountsEveryKindOfFault) {
  const Outcome o = run({"data", "check", "--beir", path("b"), "--run", path("run.txt"), "--json"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto json = base::parse_json(o.out, "check");
  const auto& corpus = json["corpus"];
  EXPECT_EQ(corpus["records"], 5);
  EXPECT_EQ(corpus["repeated"], 1);
  EXPECT_EQ(corpus["conflicting"]["count"], 0);
  EXPECT_EQ(corpus["same_text"]["count"], 1);
  EXPECT_EQ(corpus["empty"]["count"], 1);
  EXPECT_EQ(corpus["empty"]["example"], "#3");
  EXPECT_EQ(corpus["repaired"], 1);
  EXPECT_EQ(corpus["numbered"], 1);
  EXPECT_EQ(corpus["odd_ids"]["blank"]["example"], "d 2");
  EXPECT_EQ(corpus["odd_ids"]["hash"]["count"], 1);
  EXPECT_EQ(corpus["odd_ids"]["non_ascii"]["count"], 1);
  EXPECT_EQ(corpus["odd_ids"]["very_long"]["count"], 0);
  EXPECT_EQ(corpus["characters"]["least"], 0);
  EXPECT_EQ(corpus["characters"]["most"], 19);
  EXPECT_EQ(corpus["characters"]["median"], 12);
  EXPECT_EQ(json["queries"]["records"], 2);
  const auto& qrels = json["qrels"][0];
  EXPECT_EQ(qrels["split"], "test");
  EXPECT_EQ(qrels["judgements"], 3);
  EXPECT_EQ(qrels["grades"]["0"], 1);
  EXPECT_EQ(qrels["comments"], 1);
  EXPECT_EQ(qrels["of_no_query"]["example"], "q9");
  EXPECT_EQ(qrels["of_no_document"]["example"], "lost");
  EXPECT_EQ(qrels["without_positive"]["count"], 1);
  EXPECT_EQ(qrels["unjudged_queries"], 1);
  EXPECT_EQ(json["run"]["hits"], 3);
  EXPECT_EQ(json["run"]["tied_hits"], 2);
  EXPECT_EQ(json["run"]["of_no_document"]["example"], "gone");
  EXPECT_EQ(json["run"]["queries_without_hits"]["example"], "q2");

  const Outcome table = run({"data", "check", "--beir", path("b")});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("! ids that hold a blank"));
  EXPECT_THAT(table.out, ::testing::ContainsRegex("! judgements of no document +1, e.g. 'lost'"));
  EXPECT_THAT(table.out, Not(HasSubstr("128 bytes")));
}

TEST_F(TinyData, CheckCountsConflictsAndRefusesWhatCannotBeRead) {
  put("c.tsv", "a\tx\na\ty\nb\tz\n");
  const Outcome o = run({"data", "check", "--corpus", path("c.tsv"), "--json"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(base::parse_json(o.out, "check")["corpus"]["conflicting"]["example"], "a");
  put("broken.jsonl", "{\"id\": \"a\", \"text\": \"x\"}\n{\n");
  expect_refused(run({"data", "check", "--corpus", path("broken.jsonl")}), "broken.jsonl:2");
  expect_refused(run({"data", "check"}), "nothing to check");
  expect_refused(run({"data", "check", "--beir", path("b"), "--split", "dev"}), "'dev'");
  expect_refused(
      run({"data", "check", "--corpus", path("c.tsv"), "--out", path("c.tsv"), "--overwrite"}),
      "same file");
}

TEST_F(TinyData, SampleWritesCandidatesThatTrainingReads) {
  const Outcome o =
      run({"data", "sample", "--corpus", put("s.tsv", "d1\tone\nd2\ttwo\nd3\tthree\n"), "--queries",
           path("b/queries.jsonl"), "--qrels", put("s.qrels", "q1 0 d3 1\nq1 0 d2 0\nq2 0 d1 1\n"),
           "--run", put("s.run", "q1 Q0 d1 1 2 t\nq1 Q0 d2 2 1 t\n"), "--docs-per-query", "2"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto lines = json_lines(o.out);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["qid"], "q1");
  EXPECT_EQ(lines[0]["query"], "blue");
  ASSERT_EQ(lines[0]["hits"].size(), 2u);
  EXPECT_EQ(lines[0]["hits"][1]["docid"], "d3");
  EXPECT_EQ(lines[0]["hits"][1]["text"], "three");
  EXPECT_FALSE(lines[0]["hits"][1].contains("score"));
  EXPECT_TRUE(lines[0]["hits"][0].contains("score"));
  EXPECT_THAT(o.err, HasSubstr("warning: judged, but without a hit in the run: 1 query"));
  EXPECT_THAT(o.err, HasSubstr("erank: 1 query with 2 documents: 1 positive, 0 own, 1 hard"));
  const Outcome reranked = rerank({"--candidates", put("s.jsonl", o.out), "--direct", "--quiet"});
  EXPECT_EQ(reranked.exit_code, 0) << reranked.err;
  expect_refused(run({"data", "sample", "--beir", path("b")}), "no run");
}

TEST_F(TinyData, ConvertWritesAFolderThatOtherVerbsTake) {
  put("topics.txt", "<top>\n<num> 7\n<title> blue sky\n</top>\n");
  put("c.csv", "id,text\nd1,the blue sky\nd2,bread\nd3,a bicycle\n");
  put("j.qrels", "7 0 d1 1\n");
  const std::vector<std::string> args = {"data",     "convert",     "--queries", path("topics.txt"),
                                         "--corpus", path("c.csv"), "--qrels",   path("j.qrels"),
                                         "--out",    path("beir")};
  const Outcome o = run(args);
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("beir: 3 documents, 1 queries, 1 judgements"));
  ASSERT_EQ(run({"retrieve", "--beir", path("beir"), "--out", path("c.run")}).exit_code, 0);
  const Outcome eval = run({"eval", "-m", "RR", path("beir/qrels/test.tsv"), path("c.run")});
  EXPECT_THAT(eval.out, HasSubstr("1.0000")) << eval.err;
  expect_refused(run(args), "exists; give another folder or --overwrite");
  expect_refused(run({"data", "convert", "--queries", path("beir/queries.jsonl"), "--out",
                      path("beir"), "--overwrite"}),
                 "same file");
}

TEST_F(TinyData, JudgementsOfNothingAreToldByEval) {
  const Outcome o = run({"eval", "-m", "nDCG@10", "--queries", path("b/queries.jsonl"), "--corpus",
                         path("b/corpus.jsonl"), path("b/qrels/test.tsv"), path("run.txt")});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("test.tsv: 1 line that begins with # and is no record, left out"));
  EXPECT_THAT(o.err, HasSubstr("test.tsv: 1 judgement of a query that is not there, e.g. 'q9'"));
  EXPECT_THAT(o.err,
              HasSubstr("test.tsv: 1 judgement of a document that is not there, e.g. 'lost'"));
  const Outcome without = run({"eval", path("b/qrels/test.tsv"), path("run.txt")});
  EXPECT_THAT(without.err, Not(HasSubstr("not there")));
}

TEST_F(TinyData, CommentsAndRepairsAreToldOnce) {
  put("r.trec", "# a\n# b\nq1 Q0 d1 1 2 t\n");
  put("c.jsonl", "{\"_id\": \"d1\", \"text\": \"\\ud800\"}\n");
  const Outcome o = rerank({"--queries", path("b/queries.jsonl"), "--corpus", path("c.jsonl"),
                            "--run", path("r.trec"), "--direct", "--quiet"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("r.trec: 2 lines that begin with #"));
  EXPECT_THAT(o.err, HasSubstr("c.jsonl: 1 record with bytes that are no UTF-8"));
  const Outcome index = run({"index", "--corpus", path("c.jsonl"), "--out", path("c.bm25")});
  ASSERT_EQ(index.exit_code, 0) << index.err;
  EXPECT_EQ(lines_of(index.err).size(), 1u) << index.err;
}

TEST_F(TinyData, StdinIsReadByItsFirstLineThatIsNotBlank) {
  const auto ids = [&](const std::string& input) {
    const Outcome o = rerank({"--query", "q", "--docs", "-", "--direct", "--quiet"}, input);
    EXPECT_EQ(o.exit_code, 0) << o.err;
    auto found = column(json_lines(o.out), "docid");
    std::sort(found.begin(), found.end());
    return found;
  };
  EXPECT_THAT(ids("\n \n{\"id\": \"a\", \"text\": \"x\"}\n"), ElementsAre("a"));
  EXPECT_THAT(ids("\n[{\"id\": \"a\", \"text\": \"x\"},\n\"y\"]"), ElementsAre("2", "a"));
  EXPECT_THAT(ids("\"one\"\n\"two\"\n"), ElementsAre("1", "2"));
  EXPECT_THAT(ids("id,text\na,\"x\ny\"\n"), ElementsAre("a"));
  EXPECT_THAT(ids("id\ttext\na\tx\n"), ElementsAre("a"));
  EXPECT_THAT(ids("\n[1] a text, and\n\"no json\" either\n"), ElementsAre("1", "2", "3"));
}

TEST_F(TinyData, OutputIsCompressedByItsName) {
  put("clean/corpus.jsonl",
      "{\"_id\": \"d1\", \"text\": \"blue sky\"}\n{\"_id\": \"d2\", \"text\": "
      "\"bread\"}\n{\"_id\": \"d3\", \"text\": \"chain\"}\n");
  put("clean/queries.jsonl", base::read_file(path("b/queries.jsonl")));
  for (const char* name : {"r.txt", "r.txt.gz", "r.txt.zst"})
    ASSERT_EQ(run({"retrieve", "--beir", path("clean"), "--out", path(name)}).exit_code, 0);
  EXPECT_TRUE(base::read_file(path("r.txt.gz")).starts_with("\x1f\x8b"));
  EXPECT_TRUE(base::read_file(path("r.txt.zst")).starts_with("\x28\xb5\x2f\xfd"));
  const std::vector<std::string> eval = {"eval", "-q", put("q", "q1 0 d1 1\nq2 0 d2 1\n")};
  std::vector<std::string> results;
  for (const char* name : {"r.txt", "r.txt.gz", "r.txt.zst"}) {
    auto args = eval;
    args.push_back(path(name));
    results.push_back(run(args).out);
  }
  EXPECT_THAT(results, Each(results[0]));
  EXPECT_THAT(results[0], HasSubstr("map"));
  const Outcome reranked = rerank({"--beir", path("clean"), "--run", path("r.txt.gz"), "--direct",
                                   "--quiet", "--out", path("o.jsonl.gz")});
  ASSERT_EQ(reranked.exit_code, 0) << reranked.err;
  EXPECT_TRUE(base::read_file(path("o.jsonl.gz")).starts_with("\x1f\x8b"));
  expect_refused(run({"index", "--beir", path("clean"), "--out", path("i.gz")}), "compressed");
}

TEST_F(TinyData, EmptyQueriesAndNumbersOutOfRangeAreNamed) {
  const auto docs = put("docs.txt", "one\n");
  expect_refused(rerank({"--query", "", "--docs", docs}), "--query] is empty");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--top", "-1"}),
                 "--top: '-1' is not a number above 0");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--temperature", "-0.5"}),
                 "'-0.5' is not a number of 0 or more");
}

TEST_F(TinyData, MessagesAndTablesPassNoControlCharactersOn) {
  const std::string id = "d\x1b[31m";
  put("t.tsv", id + "\tone\n" + id + "\ttwo\n");
  const Outcome twice = rerank({"--query", "q", "--docs", path("t.tsv")});
  expect_refused(twice, "id 'd\\x1b[31m' was already on line 1");
  EXPECT_THAT(twice.err, Not(HasSubstr("\x1b")));
  const Outcome table = rerank({"--query",
                                "q\x1b[1m\xc2\x9b"
                                "2J",
                                "--docs", put("u.tsv", id + "\tone \x1b[5m\n"), "--direct",
                                "--quiet", "--format", "table"});
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, AllOf(Not(HasSubstr("\x1b")), Not(HasSubstr("\xc2\x9b"))));
}

TEST_F(TinyData, AnInputIsNeverTheOutput) {
  const std::string corpus = put("x/corpus.jsonl", "{\"_id\": \"d1\", \"text\": \"blue\"}\n");
  const std::string queries = put("x/queries.jsonl", "{\"_id\": \"q1\", \"text\": \"blue\"}\n");
  const std::string qrels = put("x/qrels.txt", "q1 0 d1 1\n"), hits = put("r", "q1 Q0 d1 1 2 t\n");
  const auto refused = [&](std::vector<std::string> args, const std::string& out) {
    const std::string before = base::read_file(out);
    args.insert(args.end(), {"--out", out, "--overwrite"});
    expect_refused(run(args), "same file");
    EXPECT_EQ(base::read_file(out), before);
  };
  for (const auto& out : {corpus, queries, qrels, hits}) {
    refused({"data", "check", "--beir", path("x"), "--run", hits}, out);
    refused({"data", "sample", "--beir", path("x"), "--run", hits}, out);
  }
  for (const auto& out : {corpus, queries, qrels, hits})
    refused({"eval", qrels, hits, "--corpus", corpus, "--queries", queries}, out);
  for (const auto& out : {corpus, queries}) refused({"retrieve", "--beir", path("x")}, out);
  refused({"index", "--beir", path("x")}, corpus);
  for (const auto& out : {corpus, queries, hits})
    refused(rerank_args({"--beir", path("x"), "--run", hits, "--direct"}), out);
}

}  // namespace
}  // namespace erank::cli
