// `erank benchmark` on small collections in the layouts that people have, and on real ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "erank/base/files.h"
#include "tests/cli/program.h"
#include "tests/shared_data.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class TinyBenchmark : public Program {
 protected:
  Outcome benchmark(const std::string& name, const std::string& data,
                    const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"benchmark", name,        "--data",  path(data),
                                     "--out",     path("out"), "--model", tiny_model(),
                                     "--threads", "1",         "--direct"};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  }
  base::Json results() const { return read_json("out/results.json"); }
  base::Json read_json(const std::string& name) const {
    return base::parse_json(base::read_file(path(name)), name);
  }
  // qid -> the docids of its candidates.
  std::map<std::string, std::vector<std::string>> candidates(const std::string& task) const {
    std::map<std::string, std::vector<std::string>> out;
    for (const auto& line :
         json_lines(base::read_file(path("out/" + task + "/candidates.jsonl")))) {
      auto& list = out[line["qid"]];
      for (const auto& hit : line["hits"]) list.push_back(hit["docid"]);
    }
    return out;
  }
  // Two sets of four documents; a query is a document of its set.
  void put_beir() {
    for (const std::string set : {"one", "two"}) {
      put("beir/" + set + "/corpus.jsonl",
          "{\"_id\": \"d1\", \"title\": \"Sky\", \"text\": \"Air scatters blue light.\"}\n"
          "{\"_id\": \"d2\", \"text\": \"The sea mirrors the blue sky.\"}\n"
          "{\"_id\": \"d3\", \"text\": \"Bread rises because yeast makes gas.\"}\n"
          "{\"_id\": \"d4\", \"text\": \"Blue paint for the " +
              set + " boat on the blue sea.\"}\n");
      put("beir/" + set + "/queries.jsonl",
          "{\"_id\": \"d4\", \"text\": \"blue sky and sea\"}\n"
          "{\"_id\": \"q2\", \"text\": \"why does bread rise\"}\n"
          "{\"_id\": \"q3\", \"text\": \"not judged blue\"}\n");
      put("beir/" + set + "/qrels/test.tsv",
          "query-id\tcorpus-id\tscore\nd4\td2\t1\nd4\td1\t2\nq2\td3\t1\n");
    }
  }
};

TEST_F(TinyBenchmark, GoesFromBeirFoldersToTheTable) {
  put_beir();
  const Outcome o = benchmark("beir", "beir");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("BEIR, nDCG@10 x 100: tiny on the first 100 candidates\n"));
  EXPECT_THAT(o.out, ContainsRegex("\ntask +queries +first stage +model +pairs/s\n"));
  EXPECT_THAT(o.out, ContainsRegex("\none +2 "));
  EXPECT_THAT(o.out, ContainsRegex("\nmean of 2 "));
  EXPECT_THAT(o.out, ContainsRegex("\n  BM25 +40\\.8\n"));
  EXPECT_THAT(o.out, ContainsRegex("\n  ERank-4B +44\\.8\n"));
  EXPECT_THAT(candidates("one")["d4"], Not(::testing::Contains("d4")));
  EXPECT_EQ(candidates("one").count("q3"), 0u);

  // The same numbers by the single verbs.
  const base::Json r = results();
  ASSERT_EQ(r["tasks"].size(), 2u);
  ASSERT_EQ(run({"retrieve", "--beir", path("beir/two"), "--drop-identical-ids", "--out",
                 path("bm25.run")})
                .exit_code,
            0);
  const auto ndcg = [&](const std::string& file) {
    return json_lines(run({"eval", "--json", "-c", "-m", "nDCG@10", path("beir/two/qrels/test.tsv"),
                           path(file)})
                          .out)
        .at(0)["nDCG@10"]["all"]
        .get<double>();
  };
  EXPECT_EQ(r["tasks"][1]["first_stage"]["nDCG@10"].get<double>(), ndcg("bm25.run"));
  ASSERT_EQ(rerank({"--beir", path("beir/two"), "--run", path("bm25.run"), "--direct",
                    "--instruction", "Given a query, retrieval relevant passage.", "--format",
                    "trec", "--out", path("model.run")})
                .exit_code,
            0);
  EXPECT_EQ(r["tasks"][1]["reranked"]["nDCG@10"].get<double>(), ndcg("model.run"));
  EXPECT_EQ(r["mean"]["reranked"]["nDCG@10"].get<double>(),
            (r["tasks"][0]["reranked"]["nDCG@10"].get<double>() +
             r["tasks"][1]["reranked"]["nDCG@10"].get<double>()) /
                2);
  EXPECT_GT(r["tasks"][0]["pairs_per_second"].get<double>(), 0);
  EXPECT_EQ(r["tasks"][0]["made_of"]["instruction"], "Given a query, retrieval relevant passage.");
}

