// The default model, models/erank-135m, on collections that it was not trained on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "erank/base/files.h"
#include "erank/model/make_network.h"
#include "tests/cli/program.h"
#include "tests/shared_data.h"

namespace erank::cli {
namespace {

class TinyDefaultModel : public Program {
 protected:
  // The first `count` lines of a file as a file of their own.
  std::string first_lines(const std::string& file, size_t count) {
    auto lines = lines_of(base::read_file(file));
    lines.resize(std::min(count, lines.size()));
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    return put("queries.jsonl", text);
  }
  double ndcg(const std::string& qrels, const std::string& run_file) {
    const Outcome o = run({"eval", "--json", "-m", "nDCG@10", qrels, run_file});
    EXPECT_EQ(o.exit_code, 0) << o.err;
    return base::parse_json(o.out, "eval")["nDCG@10"]["all"].get<double>();
  }
  // Reranks BM25's first `top` passages of each query.
  void rerank_bm25(const std::string& corpus, const std::string& queries, const std::string& top) {
    Outcome o = run({"index", "--corpus", corpus, "--out", path("bm25")});
    ASSERT_EQ(o.exit_code, 0) << o.err;
    o = run({"retrieve", "--index", path("bm25"), "--queries", queries, "--top", top, "--out",
             path("bm25.run")});
    ASSERT_EQ(o.exit_code, 0) << o.err;
    o = run({"rerank", "--corpus", corpus, "--queries", queries, "--run", path("bm25.run"), "--out",
             path("model.jsonl")});
    ASSERT_EQ(o.exit_code, 0) << o.err;
    summary_ = o.err;
    std::string trec;
    for (const auto& line : json_lines(base::read_file(path("model.jsonl")))) {
      integers_.insert(line["integer"].get<int>());
      trec += line["qid"].get<std::string>() + " Q0 " + line["docid"].get<std::string>() + " " +
              line["rank"].dump() + " " + line["score"].dump() + " model\n";
    }
    put("model.run", trec);
  }

  std::set<int> integers_;  // that the model answered
  std::string summary_;     // of the reranking
};

// What the repository has itself.
TEST_F(TinyDefaultModel, OrdersTheDemosPassagesBetterThanBm25) {
  const std::string demo = std::string(ERANK_SOURCE_DIR) + "/examples/demo/";
  rerank_bm25(demo + "corpus.jsonl", first_lines(demo + "queries.jsonl", 12), "10");
  const double bm25 = ndcg(demo + "qrels/test.tsv", path("bm25.run"));
  const double model = ndcg(demo + "qrels/test.tsv", path("model.run"));
  std::printf("nDCG@10 of 12 queries: BM25 %.4f, the model alone %.4f\n", bm25, model);
  EXPECT_GT(model, bm25 + 0.03);  // measured: 0.15 more
  const bool int8 = summary_.find("(int8)") != std::string::npos;
  EXPECT_EQ(int8, model::int8_is_fast()) << summary_;
  EXPECT_GE(integers_.size(), 4u);
}

// A collection that others judged.
TEST_F(TinyDefaultModel, OrdersRealPassagesAsWellAsBm25) {
  const std::string adi = erank::testing::shared_data("glasgow/adi");
  if (adi.empty()) GTEST_SKIP() << "no glasgow/adi (ERANK_SHARED_DATA names the folder)";
  ASSERT_EQ(std::system(
                ("xz -dc '" + adi + "/corpus.jsonl.xz' > '" + path("corpus.jsonl") + "'").c_str()),
            0);
  rerank_bm25(path("corpus.jsonl"), first_lines(adi + "/queries.jsonl", 12), "20");
  const double bm25 = ndcg(adi + "/qrels.txt", path("bm25.run"));
  const double model = ndcg(adi + "/qrels.txt", path("model.run"));
  std::printf("nDCG@10 of 12 queries: BM25 %.4f, the model alone %.4f\n", bm25, model);
  EXPECT_GT(model, bm25 + 0.03);  // measured: 0.10 more
}

TEST_F(TinyDefaultModel, ReadsAQueryInCapitalsAsOneInLowerCase) {
  const std::string pairs = put("pairs.jsonl",
                                R"({"query": "WHAT IS THE FLASH POINT", "document": "Flash point."}
{"query": "what is the flash point", "document": "Flash point."}
)");
  const Outcome o = run({"prompt", "--in", pairs});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto prompts = json_lines(o.out);
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0], prompts[1]);
}

}  // namespace
}  // namespace erank::cli
