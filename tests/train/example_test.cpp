#include "erank/train/example.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "erank/text/score_distribution.h"
#include "erank/text/tokenizer_export.h"
#include "erank/train/loss.h"
#include "tests/text/tokenizer_small.h"
#include "tests/text/yes_no_tokenizer.h"
#include "tests/train/tiny_training.h"

namespace erank::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string byte_tokenizer(const std::string& folder) {
  text::write_byte_tokenizer(320, folder);
  return folder;
}

text::Ids operator+(text::Ids a, const text::Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// In tokens: "3@17" is weight 1 on "3" in row 17.
std::string spelled(const std::vector<LossTerm>& terms, const text::Tokenizer& tokenizer) {
  std::string out;
  for (const LossTerm& term : terms) {
    EXPECT_EQ(term.weight, 1);
    EXPECT_FALSE(term.complement);
    out += tokenizer.decode({term.token}) + "@" + std::to_string(term.row) + " ";
  }
  return out;
}

class ExampleWriting : public ::testing::Test {
 protected:
  Example write(const data::TrainingPair& pair, ExampleOptions options = {}) const {
    return ExampleWriter(format_, tokenizer_, std::move(options)).write(pair);
  }
  text::Ids encode(const std::string& text) const {
    return tokenizer_.encode(text, {.parse_specials = true});
  }
  data::TrainingPair pair(int score) const {
    return {"q", "d", "why is the sky blue", "Air scatters light.", {}, score, {}, {}};
  }

  model::TestFolder folder_;
  text::Tokenizer tokenizer_ = text::Tokenizer::load(byte_tokenizer(folder_.path()));
  text::PromptFormat format_{tokenizer_, {.think_open = "<think>\n"}};
  const int close_ = static_cast<int>(format_.direct_close().size());
};

TEST_F(ExampleWriting, PromptsAreTheOnesThatServingRenders) {
  data::TrainingPair own = pair(3);
  own.instruction = "Find a proof.";
  EXPECT_EQ(write(own).prompt, format_.render("Find a proof.", own.query, own.text).ids);
  EXPECT_EQ(write(pair(3), {.default_instruction = "As the model says."}).prompt,
            format_.render("As the model says.", own.query, own.text).ids);
  EXPECT_EQ(write(own).qid, "q");
}

TEST_F(ExampleWriting, TheDirectBranchLearnsTheIntegerAndThatTheAnswerCloses) {
  const Example example = write(pair(7));
  ASSERT_EQ(example.branches.size(), 1u);
  EXPECT_EQ(example.branches[0].ids, format_.direct_close() + encode("7"));
  EXPECT_EQ(spelled(example.branches[0].terms, tokenizer_),
            base::str("7@", close_, " <@", close_ + 1, " "));
  EXPECT_EQ(example.branches[0].num_learned, 2);
  EXPECT_EQ(example.num_tokens(), std::ssize(example.prompt) + close_ + 1);
}

TEST_F(ExampleWriting, TenIsTwoDigits) {
  data::TrainingPair ten = pair(10);
  const Example direct = write(ten);
  EXPECT_EQ(direct.branches[0].ids, format_.direct_close() + encode("10"));
  EXPECT_EQ(spelled(direct.branches[0].terms, tokenizer_),
            base::str("1@", close_, " 0@", close_ + 1, " <@", close_ + 2, " "));
  ten.thought = "t";
  const Example thinking = write(ten, {.modes = Modes::kThink});
  EXPECT_THAT(tokenizer_.decode(thinking.branches[0].ids), HasSubstr("<answer>10</answer>"));
}

// What is learned is what ScoreReader reads: the scale's own answers at one row.
TEST_F(ExampleWriting, OtherScalesLearnTheirAnswersAtOneRow) {
  const text::PromptFormat three(tokenizer_, {.scale = text::Scale::kZeroToThree});
  const ExampleWriter writer(three, tokenizer_, {});
  data::TrainingPair soft = pair(2);
  EXPECT_EQ(spelled(writer.write(soft).branches[0].terms, tokenizer_),
            base::str("2@", close_, " <@", close_ + 1, " "));
  EXPECT_EQ(writer.write(soft).prompt,
            three.render(text::kDefaultInstruction, soft.query, soft.text).ids);
  soft.distribution = {0.125, 0.25, 0.5, 0.125};
  const Example example = writer.write(soft);
  EXPECT_NEAR(example.score, 0.25 + 1 + 0.375, 1e-12);
  const Branch& branch = example.branches[0];
  EXPECT_EQ(branch.ids, three.direct_close());
  ASSERT_EQ(branch.terms.size(), 4u);
  for (int k = 0; k < 4; ++k) {
    EXPECT_EQ(branch.terms[k].row, close_);
    EXPECT_EQ(branch.terms[k].token, '0' + k);
    EXPECT_EQ(branch.terms[k].weight, static_cast<float>((*soft.distribution)[k]));
  }
  EXPECT_EQ(branch.num_learned, 1);
  // A comparison of pairs reads the same row; a hard answer goes on, so it takes a branch of its
  // own.
  const Example ranked = ExampleWriter(three, tokenizer_, {.rank = true}).write(soft);
  ASSERT_EQ(ranked.branches.size(), 1u);
  ASSERT_EQ(ranked.rank_term, 4);
  ASSERT_EQ(ranked.branches[0].terms.size(), 5u);
  EXPECT_EQ(ranked.branches[0].terms[4].row, close_);
  EXPECT_EQ(ranked.branches[0].terms[4].weight, 0);
  const Example hard = ExampleWriter(three, tokenizer_, {.rank = true}).write(pair(2));
  ASSERT_EQ(hard.branches.size(), 2u);
  EXPECT_EQ(hard.rank_term, 2);
  EXPECT_EQ(hard.branches[1].ids, three.direct_close());

  text::add_yes_no(folder_.path());
  const text::Tokenizer words = text::Tokenizer::load(folder_.path());
  const text::PromptFormat yes_no(words, {.scale = text::Scale::kYesNo});
  data::TrainingPair yes = pair(1);
  yes.thought = "t";
  const Example learned = ExampleWriter(yes_no, words, {}).write(yes);
  EXPECT_EQ(spelled(learned.branches[0].terms, words),
            base::str("yes@", close_, " <@", close_ + 1, " "));
  EXPECT_THAT(words.decode(learned.branches[1].ids), HasSubstr("t</think><answer>yes</answer>"));
  EXPECT_TRUE(ExampleWriter(yes_no, words, {}).reads_back(learned));
}

TEST_F(ExampleWriting, TheThinkingBranchLearnsEverythingBehindItsOpening) {
  data::TrainingPair thoughtful = pair(4);
  thoughtful.thought = "It says <|im_end|> and <answer>9</answer>.";
  const Example example = write(thoughtful, {.modes = Modes::kThink});
  ASSERT_EQ(example.branches.size(), 1u);
  const Branch& branch = example.branches[0];
  const text::Ids whole = encode("<think>\n") + tokenizer_.encode(*thoughtful.thought) +
                          encode("</think><answer>4</answer><|im_end|>");
  EXPECT_EQ(branch.ids, text::Ids(whole.begin(), whole.end() - 1));
  const size_t opening = format_.think_open().size();
  ASSERT_EQ(branch.terms.size(), whole.size() - opening);
  for (size_t i = 0; i < branch.terms.size(); ++i) {
    EXPECT_EQ(branch.terms[i].row, static_cast<int32_t>(opening + i));
    EXPECT_EQ(branch.terms[i].token, whole[opening + i]);
    EXPECT_EQ(branch.terms[i].weight, 1);
  }
  EXPECT_EQ(branch.num_learned, std::ssize(branch.terms));
}

TEST_F(ExampleWriting, ModesChooseTheBranches) {
  data::TrainingPair thoughtful = pair(4);
  thoughtful.thought = "hm";
  const Branch direct = write(thoughtful, {.modes = Modes::kDirect}).branches.at(0);
  const Branch thinking = write(thoughtful, {.modes = Modes::kThink}).branches.at(0);
  const auto both = write(thoughtful, {.modes = Modes::kBoth}).branches;
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0].ids, direct.ids);
  EXPECT_EQ(both[1].ids, thinking.ids);
  EXPECT_NE(direct.ids, thinking.ids);
  // Without reasoning there is only the direct answer.
  for (const Modes modes : {Modes::kBoth, Modes::kDirect, Modes::kThink}) {
    const auto only = write(pair(4), {.modes = modes}).branches;
    ASSERT_EQ(only.size(), 1u);
    EXPECT_EQ(only[0].ids, direct.ids);
  }
}