// Equal scores: BM25's have the order of its list, a run's that of trec_eval.
TEST_F(TinyBenchmark, MeasuresTheFirstStageAsEvalMeasuresItsRun) {
  put("set/corpus.jsonl",
      "{\"_id\": \"a\", \"text\": \"blue sky\"}\n{\"_id\": \"b\", \"text\": \"blue sky\"}\n");
  put("set/queries.jsonl", "{\"_id\": \"q\", \"text\": \"blue\"}\n");
  put("set/qrels/test.tsv", "q\ta\t1\n");
  const auto first_stage = [&] {
    EXPECT_EQ(benchmark("beir", "set", {"--overwrite"}).exit_code, 0);
    return results()["tasks"][0]["first_stage"]["nDCG@10"].get<double>();
  };
  const auto eval = [&](const std::string& file) {
    return json_lines(run({"eval", "--json", "-c", "-m", "nDCG@10", path("set/qrels/test.tsv"),
                           path(file)})
                          .out)
        .at(0)["nDCG@10"]["all"]
        .get<double>();
  };
  ASSERT_EQ(run({"retrieve", "--beir", path("set"), "--out", path("bm25.run")}).exit_code, 0);
  EXPECT_EQ(first_stage(), 1.0);
  EXPECT_EQ(eval("bm25.run"), 1.0);
  put("set/run.txt", "q Q0 a 1 2.5 t\nq Q0 b 2 2.5 t\n");
  EXPECT_NEAR(first_stage(), 1 / std::log2(3.0), 1e-12);
  EXPECT_EQ(first_stage(), eval("set/run.txt"));
}

