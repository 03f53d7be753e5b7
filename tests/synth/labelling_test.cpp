#include "erank/synth/labelling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/text/tokenizer_small.h"

namespace erank::synth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const text::Tokenizer& bytes() {
  static const auto tokenizer =
      text::Tokenizer::from_json(base::dump_json(text::small_tokenizer({})));
  return tokenizer;
}

data::CandidateList list_of(const std::string& qid, int count) {
  data::CandidateList list{{qid, "query of " + qid}, {}};
  for (int d = 0; d < count; ++d)
    list.candidates.push_back({{"d" + std::to_string(d), "text " + std::to_string(d)}, 10.0 - d});
  return list;
}

Completion says(const std::string& content, int64_t tokens = 10) {
  return {content, "", "stop", "m", 100, tokens};
}
Completion answers(int score) {
  return says("<think>As " + std::to_string(score) + ".</think><answer>" + std::to_string(score) +
              "</answer>");
}

std::vector<base::Json> lines_of(const Labelling& labelling,
                                 const std::vector<Completion>& completions) {
  std::vector<base::Json> lines;
  labelling.write([&](int64_t request) { return completions[static_cast<size_t>(request)]; },
                  [&](const std::string& line) { lines.push_back(base::parse_json(line, "l")); });
  return lines;
}

TEST(Consensus, IsTheMeanAndKeepsTheFirstOfTheNearest) {
  const auto check = [](std::vector<int> scores, double mean, size_t kept) {
    const Consensus c = consensus_of(scores);
    EXPECT_EQ(c.mean, mean);
    EXPECT_EQ(c.kept, kept);
  };
  check({4}, 4, 0);
  check({2, 7, 3}, 4, 2);
  check({3, 7}, 5, 0);
  check({7, 3}, 5, 0);
  check({10, 0, 5, 5}, 5, 2);
  check({0, 0, 1}, 1.0 / 3, 0);
}

TEST(Points, AreWrittenWithTheReasoningOfTheSampleNearestToTheMean) {
  Labelling labelling({list_of("q1", 2), list_of("q2", 1)}, bytes(),
                      {.samples = 3, .instruction = "Find."});
  ASSERT_EQ(labelling.num_requests(), 9);
  EXPECT_EQ(labelling.key(4), R"(["q1","d1",1])");
  EXPECT_EQ(labelling.pair_of(4), "query q1, document d1");
  EXPECT_THAT(labelling.question(4), HasSubstr("definition is: Find.\n"));
  EXPECT_THAT(labelling.question(4),
              HasSubstr("query:\nquery of q1\n\nHere is the document:\ntext 1\n"));
  // Of the third pair nothing can be read.
  std::vector<Completion> completions = {
      answers(2), answers(7), answers(3),
      // Too long, by the server's count and by its word; unformatted.
      says("<think>x</think><answer>1</answer>", 2049), answers(9), says("I say 3."),
      says("<think>a</think><answer>11</answer>"), says("<answer>4</answer> so"), says("")};
  completions[4].finish_reason = "length";
  completions[4].completion_tokens = 2048;
  for (int64_t i = 0; i < 9; ++i) labelling.take(i, completions[static_cast<size_t>(i)]);
  const auto lines = lines_of(labelling, completions);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], (base::Json{{"qid", "q1"},
                                  {"docid", "d0"},
                                  {"query", "query of q1"},
                                  {"text", "text 0"},
                                  {"instruction", "Find."},
                                  {"score", 3},
                                  {"thought", "As 3."},
                                  {"consensus", 4.0},
                                  {"scores", {2, 7, 3}}}));
  const LabelReport r = labelling.report();
  EXPECT_EQ(r.queries, 2);
  EXPECT_EQ(r.pairs, 3);
  EXPECT_EQ(r.labelled, 1);
  EXPECT_EQ(r.answered, 9);
  EXPECT_EQ(r.used, 3);
  EXPECT_EQ(r.too_long, 2);
  EXPECT_EQ(r.unformatted, 4);
  EXPECT_EQ(r.prompt_tokens, 900);
  EXPECT_EQ(r.completion_tokens, 7 * 10 + 2049 + 2048);
  EXPECT_EQ(r.mean, 3);
  EXPECT_EQ(r.deviation, 0);
  EXPECT_NEAR(r.sample_deviation, std::sqrt(14.0 / 3), 1e-12);
  EXPECT_EQ(r.unanimous, 0);
  EXPECT_EQ(r.models.at("m"), 9);
}

TEST(Points, TakeTheReasoningFromItsFieldAndWithoutTags) {
  Labelling labelling({list_of("q", 4)}, bytes(), {.samples = 1});
  std::vector<Completion> completions = {
      says("\n<answer>7</answer>\n"), says("<think>short</think><answer>6</answer>"),
      says("long </think>\n<think>short</think><answer>5</answer>"), says("<answer>4</answer>")};
  completions[0].reasoning = completions[1].reasoning = " It is. <think> \n";
  for (int64_t i = 0; i < 4; ++i) labelling.take(i, completions[static_cast<size_t>(i)]);
  const auto lines = lines_of(labelling, completions);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["thought"], "It is.");
  EXPECT_EQ(lines[1]["thought"], "It is.");
  EXPECT_EQ(lines[2]["thought"], "long \nshort");
  EXPECT_FALSE(lines[3].contains("thought"));
  EXPECT_THAT((std::vector<int>{lines[0]["score"], lines[1]["score"], lines[2]["score"],
                                lines[3]["score"]}),
              ElementsAre(7, 6, 5, 4));
}