// logits for every row of a branch -> its loss.
double loss_of(const Branch& branch, const at::Tensor& logits) {
  return answer_loss(logits, branch.terms).item<double>();
}

std::array<double, 11> random_distribution(base::Random& random) {
  std::array<double, 11> q{};
  double sum = 0;
  for (double& x : q) sum += x = random.below(3) == 0 ? 0 : random.uniform();
  for (double& x : q) x /= sum;
  return q;
}

TEST_F(ExampleWriting, TheSoftLossIsTheCrossEntropyWithTheDistributionThatServingReads) {
  base::Random random(3);
  for (int trial = 0; trial < 50; ++trial) {
    data::TrainingPair soft = pair(static_cast<int>(random.below(11)));
    const auto q = random_distribution(random);
    soft.distribution = q;
    const Branch branch = write(soft).branches.at(0);
    const at::Tensor logits = at::randn({close_ + 2, 300}) * 3;
    const at::Tensor p = at::softmax(logits.to(at::kDouble), 1);
    std::array<double, 10> digits{};
    for (int d = 0; d < 10; ++d) digits[d] = p[close_]['0' + d].item<double>();
    const auto read =
        text::ScoreDistribution::from_digits(digits, p[close_ + 1]['0'].item<double>(), false);
    double expected = 0;
    for (size_t i = 0; i < q.size(); ++i)
      if (q[i] > 0) expected -= q[i] * std::log(read.p[i]);
    EXPECT_NEAR(loss_of(branch, logits), expected, 1e-5 * expected);
    EXPECT_EQ(branch.num_learned, 1);
    // "1" is there when what follows it is learned.
    const bool follows = q[1] + q[10] > 0;
    EXPECT_EQ(branch.ids, follows ? format_.direct_close() + encode("1") : format_.direct_close());
  }
}

