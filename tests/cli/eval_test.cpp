// What `erank eval` says beyond its measures, and that other verbs measure by the same rule.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

using TinyEval = Program;

TEST_F(TinyEval, CountsARunThatLacksEveryTopicAsZeroWithC) {
  put("qrels", "q1 0 d1 1\nq2 0 d1 1\n");
  put("run", "x Q0 d1 1 1 t\n");
  put("empty", "");
  expect_refused(run({"eval", path("qrels"), path("run")}), "no topic is in both");
  for (const char* file : {"run", "empty"}) {
    const Outcome o = run({"eval", "-c", "-m", "nDCG@10", path("qrels"), path(file)});
    EXPECT_EQ(o.exit_code, 0) << o.err;
    EXPECT_EQ(o.out, "nDCG@10               \tall\t0.0000\n");
    EXPECT_THAT(o.err, HasSubstr("that the run lacks, counted as 0: 2 (q1, q2)"));
  }
  expect_refused(run({"eval", "-c", path("empty"), path("run")}), "no topic is in both");
}

TEST_F(TinyEval, GivesFollowIrsMeasureOfAnAlteredInstruction) {
  put("qrels", "q-og 0 a 1\n");
  put("run", "q-og Q0 a 1 2 t\nq-og Q0 b 2 1 t\nq-changed Q0 b 1 2 t\nq-changed Q0 a 2 1 t\n");
  put("diff", "{\"query-id\": \"q\", \"corpus-ids\": [\"a\"]}\n");
  const Outcome o =
      run({"eval", "-q", "-m", "RR", "--p-mrr", path("diff"), path("qrels"), path("run")});
  EXPECT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(o.out,
            "RR                    \tq-og\t1.0000\nRR                    \tall\t1.0000\n"
            "p-MRR                 \tq\t0.5000\np-MRR                 \tall\t0.5000\n");
  const Outcome json =
      run({"eval", "--json", "-m", "RR", "--p-mrr", path("diff"), path("qrels"), path("run")});
  EXPECT_EQ(json_lines(json.out).at(0)["p-MRR"]["queries"]["q"], 0.5);
  put("diff", "q\n");
  expect_refused(run({"eval", "--p-mrr", path("diff"), path("qrels"), path("run")}), "diff:1");
}

TEST_F(TinyEval, TakesOutWhatBrightExcludes) {
  put("qrels", "q 0 a 1\nq 0 c 1\np 0 a 1\n");
  put("run", "q Q0 b 1 3 t\nq Q0 a 2 2 t\nq Q0 c 3 1 t\np Q0 b 1 2 t\np Q0 a 2 1 t\n");
  put("examples.jsonl",
      "{\"id\": \"q\", \"query\": \"x\", \"excluded_ids\": [\"b\"]}\n"
      "{\"id\": \"p\", \"query\": \"y\", \"excluded_ids\": [\"N/A\"]}\n");
  const Outcome o = run(
      {"eval", "-q", "-m", "RR", "--excluded", path("examples.jsonl"), path("qrels"), path("run")});
  EXPECT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(o.out,
            "RR                    \tp\t0.5000\nRR                    \tq\t1.0000\n"
            "RR                    \tall\t0.7500\n");
  // -M counts what is left.
  EXPECT_EQ(run({"eval", "-M", "1", "-m", "RR", "--excluded", path("examples.jsonl"), path("qrels"),
                 path("run")})
                .out,
            "RR                    \tall\t0.5000\n");
  // What convert makes of the examples says the same.
  ASSERT_EQ(run({"data", "convert", "--queries", path("examples.jsonl"), "--out", path("beir")})
                .exit_code,
            0);
  EXPECT_EQ(run({"eval", "-q", "-m", "RR", "--excluded", path("beir/queries.jsonl"), path("qrels"),
                 path("run")})
                .out,
            o.out);
  expect_refused(run({"eval", "--excluded", path("run"), path("qrels"), path("run")}), "run:1");
  put("plain.jsonl", "{\"id\": \"q\", \"query\": \"x\"}\n");
  expect_refused(run({"eval", "--excluded", path("plain.jsonl"), path("qrels"), path("run")}),
                 "no query has 'excluded_ids'");
}

// Judgements of a query that the collection lacks, and of one that BM25 finds nothing for.
TEST_F(TinyEval, AgreesWithTheDemoOnWhichTopicsCount) {
  put("beir/corpus.jsonl",
      "{\"_id\": \"d1\", \"text\": \"Why the sky is blue.\"}\n"
      "{\"_id\": \"d2\", \"text\": \"Bread rises with yeast.\"}\n"
      "{\"_id\": \"d3\", \"text\": \"Blue paint for a blue wall.\"}\n");
  put("beir/queries.jsonl",
      "{\"_id\": \"q1\", \"text\": \"blue paint\"}\n{\"_id\": \"q2\", \"text\": \"zebra\"}\n");
  put("beir/qrels.txt", "q1 0 d1 1\nq2 0 d2 1\ngone 0 d1 1\n");
  const Outcome demo = run(
      {"demo", "--model", tiny_model(), "--beir", path("beir"), "--show", "0", "--thoughts", "0"});
  ASSERT_EQ(demo.exit_code, 0) << demo.err;
  ASSERT_EQ(run({"index", "--corpus", path("beir/corpus.jsonl"), "--out", path("i")}).exit_code, 0);
  ASSERT_EQ(run({"retrieve", "--index", path("i"), "--beir", path("beir"), "--top", "20", "--out",
                 path("bm25.run")})
                .exit_code,
            0);
  const Outcome eval = run({"eval", "-m", "nDCG@10", path("beir/qrels.txt"), path("bm25.run")});
  EXPECT_EQ(eval.out, "nDCG@10               \tall\t0.6309\n");
  EXPECT_THAT(demo.out, ContainsRegex("BM25 +0\\.6309"));
  const std::string warning =
      "topics of the judgements that the run lacks, left out: 2 (q2, gone), which eval -c counts "
      "as 0";
  EXPECT_THAT(eval.err, HasSubstr(warning));
  EXPECT_THAT(demo.err, HasSubstr(warning));
  EXPECT_THAT(demo.err, HasSubstr("of 2 of 2 pairs the answers on the scale together have"));
}

}  // namespace
}  // namespace erank::cli