TEST_F(TinyBenchmark, GoesOnWhereItStopped) {
  put_beir();
  ASSERT_EQ(benchmark("beir", "beir").exit_code, 0);
  const base::Json whole = results();
  const std::string one = path("out/one/reranked.jsonl"), two = path("out/two/reranked.jsonl");
  expect_refused(benchmark("beir", "beir"), "--resume goes on where it stopped");
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(one.c_str(), &before), 0);
  fs::remove(two);
  fs::remove(two + ".made.json");
  fs::remove(path("out/results.json"));
  const Outcome o = benchmark("beir", "beir", {"--resume", "--json"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, Not(HasSubstr("complete already")));
  ASSERT_EQ(::stat(one.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  const base::Json again = base::parse_json(o.out, "stdout");
  EXPECT_EQ(again, results());
  for (const int t : {0, 1})
    EXPECT_EQ(again["tasks"][t]["reranked"], whole["tasks"][t]["reranked"]);
  EXPECT_TRUE(again["tasks"][0]["pairs_per_second"].is_null());  // nothing was scored
  EXPECT_GT(again["tasks"][1]["pairs_per_second"].get<double>(), 0);

  // What was made otherwise is not mixed with it.
  expect_refused(benchmark("beir", "beir", {"--resume", "--limit", "1"}), "'limit' was 0");
  expect_refused(benchmark("beir", "beir", {"--resume", "--score", "expected"}), "'score'");
  put("beir/one/qrels/test.tsv", "d4\td2\t1\n");
  expect_refused(benchmark("beir", "beir", {"--resume"}), "'data' was");
  EXPECT_EQ(benchmark("beir", "beir", {"--overwrite", "--limit", "1"}).exit_code, 0);
  EXPECT_EQ(results()["tasks"][0]["queries"], 1);
}

TEST_F(TinyBenchmark, SearchesTheCorpusAsItIs) {
  put_beir();
  ASSERT_EQ(benchmark("beir", "beir/one").exit_code, 0);
  EXPECT_THAT(candidates("one")["q2"], ElementsAre("d3"));
  put("beir/one/corpus.jsonl",
      base::read_file(path("beir/one/corpus.jsonl")) + "{\"_id\": \"d5\", \"text\": \"Bread.\"}\n");
  expect_refused(benchmark("beir", "beir/one", {"--resume"}), "--overwrite makes it anew");
  ASSERT_EQ(benchmark("beir", "beir/one", {"--overwrite"}).exit_code, 0);
  EXPECT_THAT(candidates("one")["q2"], ::testing::UnorderedElementsAre("d3", "d5"));
  // Its index says so as one of `erank index` does.
  const Outcome found = run({"retrieve", "--index", path("out/one/corpus.bm25"), "--beir",
                             path("beir/one"), "--out", path("bm25.run")});
  EXPECT_EQ(found.exit_code, 0) << found.err;
  // One that has taken its place is made anew, scores that have are refused.
  const std::string index = base::read_file(path("out/one/corpus.bm25"));
  put("out/one/corpus.bm25", index.substr(0, index.size() - 1));
  fs::remove(path("out/one/candidates.jsonl"));
  EXPECT_EQ(benchmark("beir", "beir/one", {"--resume"}).exit_code, 0);
  EXPECT_EQ(base::read_file(path("out/one/corpus.bm25")), index);
  put("out/one/reranked.jsonl", base::read_file(path("out/one/reranked.jsonl")) + "\n");
  expect_refused(benchmark("beir", "beir/one", {"--resume"}), "is of another file");
}

TEST_F(TinyBenchmark, ReplacesNoResultsUnasked) {
  put_beir();
  ASSERT_EQ(benchmark("beir", "beir/one").exit_code, 0);
  expect_refused(benchmark("beir", "beir/two"), "results.json exists");
  put("out/results.json", "[]");
  for (const char* how : {"--resume", "--overwrite"})
    expect_refused(benchmark("beir", "beir/two", {how}), "move it away");
  put("out/results.json", "{\"benchmark\": \"bright\", \"tasks\": []}");
  expect_refused(benchmark("beir", "beir/two", {"--resume"}), "is of the benchmark");
  fs::remove(path("out/results.json"));
  put("out/one/made.json", "7");
  expect_refused(benchmark("beir", "beir/one", {"--resume"}), "expected an object");
  expect_refused(run({"benchmark", "beir", "--data", path("beir"), "--out", path("beir")}),
                 "would be written into its data folder");
}

TEST_F(TinyBenchmark, TakesTheBestScoredCandidates) {
  put_beir();
  put("beir/one/candidates.jsonl",
      "{\"qid\": \"q2\", \"query\": \"bread\", \"hits\": [{\"docid\": \"d1\", \"score\": 1, "
      "\"text\": \"a\"}, {\"docid\": \"d3\", \"score\": 9, \"text\": \"b\"}]}\n");
  Outcome o = benchmark("beir", "beir/one", {"--top", "1"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(candidates("one")["q2"], ElementsAre("d3"));
  EXPECT_THAT(o.err, HasSubstr("1 query has no candidates and no result: d4"));

  put("beir/one/candidates.jsonl",
      "{\"qid\": \"q2\", \"query\": \"bread\", \"hits\": [{\"docid\": \"d1\", \"text\": \"a\"}, "
      "{\"docid\": \"d3\", \"text\": \"b\"}]}\n");
  o = benchmark("beir", "beir/one", {"--top", "1", "--overwrite"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("if they are not ranked, give a run"));
}

TEST_F(TinyBenchmark, APairThatCannotBeScoredEndsNoTask) {
  put_beir();
  put("beir/one/corpus.jsonl", base::read_file(path("beir/one/corpus.jsonl")) +
                                   "{\"_id\": \"d5\", \"text\": \"Bread " + std::string(3000, 'x') +
                                   "\"}\n");
  const Outcome o =
      benchmark("beir", "beir", {"--kv-cache-bytes", "1000000", "--long-docs", "cut"});
  EXPECT_EQ(o.exit_code, 2);
  EXPECT_THAT(o.err, HasSubstr("1 pairs could not be scored"));
  EXPECT_EQ(results()["tasks"].size(), 2u);
  EXPECT_THAT(o.out, ContainsRegex("\nmean of 2 "));
}

TEST_F(TinyBenchmark, MakesCandidatesAnewThatWereDamaged) {
  put_beir();
  ASSERT_EQ(benchmark("beir", "beir/one").exit_code, 0);
  const std::string whole = base::read_file(path("out/one/candidates.jsonl"));
  put("out/one/candidates.jsonl", whole.substr(0, whole.size() / 2));
  EXPECT_EQ(benchmark("beir", "beir/one", {"--resume"}).exit_code, 0);
  EXPECT_EQ(base::read_file(path("out/one/candidates.jsonl")), whole);
}

TEST_F(TinyBenchmark, ReadsBrightsLayoutAndDropsWhatAQueryExcludes) {
  put("bright/documents/biology.jsonl",
      "{\"id\": \"a b.txt\", \"content\": \"blue light and air\"}\n"
      "{\"id\": \"c.txt\", \"content\": \"blue sea\"}\n{\"id\": \"e.txt\", \"content\": "
      "\"yeast\"}\n");
  put("bright/examples/biology.jsonl",
      "{\"id\": \"0\", \"query\": \"blue light\", \"reasoning\": \"r\", \"excluded_ids\": "
      "[\"c.txt\"], \"gold_ids\": [\"a b.txt\"]}\n"
      "{\"id\": \"1\", \"query\": \"blue\", \"excluded_ids\": [\"N/A\"], \"gold_ids\": "
      "[\"c.txt\"]}\n");
  put("bright/documents/pony-00000-of-00001.jsonl", "{\"id\": \"p\", \"content\": \"actors\"}\n");
  put("bright/examples/pony-00000-of-00001.jsonl",
      "{\"id\": \"0\", \"query\": \"actors in pony\", \"excluded_ids\": [\"N/A\"], \"gold_ids\": "
      "[\"p\"]}\n");
  const Outcome o = benchmark("bright", "bright");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(candidates("biology")["0"], ElementsAre("a b.txt"));
  EXPECT_THAT(candidates("biology")["1"], ::testing::UnorderedElementsAre("a b.txt", "c.txt"));
  EXPECT_THAT(o.out, ContainsRegex("\nmean of 2 of the paper's 12 "));
  const base::Json r = results();
  EXPECT_EQ(r["tasks_of_paper_mean"], 12);
  EXPECT_EQ(r["tasks"][0]["task"], "biology");
  EXPECT_EQ(r["tasks"][1]["reranked"]["nDCG@10"], 1.0);
  EXPECT_THAT(r["tasks"][1]["instruction"].get<std::string>(), HasSubstr("language pony"));
  EXPECT_EQ(r["tasks"][1]["made_of"]["instruction"], r["tasks"][1]["instruction"]);

  // A task's folder as `erank data convert` makes it gives the same.
  ASSERT_EQ(run({"data", "convert", "--queries", path("bright/examples/biology.jsonl"), "--corpus",
                 path("bright/documents/biology.jsonl"), "--qrels",
                 path("bright/examples/biology.jsonl"), "--out", path("biology")})
                .exit_code,
            0);
  ASSERT_EQ(benchmark("bright", "biology", {"--overwrite"}).exit_code, 0);
  EXPECT_EQ(results()["tasks"][0]["reranked"], r["tasks"][0]["reranked"]);
  EXPECT_EQ(results()["tasks"][0]["first_stage"], r["tasks"][0]["first_stage"]);
}

// A word that a long query says often and most documents have: its number counts, or its weight.
TEST_F(TinyBenchmark, SearchesBrightByItsOwnQueryWeights) {
  std::string corpus;
  for (const char* text : {"blue", "yeast", "blue sky", "blue sea", "grey"})
    corpus += std::string("{\"id\": \"") + text + "\", \"content\": \"" + text + "\"}\n";
  put("bright/documents/biology.jsonl", corpus);
  put("bright/examples/biology.jsonl",
      "{\"id\": \"0\", \"query\": \"blue blue blue yeast\", \"excluded_ids\": [\"N/A\"], "
      "\"gold_ids\": [\"yeast\"]}\n");
  ASSERT_EQ(benchmark("bright", "bright").exit_code, 0);
  EXPECT_EQ(candidates("biology")["0"].at(0), "yeast");
  EXPECT_EQ(results()["query_weights"], "bm25");
  expect_refused(benchmark("bright", "bright", {"--resume", "--query-weights", "counts"}),
                 "'query_weights' was \"bm25\", now it is \"counts\"");
  ASSERT_EQ(benchmark("bright", "bright", {"--overwrite", "--query-weights", "counts"}).exit_code,
            0);
  EXPECT_EQ(candidates("biology")["0"].at(0), "blue");
  EXPECT_EQ(results()["query_weights"], "counts");

  ASSERT_EQ(run({"index", "--corpus", path("bright/documents/biology.jsonl"), "--out",
                 path("bright.bm25")})
                .exit_code,
            0);
  for (const auto& [weights, best] :
       {std::pair("counts", "(BM25: 1, "), std::pair("bm25", "(BM25: 2, ")}) {
    const Outcome found = run({"search", "--index", path("bright.bm25"), "--model", tiny_model(),
                               "--query", "blue blue blue yeast", "--query-weights", weights});
    ASSERT_EQ(found.exit_code, 0) << found.err;
    EXPECT_THAT(found.out, ContainsRegex("  blue  \\" + std::string(best)));
  }
}

// Both instructions of each query, its own candidates, the values of `erank eval` on the results.
TEST_F(TinyBenchmark, ReadsFollowIrsLayoutAndMeasuresBothScores) {
  const std::string folder = "followir/core17-instructions-mteb/";
  put(folder + "corpus.jsonl",
      "{\"_id\": \"d1\", \"title\": \"\", \"text\": \"radio towers and cancer\"}\n"
      "{\"_id\": \"d2\", \"title\": \"\", \"text\": \"mobile phones and animals\"}\n"
      "{\"_id\": \"d3\", \"title\": \"\", \"text\": \"bread and yeast in the oven\"}\n");
  put(folder + "queries.jsonl",
      "{\"_id\": \"310-og\", \"text\": \"radio waves\"}\n"
      "{\"_id\": \"310-changed\", \"text\": \"radio waves\"}\n"
      "{\"_id\": \"311-og\", \"text\": \"bread\"}\n{\"_id\": \"311-changed\", \"text\": "
      "\"bread\"}\n");
  put(folder + "instruction.jsonl",
      "{\"query-id\": \"310-og\", \"instruction\": \"Anything about cancer.\"}\n"
      "{\"query-id\": \"310-changed\", \"instruction\": \"Nothing about phones.\"}\n");
  put(folder + "qrels/test.tsv",
      "query-id\tcorpus-id\tscore\n310-og\td1\t1\n310-og\td2\t1\n310-changed\td1\t1\n"
      "310-changed\td2\t0\n311-og\td3\t1\n311-changed\td3\t0\n");
  put(folder + "top_ranked.jsonl",
      "{\"query-id\": \"310-og\", \"corpus-ids\": [\"d3\", \"d2\", \"d1\"]}\n"
      "{\"query-id\": \"310-changed\", \"corpus-ids\": [\"d3\", \"d2\", \"d1\"]}\n"
      "{\"query-id\": \"311\", \"corpus-ids\": [\"d1\", \"d3\"]}\n");
  const Outcome o = benchmark("followir", "followir");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(o.out, ContainsRegex("\ncore17 +4 +- "));  // the candidates have no scores
  EXPECT_THAT(candidates("core17")["311-changed"], ElementsAre("d1", "d3"));
  const auto lines = json_lines(base::read_file(path("out/core17/candidates.jsonl")));
  EXPECT_EQ(lines[0]["query"], "radio waves Anything about cancer.");
  EXPECT_EQ(lines[2]["query"], "bread");
  const base::Json r = results();
  EXPECT_TRUE(r["tasks"][0]["first_stage"].is_null());
  EXPECT_THAT(r["tasks"][0]["instruction"].get<std::string>(), HasSubstr("extra requirements"));

  // `erank eval` on the same scores, with the documents that the judgements lose written out.
  std::string trec;
  for (const auto& line : json_lines(base::read_file(path("out/core17/reranked.jsonl"))))
    trec += line["qid"].get<std::string>() + " Q0 " + line["docid"].get<std::string>() + " 1 " +
            base::dump_json(line["score"]) + " t\n";
  put("model.run", trec);
  put("og.qrels", "310-og 0 d1 1\n310-og 0 d2 1\n311-og 0 d3 1\n");
  put("diff.jsonl",
      "{\"query-id\": \"310\", \"corpus-ids\": [\"d2\"]}\n"
      "{\"query-id\": \"311\", \"corpus-ids\": [\"d3\"]}\n");
  const auto eval = json_lines(run({"eval", "--json", "-m", "AP@1000", "--p-mrr",
                                    path("diff.jsonl"), path("og.qrels"), path("model.run")})
                                   .out);
  EXPECT_EQ(r["tasks"][0]["reranked"]["p-MRR"], eval.at(0)["p-MRR"]["all"]);
  EXPECT_EQ(r["tasks"][0]["reranked"]["MAP@1000, nDCG@5"], eval.at(0)["AP@1000"]["all"]);

  // A file of those documents in the data folder is taken; the first pair alone.
  put(folder + "qrel_diff.jsonl",
      "{\"query-id\": \"310\", \"corpus-ids\": [\"d2\"]}\n"
      "{\"query-id\": \"311\", \"corpus-ids\": [\"d3\"]}\n");
  ASSERT_EQ(benchmark("followir", "followir", {"--overwrite"}).exit_code, 0);
  EXPECT_EQ(results()["tasks"][0]["reranked"], r["tasks"][0]["reranked"]);
  ASSERT_EQ(benchmark("followir", "followir", {"--overwrite", "--limit", "1"}).exit_code, 0);
  EXPECT_EQ(results()["tasks"][0]["queries"], 2);
}

// In which a query's line has both instructions, and no file names them in its ids.
TEST_F(TinyBenchmark, ReadsFollowIrsOlderLayoutAsTheNewerOne) {
  const std::string corpus =
      "{\"_id\": \"d1\", \"title\": \"Radio\", \"text\": \"radio towers and cancer\"}\n"
      "{\"_id\": \"d2\", \"title\": \"\", \"text\": \"mobile phones and animals\"}\n"
      "{\"_id\": \"d3\", \"title\": \"\", \"text\": \"bread and yeast in the oven\"}\n";
  const std::string older = "older/news21-instructions/", newer = "newer/news21-instructions-mteb/";
  put(older + "corpus.jsonl", corpus);
  put(older + "queries.jsonl",
      "{\"_id\": \"310\", \"text\": \"radio waves\", \"instruction_og\": \"Anything.\", "
      "\"instruction_changed\": \"No phones.\", \"keywords\": \"radio\", \"short_query\": \"r\"}\n"
      "{\"_id\": \"311\", \"text\": \"bread\", \"instruction_og\": \"\", "
      "\"instruction_changed\": \"No ovens.\", \"keywords\": \"\", \"short_query\": \"\"}\n");
  const auto judgement = [](const char* qid, const char* docid, int score) {
    return base::dump_json(
               base::Json{{"query-id", qid}, {"corpus-id", docid}, {"score", double(score)}}) +
           "\n";
  };
  put(older + "qrels_og/test.jsonl",
      judgement("310", "d1", 1) + judgement("310", "d2", 1) + judgement("311", "d3", 1));
  put(older + "qrels_changed/test.jsonl",
      judgement("310", "d1", 1) + judgement("310", "d2", 0) + judgement("311", "d3", 0));
  std::string ranked;
  for (const char* pair : {"310 d3", "311 d1", "310 d2", "310 d1", "311 d3"})
    ranked +=
        "{\"qid\": \"" + std::string(pair, 3) + "\", \"pid\": \"" + std::string(pair + 4) + "\"}\n";
  put(older + "top_ranked.jsonl", ranked);

  put(newer + "corpus.jsonl", corpus);
  std::string queries, instructions;
  for (const std::string kind : {"og", "changed"})
    for (const std::string qid : {"310", "311"})
      queries += "{\"_id\": \"" + qid + "-" + kind + "\", \"text\": \"" +
                 (qid == "310" ? "radio waves" : "bread") + "\"}\n";
  put(newer + "queries.jsonl", queries);
  put(newer + "instruction.jsonl",
      "{\"query-id\": \"310-og\", \"instruction\": \"Anything.\"}\n"
      "{\"query-id\": \"310-changed\", \"instruction\": \"No phones.\"}\n"
      "{\"query-id\": \"311-changed\", \"instruction\": \"No ovens.\"}\n");
  put(newer + "qrels/test.tsv",
      "310-og\td1\t1\n310-og\td2\t1\n311-og\td3\t1\n"
      "310-changed\td1\t1\n310-changed\td2\t0\n311-changed\td3\t0\n");
  put(newer + "top_ranked.jsonl",
      "{\"query-id\": \"310\", \"corpus-ids\": [\"d3\", \"d2\", \"d1\"]}\n"
      "{\"query-id\": \"311\", \"corpus-ids\": [\"d1\", \"d3\"]}\n");

  ASSERT_EQ(benchmark("followir", "newer").exit_code, 0);
  const base::Json expected = results()["tasks"][0];
  const auto hits = candidates("news21");
  fs::remove_all(path("out"));
  const Outcome o = benchmark("followir", "older");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const base::Json found = results()["tasks"][0];
  EXPECT_EQ(found["reranked"], expected["reranked"]);
  EXPECT_EQ(found["queries"], 4);
  EXPECT_EQ(candidates("news21"), hits);
  std::vector<std::string> texts;
  for (const auto& line : json_lines(base::read_file(path("out/news21/candidates.jsonl"))))
    texts.push_back(line["query"]);
  EXPECT_THAT(texts, ElementsAre("radio waves Anything.", "radio waves No phones.", "bread",
                                 "bread No ovens."));
}

TEST_F(TinyBenchmark, ReadsMsMarcosFilesAsTheyAreHandedOut) {
  put("marco/msmarco-passagetest2019-top1000.tsv",
      "19\t7\twhy is the sky blue\tAir scatters blue light.\n"
      "19\t8\twhy is the sky blue\tBread rises.\n");
  put("marco/2019qrels-pass.txt", "19 Q0 7 3\n19 Q0 9 1\n");
  put("marco/collection.tsv", "7\tAir scatters blue light.\n8\tBread rises.\n9\tA blue wall.\n");
  put("marco/msmarco-test2020-queries.tsv", "20\twhat is a wall\n21\tnot judged\n");
  put("marco/2020qrels-pass.txt", "20 0 9 2\n");
  const Outcome o = benchmark("trec-dl", "marco");
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_THAT(candidates("dl19")["19"], ElementsAre("7", "8"));
  EXPECT_THAT(candidates("dl20")["20"], ElementsAre("9"));
  EXPECT_THAT(o.out, ContainsRegex("\nmean of 2 of the paper's 2 "));
  EXPECT_THAT(o.out, ContainsRegex("\n  ERank-4B \\(dl19 71\\.1, dl20 66\\.7\\) +68\\.9\n"));
}

TEST_F(TinyBenchmark, SaysWhatADataFolderLacks) {
  put("empty/x", "");
  expect_refused(benchmark("beir", "nowhere"), "no such folder");
  expect_refused(benchmark("bright", "empty"), "nothing of BRIGHT in it");
  expect_refused(benchmark("msmarco", "empty"), "benchmark");
  put("bare/queries.jsonl", "{\"_id\": \"q\", \"text\": \"x\"}\n");
  expect_refused(benchmark("beir", "bare"), "task bare has no judgements");
  put("bare/qrels/test.tsv", "q\td\t1\n");
  expect_refused(benchmark("beir", "bare"), "no corpus and no candidates with texts");
  put("bare/corpus.jsonl", "{\"_id\": \"d\", \"text\": \"x\"}\n");
  put("bare/corpus.tsv", "d\tx\n");
  expect_refused(benchmark("beir", "bare"), "may both be meant");
  fs::remove(path("bare/corpus.tsv"));
  put("bare/qrels/test.tsv", "other\td\t1\n");
  expect_refused(benchmark("beir", "bare"), "judges none of the queries");
  put("bare/qrels/test.tsv", "q\td\t1\n");
  put("bare/run.txt", "q Q0 gone 1 1 t\n");
  expect_refused(benchmark("beir", "bare"), "lacks 1 of the candidates, first 'gone' of query q");
  expect_refused(benchmark("beir", "bare", {"--hybrid", "x"}), "--hybrid");
  put("core17/queries.jsonl", "{\"_id\": \"1-og\", \"text\": \"x\"}\n");
  put("core17/corpus.jsonl", "{\"_id\": \"d\", \"text\": \"x\"}\n");
  put("core17/qrels.txt", "1-og 0 d 1\n");
  expect_refused(benchmark("followir", "core17"), "task core17 has no candidates");
}

// Runs on real collections, a few queries; the first stage's values are those of published runs.
class TinyBenchmarkOnReal : public TinyBenchmark {
 protected:
  void unpack(const std::string& from, const std::string& to) const {
    fs::create_directories(fs::path(path(to)).parent_path());
    ASSERT_EQ(std::system(("xz -dc '" + from + "' > '" + path(to) + "'").c_str()), 0);
  }
};

TEST_F(TinyBenchmarkOnReal, NfcorpusFromTheCorpusToTheMeasures) {
  const std::string real = testing::shared_data("beir/nfcorpus");
  if (real.empty()) GTEST_SKIP() << "NFCorpus is not here";
  unpack(real + "/corpus.jsonl.xz", "nfcorpus/corpus.jsonl");
  unpack(real + "/queries.jsonl.xz", "nfcorpus/queries.jsonl");
  put("nfcorpus/qrels/test.tsv", base::read_file(real + "/qrels/test.tsv"));
  const Outcome o = benchmark("beir", "nfcorpus", {"--limit", "3", "--top", "20"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  // The first three judged queries of the published run, by the same cut.
  const auto lists = candidates("nfcorpus");
  ASSERT_EQ(lists.size(), 3u);
  unpack(real + "/run.bm25-top100.trec.txt.xz", "published.run");
  std::string cut, judged;
  for (const auto& line : lines_of(base::read_file(path("published.run"))))
    if (lists.count(line.substr(0, line.find(' ')))) cut += line + "\n";
  put("cut.run", cut);
  for (const auto& line : lines_of(base::read_file(real + "/qrels/test.tsv")))
    if (lists.count(line.substr(0, line.find('\t')))) judged += line + "\n";
  put("judged.tsv", judged);
  const auto eval = json_lines(
      run({"eval", "--json", "-c", "-m", "nDCG@10", path("judged.tsv"), path("cut.run")}).out);
  EXPECT_NEAR(results()["tasks"][0]["first_stage"]["nDCG@10"].get<double>(),
              eval.at(0)["nDCG@10"]["all"].get<double>(), 1e-9);
}

TEST_F(TinyBenchmarkOnReal, Dl19FromCandidatesWithTexts) {
  const std::string real = testing::shared_data("msmarco-dl/dl19");
  if (real.empty()) GTEST_SKIP() << "DL 2019 is not here";
  unpack(real + "/bm25_top100_with_text.jsonl.xz", "dl19/bm25_top100_with_text.jsonl");
  put("dl19/topics.tsv", base::read_file(real + "/topics.tsv"));
  put("dl19/qrels.txt", base::read_file(real + "/qrels.txt"));
  const Outcome o = benchmark("trec-dl", "dl19", {"--limit", "2"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(results()["tasks"][0]["queries"], 2);
  EXPECT_EQ(results()["tasks"][0]["pairs"], 200);
  std::map<std::string, double> published;
  for (const auto& line :
       lines_of(base::read_file(real + "/expected/BM25.ndcg_cut_10.per_query.txt"))) {
    std::istringstream in(line);
    std::string first, second, third;
    if (in >> first >> second >> third) published[second] = std::stod(third);
  }
  double sum = 0;
  for (const auto& [qid, docids] : candidates("dl19")) sum += published.at(qid);
  EXPECT_NEAR(results()["tasks"][0]["first_stage"]["nDCG@10"].get<double>(), sum / 2, 5.1e-5);
}

}  // namespace
}  // namespace erank::cli
