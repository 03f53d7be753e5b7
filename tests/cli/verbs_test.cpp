#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::HasSubstr;

using TinyVerbs = Program;

TEST_F(TinyVerbs, EveryVerbHasHelpWithAnExample) {
  for (const auto& verb : std::vector<std::vector<std::string>>{{"rerank"},
                                                                {"retrieve"},
                                                                {"fuse"},
                                                                {"search"},
                                                                {"index"},
                                                                {"eval"},
                                                                {"report"},
                                                                {"calibrate"},
                                                                {"data", "check"},
                                                                {"data", "sample"},
                                                                {"data", "convert"},
                                                                {"synth"},
                                                                {"tokenize"},
                                                                {"prompt"},
                                                                {"model", "info"},
                                                                {"model", "random"},
                                                                {"model", "logits"},
                                                                {"model", "merge"},
                                                                {"bench"},
                                                                {"demo"}}) {
    auto args = verb;
    args.push_back("--help");
    const Outcome help = run(args);
    EXPECT_EQ(help.exit_code, 0) << verb.back();
    EXPECT_THAT(help.out, HasSubstr("Example")) << verb.back();
    EXPECT_THAT(help.out, HasSubstr("erank " + verb[0])) << verb.back();
  }
}

TEST_F(TinyVerbs, WhatTheProgramDoesNotKnowIsRefused) {
  expect_refused(run({"rerank", "--no-such-flag"}), "--no-such-flag; see erank rerank --help");
  expect_refused(run({"model", "info", "--no-such-flag"}), "see erank model info --help");
  expect_refused(run({"rerank", "--format", "a\nb"}), "--format: a b not in {table,jsonl,trec}");
  expect_refused(run({"rerank", "--top", "-1"}), "--top");
  expect_refused(run({"model"}), "see erank model --help");
  expect_refused(run({}), "see erank --help");
  expect_refused(run({"sort"}), "see erank --help");
}

TEST_F(TinyVerbs, DevicesAreTheCpuOrDifferentGpus) {
  const auto refused = [&](const std::string& device, const std::string& part) {
    expect_refused(run({"rerank", "--device", device}), "--device: '" + part);
  };
  refused("cuda:0,1,0", "cuda:0,1,0' has GPU 0 twice");
  refused("cuda:1,cuda:1", "cuda:1,cuda:1' has GPU 1 twice");
  refused("cuda:0,x", "cuda:0,x': 'x' is no GPU's number; expected e.g. cuda:0,1");
  refused("cuda:", "cuda:': '' is no GPU's number");
  refused("cuda:0,", "cuda:0,': '' is no GPU's number");
  refused("cuda:-1", "cuda:-1': '-1' is no GPU's number");
  refused("cpu,cpu",
          "cpu,cpu' is no device; expected cpu, cuda (the first GPU), or GPUs by number");
  refused("gpu", "gpu' is no device");
  expect_refused(run({"bench", "--device", "cuda:0,1"}), "'cuda:0,1' is 2 GPUs; expected one");
  expect_refused(run({"train", "sft", "--device", "cuda:0,1"}),
                 "'cuda:0,1': expected cpu or cuda; a process trains on one GPU");
  // Whether there is no GPU at all, or not so many.
  expect_refused(
      rerank({"--query", "sky", "--docs", put("docs.txt", "blue\n"), "--device", "cuda:0,99"}),
      "GPU");
}

TEST_F(TinyVerbs, TokenizeGivesIdsAndPiecesAndTheTextBack) {
  const Outcome o = run({"tokenize", "--model", tiny_model()}, "{\"text\": \"a <think>\"}\n");
  EXPECT_EQ(o.out,
            "{\"ids\":[97,32,60,116,104,105,110,107,62],\"pieces\":[\"a\",\"\xc4\xa0\",\"<\",\"t\","
            "\"h\",\"i\",\"n\",\"k\",\">\"]}\n")
      << o.err;
  EXPECT_EQ(run({"tokenize", "--model", tiny_model(), "--decode"}, o.out).out,
            "{\"text\":\"a <think>\"}\n");
  EXPECT_THAT(
      run({"tokenize", "--model", tiny_model(), "--specials"}, "{\"text\": \"<think>\"}\n").out,
      HasSubstr("[259]"));
  expect_refused(run({"tokenize", "--model", tiny_model()}, "{\"txt\": \"a\"}\n"), "stdin:1");
  expect_refused(run({"tokenize", "--model", tiny_model(), "--decode"}, "{\"ids\": [99999]}\n"),
                 "99999");
}