TEST(Points, CountWhatFailedAndUseTheOtherSamples) {
  Labelling labelling({list_of("q", 1)}, bytes(), {.samples = 2});
  labelling.take_failure(0);
  labelling.take(1, answers(8));
  EXPECT_EQ(lines_of(labelling, {answers(0), answers(8)})[0]["score"], 8);
  const LabelReport r = labelling.report();
  EXPECT_EQ(r.failed, 1);
  EXPECT_EQ(r.answered, 1);
  EXPECT_EQ(r.sampled_pairs, 0);
}

TEST(Pairs, PutDocumentsInTheOrderInWhichTheyWin) {
  Labelling labelling({list_of("q", 6), list_of("alone", 1)}, bytes(),
                      {.judge = Judge::kPairs, .samples = 8});
  ASSERT_EQ(labelling.num_requests(), 48);
  std::set<std::string> keys;
  std::vector<Completion> completions;
  int ties = 0;
  for (int64_t i = 0; i < labelling.num_requests(); ++i) {
    EXPECT_TRUE(keys.insert(labelling.key(i)).second) << labelling.key(i);
    const std::string question = labelling.question(i);
    const auto shown = [&](const std::string& document) {
      return question.find("Here is document 1:\ntext " + document) != question.npos   ? 1
             : question.find("Here is document 2:\ntext " + document) != question.npos ? 2
                                                                                       : 0;
    };
    // d0 > d1 > ... > d5, but d4 and d5 tie.
    int winner = 0;
    for (const char* d : {"0", "1", "2", "3"})
      if (winner == 0) winner = shown(d);
    ties += winner == 0;
    completions.push_back(says("<think>.</think><answer>" + std::to_string(winner) + "</answer>"));
    labelling.take(i, completions.back());
  }
  const auto lines = lines_of(labelling, completions);
  ASSERT_EQ(lines.size(), 6u);  // one document alone cannot be compared
  std::vector<double> scores;
  for (const auto& line : lines) {
    scores.push_back(line["score"]);
    EXPECT_EQ(line["wins"].get<int>() + line["losses"].get<int>() + line["ties"].get<int>(), 16);
    EXPECT_FALSE(line.contains("thought"));
  }
  EXPECT_EQ(scores[0], 10);
  for (int i = 0; i < 4; ++i) EXPECT_GT(scores[i], scores[i + 1] + 0.1) << i;
  EXPECT_EQ(*std::min_element(scores.begin(), scores.end()), 0);
  EXPECT_EQ(labelling.report().ties, ties);
  EXPECT_EQ(labelling.report().labelled, 6);
  EXPECT_EQ(labelling.report().pairs, 7);
}

TEST(Pairs, LeaveOutWhatNoComparisonSaysAnythingAbout) {
  Labelling labelling({list_of("q", 3)}, bytes(), {.judge = Judge::kPairs, .samples = 1});
  std::vector<Completion> completions(3);
  for (int64_t i = 0; i < 3; ++i) {
    const std::string question = labelling.question(i);
    if (question.find("text 2") != question.npos)
      completions[static_cast<size_t>(i)] = says("?");
    else
      completions[static_cast<size_t>(i)] =
          says(question.find("document 1:\ntext 0") != question.npos ? "<answer>1</answer>"
                                                                     : "<answer>2</answer>");
    labelling.take(i, completions[static_cast<size_t>(i)]);
  }
  const auto lines = lines_of(labelling, completions);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["docid"], "d0");
  EXPECT_EQ(lines[0]["score"], 10);
  EXPECT_EQ(lines[1]["score"], 0);
}

TEST(Labels, AsRunsHaveTheirOwnScoresAndTheFirstStages) {
  auto lists = std::vector{list_of("q1", 2), list_of("q2", 1)};
  lists[1].candidates[0].score.reset();
  Labelling labelling(lists, bytes(), {.samples = 2});
  for (int64_t i = 0; i < 6; ++i) labelling.take(i, answers(i == 1 ? 3 : 2));
  using Scores = Labelling::Scores;
  EXPECT_EQ(labelling.run(Scores::kLabel).hits.at("q1")[0].score, 2);
  EXPECT_EQ(labelling.run(Scores::kConsensus).hits.at("q1")[0].score, 2.5);
  EXPECT_EQ(labelling.run(Scores::kFirstStage).hits.at("q1")[1].score, 9);
  EXPECT_THAT(labelling.run(Scores::kFirstStage).qids, ElementsAre("q1"));
  EXPECT_THAT(labelling.run(Scores::kLabel).qids, ElementsAre("q1", "q2"));
}

}  // namespace
}  // namespace erank::synth
