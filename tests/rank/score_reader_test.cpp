#include "erank/rank/score_reader.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "erank/base/error.h"
#include "erank/engine/engine.h"
#include "erank/text/tokenizer_export.h"
#include "tests/test_folder.h"
#include "tests/text/yes_no_tokenizer.h"

namespace erank::rank {
namespace {

text::Tokenizer byte_tokenizer(const std::string& folder) {
  text::write_byte_tokenizer(320, folder);
  return text::Tokenizer::load(folder);
}

TEST(ScoreReader, AsksForTenDigitsAndForTenAsTwoTokens) {
  const TestFolder folder;
  const ScoreReader reader(byte_tokenizer(folder.path()));
  ASSERT_EQ(reader.choices().size(), 11u);
  for (int32_t digit = 0; digit < 10; ++digit)
    EXPECT_EQ(reader.choices()[digit], text::Ids{'0' + digit});
  EXPECT_EQ(reader.choices()[10], (text::Ids{'1', '0'}));
}

TEST(ScoreReader, OneAndTenShareTheProbabilityOfTheDigitOne) {
  const TestFolder folder;
  const ScoreReader reader(byte_tokenizer(folder.path()));
  engine::Completion completion;
  completion.p_choices = {0.05, 0.5, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.4};
  completion.last_is_argmax.assign(11, false);
  completion.last_is_argmax[10] = true;
  const text::ScoreDistribution read = reader.read(completion);
  EXPECT_NEAR(read.p[10], 0.4, 1e-12);
  EXPECT_NEAR(read.p[1], 0.1, 1e-12);
  EXPECT_NEAR(read.p[2], 0.1, 1e-12);
  EXPECT_EQ(read.greedy(), 10);
  completion.last_is_argmax[10] = false;
  EXPECT_EQ(reader.read(completion).greedy(), 1);
  completion.p_choices[1] = completion.p_choices[10] = 0;
  EXPECT_EQ(reader.read(completion).p[10], 0);
}

TEST(ScoreReader, TheOtherScalesHaveATokenForEachAnswer) {
  const TestFolder folder;
  const text::Tokenizer bytes = byte_tokenizer(folder.path());
  const ScoreReader three(bytes, text::Scale::kZeroToThree);
  EXPECT_EQ(three.choices(), (std::vector<text::Ids>{{'0'}, {'1'}, {'2'}, {'3'}}));
  engine::Completion completion;
  completion.p_choices = {0.1, 0.2, 0.4, 0.1};
  completion.last_is_argmax.assign(4, false);
  const text::ScoreDistribution read = three.read(completion);
  EXPECT_EQ(read.greedy(), 2);
  EXPECT_NEAR(read.expected(), (0.2 + 0.8 + 0.3) / 0.8, 1e-12);
  EXPECT_NEAR(read.p_other, 0.2, 1e-12);

  EXPECT_THROW(ScoreReader(bytes, text::Scale::kYesNo), base::Error);  // "yes" is three tokens
  text::add_yes_no(folder.path());
  const ScoreReader words(text::Tokenizer::load(folder.path()), text::Scale::kYesNo);
  EXPECT_EQ(words.choices(), (std::vector<text::Ids>{{text::kNo}, {text::kYes}}));
  completion.p_choices = {0.3, 0.1};
  completion.last_is_argmax.assign(2, false);
  EXPECT_EQ(words.read(completion).greedy(), 0);
  EXPECT_NEAR(words.read(completion).expected(), 0.25, 1e-12);
  EXPECT_THROW(three.read(completion), base::InternalError);
}

TEST(ScoreReader, ACompletionWithoutTheElevenAnswersIsAMistake) {
  const TestFolder folder;
  const ScoreReader reader(byte_tokenizer(folder.path()));
  EXPECT_THROW(reader.read(engine::Completion{}), base::InternalError);
}

}  // namespace
}  // namespace erank::rank