TEST_F(ExampleWriting, BehindASoftThoughtFollowsTheTeachersInteger) {
  data::TrainingPair soft = pair(10);
  soft.thought = "";
  soft.distribution = {0, 0.25, 0, 0, 0, 0, 0, 0, 0, 0.25, 0.5};
  const Branch branch = write(soft, {.modes = Modes::kThink}).branches.at(0);
  const int at = static_cast<int>((format_.think_open() + format_.think_close()).size());
  std::vector<std::tuple<int, char, float>> answer;
  for (const LossTerm& term : branch.terms)
    if (term.row >= at && term.row <= at + 2)
      answer.emplace_back(term.row - at, static_cast<char>(term.token), term.weight);
  EXPECT_THAT(answer, ElementsAre(std::tuple(0, '1', 0.75f), std::tuple(0, '9', 0.25f),
                                  std::tuple(1, '0', 1.0f), std::tuple(2, '<', 1.0f)));
  EXPECT_THAT(tokenizer_.decode(branch.ids), HasSubstr("<answer>10</answer>"));
  // "</think>" and all after it; "10" is two.
  EXPECT_EQ(branch.num_learned, std::ssize(branch.ids) + 1 - std::ssize(format_.think_open()));
}

TEST_F(ExampleWriting, HardTargetsForgetTheDistribution) {
  data::TrainingPair soft = pair(2);
  soft.distribution = {0, 0, 0.5, 0.5};
  const Branch hard = write(soft, {.soft = false}).branches.at(0);
  EXPECT_EQ(spelled(hard.terms, tokenizer_), spelled(write(pair(2)).branches[0].terms, tokenizer_));
}

TEST_F(ExampleWriting, AnAnswerIsReadBackOnlyWhereServingReadsIt) {
  const auto reads_back = [&](const std::string& thought, int score) {
    data::TrainingPair own = pair(score);
    own.thought = thought;
    const ExampleWriter writer(format_, tokenizer_, {});
    return writer.reads_back(writer.write(own));
  };
  for (const int score : {0, 1, 7, 10}) {
    EXPECT_TRUE(reads_back("It scatters 3 < 4.", score));
    EXPECT_TRUE(reads_back("", score));
    EXPECT_TRUE(reads_back("</answer> 7 <answer>7", score));  // no answer follows a reasoning
  }
  EXPECT_FALSE(reads_back("Hm.</think><answer>3</answer>", 7));
  EXPECT_FALSE(reads_back("Hm.</think> <answer> 10", 7));
  EXPECT_FALSE(reads_back("Hm.</think><answer>7", 7));  // the same integer, read too early
  // Serving stops at a newline by this file.
  const std::string file =
      folder_.write("format.json", R"({"prefix": "Q: ", "suffix": "\nA:", "stop_ids": [10]})");
  const text::PromptFormat lines(tokenizer_, {}, file);
  const ExampleWriter writer(lines, tokenizer_, {});
  data::TrainingPair own = pair(7);
  own.thought = "one line";
  EXPECT_TRUE(writer.reads_back(writer.write(own)));
  own.thought = "two\nlines";
  EXPECT_FALSE(writer.reads_back(writer.write(own)));
  own.thought = std::nullopt;
  EXPECT_TRUE(writer.reads_back(writer.write(own)));
}

TEST_F(ExampleWriting, ATokenizerWithoutADigitIsRefused) {
  base::Json json = text::small_tokenizer({});
  json["model"]["vocab"].erase("7");
  const auto odd = text::Tokenizer::from_json(json.dump());
  const std::string file = folder_.path("format.json");
  base::write_file_atomic(file, R"({"prefix": "p", "suffix": "s", "stop_ids": [1]})");
  const text::PromptFormat format(odd, {}, file);
  try {
    ExampleWriter(format, odd, {});
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("no token for \"7\""));
  }
}

}  // namespace
}  // namespace erank::train
