#include "erank/rank/answer_watcher.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "erank/base/files.h"
#include "erank/text/tokenizer_export.h"

namespace erank::rank {
namespace {

constexpr int kThinkClose = 260, kPieceWithDigit = 300, kPieceWithReasoning = 301;

// Bytes, the markers, and two pieces that hold more than one part of an answer.
class AnswerWatcherTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string folder = ::testing::TempDir() + "/erank_answer_watcher";
    std::filesystem::create_directories(folder);
    text::write_byte_tokenizer(512, folder);
    std::string json = base::read_file(folder + "/tokenizer.json");
    const auto rename = [&](const std::string& from, const std::string& to) {
      json.replace(json.find(from), from.size(), to);
    };
    rename("\"~300\"", "\">7\"");
    rename("\"~301\"", "\"k</think><answer>3\"");
    base::write_file_atomic(folder + "/tokenizer.json", json);
    tokenizer_ = std::make_unique<text::Tokenizer>(text::Tokenizer::load(folder));
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  static text::Ids ids(const std::string& text) {
    return tokenizer_->encode(text, {.parse_specials = true});
  }

  // The verdict after each token, up to the one that stops.
  static std::vector<engine::Verdict> follow(AnswerWatcher& watcher, const text::Ids& ids) {
    std::vector<engine::Verdict> verdicts;
    for (size_t n = 1; n <= ids.size(); ++n) {
      verdicts.push_back(watcher({ids.data(), n}));
      if (verdicts.back().stop) break;
    }
    return verdicts;
  }

  static inline std::unique_ptr<text::Tokenizer> tokenizer_;
};

TEST_F(AnswerWatcherTest, StopsAtTheIntegersFirstDigitAndKeepsWhatComesBeforeIt) {
  AnswerWatcher watcher(*tokenizer_, text::Scale::kZeroToTen);
  const text::Ids written = ids("ok</think><answer>10</answer>");
  const auto verdicts = follow(watcher, written);
  ASSERT_EQ(verdicts.size(), ids("ok</think><answer>1").size());
  EXPECT_EQ(verdicts.back().keep, static_cast<int>(verdicts.size()) - 1);
  EXPECT_FALSE(verdicts.back().force);
  EXPECT_TRUE(watcher.answered());
}

TEST_F(AnswerWatcherTest, ReadsNothingFromAnIdThatTheTokenizerLacks) {
  AnswerWatcher watcher(*tokenizer_, text::Scale::kZeroToTen);
  text::Ids written = ids("ok");
  written.push_back(100000);
  follow(watcher, written);
  EXPECT_EQ(watcher.reasoning(3), "ok");
  EXPECT_EQ(watcher.reasoning(1), "o");
  EXPECT_EQ(watcher.reasoning(0), "");
}

TEST_F(AnswerWatcherTest, AsksForTheAnswerPrefixWhenATokenHoldsTheOpeningsEndAndTheInteger) {
  AnswerWatcher watcher(*tokenizer_, text::Scale::kZeroToTen);
  text::Ids written = ids("ok</think><answer");
  written.push_back(kPieceWithDigit);
  const auto verdicts = follow(watcher, written);
  ASSERT_EQ(verdicts.size(), written.size());
  EXPECT_TRUE(verdicts.back().stop);
  EXPECT_TRUE(verdicts.back().force);
  EXPECT_EQ(verdicts.back().keep, 2);  // "ok"
}

TEST_F(AnswerWatcherTest, KeepsNoTokenThatHoldsReasoningAndAnswerTogether) {
  AnswerWatcher watcher(*tokenizer_, text::Scale::kZeroToTen);
  const auto verdicts = follow(watcher, {'o', kPieceWithReasoning});
  ASSERT_EQ(verdicts.size(), 2u);
  EXPECT_TRUE(verdicts.back().force);
  EXPECT_EQ(verdicts.back().keep, 1);  // "o"
}

TEST_F(AnswerWatcherTest, GoesOnWhileThereIsNoAnswer) {
  for (const char* text : {"the answer is 7", "<answer>7</answer>", "ok</think>7",
                           "ok</think><answer>seven", "ok</think> well <answer>7"}) {
    AnswerWatcher watcher(*tokenizer_, text::Scale::kZeroToTen);
    for (const auto& verdict : follow(watcher, ids(text))) EXPECT_FALSE(verdict.stop) << text;
    EXPECT_FALSE(watcher.answered()) << text;
  }
}

TEST_F(AnswerWatcherTest, StopsAtTheWordOfTheScale) {
  AnswerWatcher watcher(*tokenizer_, text::Scale::kYesNo);
  const text::Ids written = ids("7 or yes</think><answer>no</answer>");
  const auto verdicts = follow(watcher, written);
  ASSERT_EQ(verdicts.size(), ids("7 or yes</think><answer>no").size());
  EXPECT_EQ(verdicts.back().keep, static_cast<int>(verdicts.size()) - 2);
  EXPECT_FALSE(verdicts.back().force);
}

TEST_F(AnswerWatcherTest, TakesTheAnswerAfterTheLastReasoning) {
  AnswerWatcher watcher(*tokenizer_, text::Scale::kZeroToTen);
  const text::Ids written = ids("a</think>b</think>\n<answer> 4");
  EXPECT_EQ(follow(watcher, written).size(), written.size());
  EXPECT_TRUE(watcher.answered());
}

}  // namespace
}  // namespace erank::rank
