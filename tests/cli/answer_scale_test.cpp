// --scale, from the prompt to the score.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "erank/base/files.h"
#include "tests/cli/program.h"
#include "tests/text/yes_no_tokenizer.h"

namespace erank::cli {
namespace {

using ::testing::HasSubstr;

class TinyAnswerScale : public Program {
 protected:
  void SetUp() override {
    text::add_yes_no(tiny_model());
    put("pair.jsonl", "{\"query\": \"sky\", \"document\": \"Blue.\"}\n");
    put("docs.jsonl", "{\"_id\": \"d\", \"text\": \"Blue.\"}\n");
  }
  std::vector<std::string> query(const std::vector<std::string>& more) const {
    std::vector<std::string> args = {"--query",  "sky",         "--docs", path("docs.jsonl"),
                                     "--quiet",  "--precision", "fp32",   "--direct",
                                     "--format", "jsonl"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  // The probabilities of the next token after what the model reads in direct mode, by the logits.
  std::vector<double> next_token(const std::string& scale) {
    const Outcome prompt = run({"prompt", "--model", tiny_model(), "--scale", scale, "--direct",
                                "--in", path("pair.jsonl")});
    EXPECT_EQ(prompt.exit_code, 0) << prompt.err;
    const base::Json ids = json_lines(prompt.out).at(0)["ids"];
    const Outcome o = run({"model", "logits", "--model", tiny_model()},
                          base::dump_json(base::Json{{"ids", ids}}) + "\n");
    EXPECT_EQ(o.exit_code, 0) << o.err;
    const base::Json logits = json_lines(o.out).at(0)["logits"][0];
    std::vector<double> p;
    double sum = 0;
    for (const base::Json& logit : logits) sum += p.emplace_back(std::exp(logit.get<double>()));
    for (double& x : p) x /= sum;
    return p;
  }
};

TEST_F(TinyAnswerScale, ScoresAreMadeOfTheLogitsAtTheAnswersPlace) {
  for (const std::string scale : {"0-3", "yes-no"}) {
    const auto p = next_token(scale);
    const std::vector<size_t> answers = scale == "0-3" ? std::vector<size_t>{'0', '1', '2', '3'}
                                                       : std::vector<size_t>{text::kNo, text::kYes};
    double sum = 0, weighted = 0;
    size_t most = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      sum += p[answers[i]], weighted += static_cast<double>(i) * p[answers[i]];
      if (p[answers[i]] > p[answers[most]]) most = i;
    }
    for (const std::string score : {"paper", "expected", "integer"}) {
      const Outcome o = rerank(query({"--scale", scale, "--score", score}));
      ASSERT_EQ(o.exit_code, 0) << o.err;
      const base::Json line = json_lines(o.out).at(0);
      ASSERT_EQ(line["distribution"].size(), answers.size());
      for (size_t i = 0; i < answers.size(); ++i)
        EXPECT_NEAR(line["distribution"][i].get<double>(), p[answers[i]], 1e-6);
      EXPECT_EQ(line["integer"], most);
      const double mean = weighted / sum;
      const double paper = scale == "yes-no" ? mean : static_cast<double>(most) * p[answers[most]];
      EXPECT_NEAR(line["score"].get<double>(),
                  score == "paper"      ? paper
                  : score == "expected" ? mean
                                        : static_cast<double>(most),
                  1e-5)
          << scale << " " << score;
    }
  }
}

TEST_F(TinyAnswerScale, IsTheModelsOwnUnlessTheFlagSaysOtherwise) {
  put("tiny/erank.json", "{\"scale\": \"yes-no\"}");
  EXPECT_EQ(json_lines(rerank(query({})).out).at(0)["distribution"].size(), 2u);
  EXPECT_EQ(json_lines(rerank(query({"--scale", "0-10"})).out).at(0)["distribution"].size(), 11u);
  EXPECT_THAT(run({"prompt", "--model", tiny_model(), "--in", path("pair.jsonl")}).out,
              HasSubstr("from [yes, no]."));
}

// A journal's results are of one scale; a resumed job must ask for the same.
TEST_F(TinyAnswerScale, IsPartOfWhatAnOutputIsMadeOf) {
  ASSERT_EQ(rerank(query({"--scale", "0-3", "--out", path("out.jsonl")})).exit_code, 0);
  expect_refused(rerank(query({"--scale", "yes-no", "--out", path("out.jsonl"), "--resume"})),
                 "'scale' was \"0-3\", now it is \"yes-no\"");
  EXPECT_EQ(rerank(query({"--scale", "0-3", "--out", path("out.jsonl"), "--resume"})).exit_code, 0);
}

TEST_F(TinyAnswerScale, IsLearnedAndKeptByTraining) {
  std::string pairs;
  for (int i = 0; i < 8; ++i)
    pairs += "{\"qid\": \"q" + std::to_string(i / 4) + "\", \"docid\": \"d" + std::to_string(i) +
             "\", \"query\": \"sky\", \"text\": \"Text " + std::to_string(i) +
             "\", \"score\": " + std::to_string(i % 2) + "}\n";
  put("pairs.jsonl", pairs);
  const Outcome o = run({"train", "sft", "--model", tiny_model(), "--data", path("pairs.jsonl"),
                         "--scale", "yes-no", "--max-steps", "2", "--batch-size", "4", "--threads",
                         "1", "--out", path("run")});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const base::Json said = base::parse_json(base::read_file(path("run/erank.json")), "erank.json");
  EXPECT_EQ(said["scale"], "yes-no");
  const Outcome scored = run({"rerank", "--model", path("run"), "--threads", "1", "--query", "sky",
                              "--docs", path("docs.jsonl"), "--direct", "--quiet"});
  ASSERT_EQ(scored.exit_code, 0) << scored.err;
  EXPECT_EQ(json_lines(scored.out).at(0)["distribution"].size(), 2u);
  put("pairs.jsonl",
      "{\"qid\": \"q\", \"docid\": \"d\", \"query\": \"x\", \"text\": \"y\", "
      "\"score\": 7}\n");
  const Outcome refused =
      run({"train", "sft", "--model", tiny_model(), "--data", path("pairs.jsonl"), "--scale",
           "yes-no", "--threads", "1", "--out", path("other")});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("'score' is 7, expected a number from 0 to 1"));
}

// Without --scale, of the model's own.
TEST_F(TinyAnswerScale, IsThatOfReinforcementLearning) {
  std::string pairs, lists, qrels;
  for (const std::string q : {"sky", "sea", "sun"}) {
    base::OrderedJson list = {{"qid", q}, {"query", q}};
    for (int d = 0; d < 3; ++d) {
      const std::string docid = "d" + std::to_string(d),
                        text(5 + 4 * d, static_cast<char>('a' + d));
      list["hits"].push_back({{"docid", docid}, {"text", text}});
      base::OrderedJson pair = {{"qid", q}, {"docid", docid}, {"query", q}, {"text", text}};
      pair["distribution"] = {0.5, 0.5};
      pairs += pair.dump() + "\n";
    }
    lists += list.dump() + "\n";
    qrels += q + " 0 d1 1\n";
  }
  put("train.jsonl", lists), put("train.qrels", qrels), put("pairs.jsonl", pairs);
  const Outcome tuned =
      run({"train",   "sft",       "--model",  tiny_model(),  "--data", path("pairs.jsonl"),
           "--scale", "yes-no",    "--full",   "--epochs",    "20",     "--learning-rate",
           "0.01",    "--threads", "1",        "--rank-loss", "margin", "--rank-weight",
           "0.01",    "--out",     path("sft")});
  ASSERT_EQ(tuned.exit_code, 0) << tuned.err;
  EXPECT_TRUE(json_lines(base::read_file(path("sft/log.jsonl"))).at(0).contains("rank_loss"));
  const auto grpo = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> args = {"train",        "grpo",
                                     "--model",      path("sft"),
                                     "--candidates", path("train.jsonl"),
                                     "--qrels",      path("train.qrels"),
                                     "--iterations", "4",
                                     "--threads",    "1",
                                     "--out",        path(out)};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  };
  for (const std::string rollouts : {"exact", "4"}) {
    const Outcome o = grpo("by-" + rollouts, {"--rollouts", rollouts});
    ASSERT_EQ(o.exit_code, 0) << o.err;
    const std::string said = base::read_file(path("by-" + rollouts + "/erank.json"));
    EXPECT_EQ(base::parse_json(said, "erank.json")["scale"], "yes-no");
    bool steps = false;
    for (const base::Json& line :
         json_lines(base::read_file(path("by-" + rollouts + "/log.jsonl"))))
      if (line.contains("entropy")) {
        steps = true;
        EXPECT_GT(line["entropy"].get<double>(), 0.1);
        EXPECT_LT(line["entropy"].get<double>(), std::log(3) + 0.01);  // yes, no, anything else
      }
    EXPECT_TRUE(steps);
  }
  ASSERT_EQ(run({"rerank", "--model", path("sft"), "--candidates", path("train.jsonl"), "--direct",
                 "--threads", "1", "--out", path("scores.jsonl")})
                .exit_code,
            0);
  EXPECT_EQ(grpo("given", {"--reference-scores", path("scores.jsonl")}).exit_code, 0);
  put("scores.jsonl", "{\"qid\": \"sky\", \"docid\": \"d0\", \"integer\": 7}\n");
  expect_refused(grpo("other", {"--reference-scores", path("scores.jsonl")}),
                 "'integer' is 7, expected a number from 0 to 1");
  // Another scale than the run's is another run.
  expect_refused(grpo("by-4", {"--rollouts", "4", "--resume", "--scale", "0-3"}), "scale");
}

}  // namespace
}  // namespace erank::cli