TEST_F(TinyVerbs, PromptShowsWhatTheModelReads) {
  const std::string pair = "{\"query\": \"sky\", \"document\": \"Blue.\"}\n";
  const Outcome o = run({"prompt", "--model", tiny_model()}, pair);
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto shown = json_lines(o.out).at(0);
  EXPECT_THAT(shown["text"].get<std::string>(), HasSubstr("Here is the document:\nBlue.\n"));
  EXPECT_EQ(shown["truncated"], false);
  const auto direct =
      json_lines(run({"prompt", "--model", tiny_model(), "--direct"}, pair).out).at(0);
  EXPECT_GT(direct["ids"].size(), shown["ids"].size());
  const auto cut =
      json_lines(run({"prompt", "--model", tiny_model(), "--max-doc-tokens", "2"}, pair).out).at(0);
  EXPECT_EQ(cut["document_truncated"], true);
  expect_refused(run({"prompt", "--model", tiny_model()}, "{\"query\": \"sky\"}\n"), "document");
}

TEST_F(TinyVerbs, IndexRetrieveAndEvalWorkHandInHand) {
  put("corpus.jsonl",
      "{\"_id\": \"d1\", \"title\": \"Sky\", \"text\": \"Why the sky is blue.\"}\n"
      "{\"_id\": \"d2\", \"text\": \"Bread rises with yeast.\"}\n"
      "{\"_id\": \"d3\", \"text\": \"Blue paint.\"}\n"
      "{\"_id\": \"d4\", \"text\": \"A bicycle chain.\"}\n"
      "{\"_id\": \"d5\", \"text\": \"Yeasts ferment sugar in bread dough.\"}\n");
  put("queries.jsonl",
      "{\"_id\": \"q1\", \"text\": \"blue sky\"}\n{\"_id\": \"q2\", \"text\": \"bread\"}\n");
  put("qrels.txt", "q1 0 d1 1\nq2 0 d2 1\nq2 0 d5 1\n");
  const Outcome index =
      run({"index", "--corpus", path("corpus.jsonl"), "--out", path("corpus.bm25")});
  ASSERT_EQ(index.exit_code, 0) << index.err;
  expect_refused(run({"index", "--corpus", path("corpus.jsonl"), "--out", path("corpus.bm25")}),
                 "--overwrite");
  const Outcome retrieve = run({"retrieve", "--index", path("corpus.bm25"), "--queries",
                                path("queries.jsonl"), "--out", path("run.trec")});
  ASSERT_EQ(retrieve.exit_code, 0) << retrieve.err;
  const auto hits = lines_of(base::read_file(path("run.trec")));
  ASSERT_EQ(hits.size(), 4u);
  EXPECT_THAT(hits[0], ::testing::StartsWith("q1 Q0 d1 1 "));
  const Outcome eval =
      run({"eval", "-m", "nDCG@10", "-m", "P@1", path("qrels.txt"), path("run.trec")});
  ASSERT_EQ(eval.exit_code, 0) << eval.err;
  EXPECT_THAT(eval.out, ::testing::ContainsRegex("nDCG@10 +\tall\t1\\.0000"));
  EXPECT_THAT(eval.out, ::testing::ContainsRegex("P@1 +\tall\t1\\.0000"));
  const Outcome reranked = rerank({"--beir", path(""), "--run", path("run.trec"), "--direct",
                                   "--format", "trec", "--out", path("erank.trec")});
  ASSERT_EQ(reranked.exit_code, 0) << reranked.err;
  const Outcome json =
      run({"eval", "--json", "-m", "nDCG@10", path("qrels.txt"), path("erank.trec")});
  EXPECT_GT(base::parse_json(json.out, "eval")["nDCG@10"]["all"].get<double>(), 0.6);
  expect_refused(run({"eval", "-m", "nGCD", path("qrels.txt"), path("run.trec")}), "nGCD");
}

TEST_F(TinyVerbs, ModelInfoLogitsAndRandomSpeakJson) {
  const auto info = base::parse_json(run({"model", "info", tiny_model(), "--json"}).out, "info");
  EXPECT_EQ(info["vocab_size"], 512);
  const Outcome logits = run({"model", "logits", "--model", tiny_model()}, "{\"ids\": [1, 2]}\n");
  EXPECT_EQ(json_lines(logits.out).at(0)["logits"][0].size(), 512u);
  expect_refused(run({"model", "logits", "--model", tiny_model()}, "{\"ids\": [512]}\n"), "512");
  expect_refused(run({"model", "random", "--shape", "huge", "--out", path("m")}), "huge");
  expect_refused(run({"model", "merge", "--model", tiny_model(), "--out", path("m")}), "--adapter");
}

}  // namespace
}  // namespace erank::cli
