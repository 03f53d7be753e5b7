#include "erank/retrieve/analyzer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "erank/base/random.h"

namespace erank::retrieve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> terms(std::string_view text, AnalyzerKind kind = AnalyzerKind::kEnglish) {
  return Analyzer(kind).analyze(text);
}

TEST(Analyzer, LowersStemsAndLeavesStopWordsOut) {
  EXPECT_THAT(terms("The Running dogs ARE happily in a relational database"),
              ElementsAre("run", "dog", "happili", "relat", "databas"));
  EXPECT_THAT(terms("the of and a"), IsEmpty());
  EXPECT_THAT(terms(""), IsEmpty());
}

TEST(Analyzer, TakesPossessivesOffAndKeepsInnerApostrophes) {
  EXPECT_THAT(terms("Newton's laws, Newton\u2019s LAWS' O'Neil's don't"),
              ElementsAre("newton", "law", "newton", "law", "o'neil", "don't"));
  EXPECT_THAT(terms("'s 'quoted'"), ElementsAre("s", "quot"));
}

TEST(Analyzer, BreaksWordsAsUnicodeDoes) {
  EXPECT_THAT(terms("1,000.5 items; 3.14, x.y e-mail a:b 12:30 1.a"),
              ElementsAre("1,000.5", "item", "3.14", "x.y", "e", "mail", "a:b", "12", "30", "1"));
  EXPECT_THAT(terms("snake_case_name __ _x 3d covid19 U.S.A. C++"),
              ElementsAre("snake_case_nam", "_x", "3d", "covid19", "u.s.a", "c"));
  EXPECT_THAT(terms("end. Next,word;other"), ElementsAre("end", "next", "word", "other"));
}

TEST(Analyzer, ReadsOtherScripts) {
  EXPECT_THAT(terms("\u00dcBER na\u00efve \u0394\u0395\u039b\u03a4\u0391 \u041c\u0438\u0440"),
              ElementsAre("\u00fcber", "na\u00efv", "\u03b4\u03b5\u03bb\u03c4\u03b1",
                          "\u043c\u0438\u0440"));
  EXPECT_THAT(terms("e\u0301te \u65e5\u672c \u3072\u3089 \u30ab\u30bf"),
              ElementsAre("e\u0301t", "\u65e5", "\u672c", "\u3072", "\u3089", "\u30ab\u30bf"));
  EXPECT_THAT(terms("dash\u2014dash \u201cquoted\u201d 5\u00b0C"),
              ElementsAre("dash", "dash", "quot", "5", "c"));
}

TEST(Analyzer, TakesPictographsAsWords) {
  EXPECT_THAT(
      terms("Copyright \u00a9 2010 Acme\u00ae x\u2122y \u263a # * a\u00b2"),
      ElementsAre("copyright", "\u00a9", "2010", "acm", "\u00ae", "x", "\u2122", "y", "\u263a"));
  // With a variation selector, a skin tone, joined by U+200D.
  EXPECT_THAT(terms("\u2764\ufe0f\U0001f44d\U0001f3fd \U0001f469\u200d\U0001f52c\U0001f600"),
              ElementsAre("\u2764\ufe0f", "\U0001f44d\U0001f3fd", "\U0001f469\u200d\U0001f52c",
                          "\U0001f600"));
}

TEST(Analyzer, StemsAsPortersAuthorLaterDid) {
  EXPECT_THAT(
      terms("technology technologies technological biology possibly possible assembly us ties"),
      ElementsAre("technolog", "technolog", "technolog", "biologi", "possibl", "possibl", "assembl",
                  "us", "ti"));
}

TEST(Analyzer, CutsVeryLongWords) {
  const auto out = terms(std::string(1000, 'x'));
  ASSERT_EQ(out.size(), 4u);
  EXPECT_EQ(out[0].size(), 255u);
  EXPECT_EQ(out[3].size(), 235u);
}

TEST(Analyzer, KeepsWordsBetweenWhiteSpaceAsTheyAre) {
  EXPECT_THAT(terms("The  dogs'\tU.S.A.,\n\u3000\u00dcber\u00a0x ##a ", AnalyzerKind::kWhitespace),
              ElementsAre("The", "dogs'", "U.S.A.,", "\u00dcber\u00a0x", "##a"));
  EXPECT_THAT(terms(" \n", AnalyzerKind::kWhitespace), IsEmpty());
  EXPECT_THAT(terms(std::string(300, 'x'), AnalyzerKind::kWhitespace),
              ElementsAre(std::string(300, 'x')));
}

TEST(Analyzer, LowersWordsAndPairsNeighboursOfUnicode) {
  EXPECT_THAT(
      terms("The Running dogs' e-mail, O'Neil's 1,000.5 snake_case", AnalyzerKind::kUnicode),
      ElementsAre("the", "running", "dogs", "e", "mail", "o'neil's", "1,000.5", "snake_case"));
  EXPECT_THAT(terms("STRA\u00dfE \u041c\u0418\u0420 na\u00cfve", AnalyzerKind::kUnicode),
              ElementsAre("stra\u00dfe", "\u043c\u0438\u0440", "na\u00efve"));
  // Two Han signs and two of Hiragana in a row; Katakana; Hangul; one sign alone between words.
  EXPECT_THAT(terms("\u65e5\u672c\u3072\u3089 \u30ab\u30bf\u30ab \ud55c\uad6d\uc5b4 abc\u65e5def",
                    AnalyzerKind::kUnicode),
              ElementsAre("\u65e5\u672c", "\u672c\u3072", "\u3072\u3089", "\u30ab\u30bf",
                          "\u30bf\u30ab", "\ud55c\uad6d", "\uad6d\uc5b4", "abc", "\u65e5", "def"));
  // Hindi with vowel signs, Arabic, Hebrew and Thai stay whole words.
  EXPECT_THAT(terms("\u0939\u093f\u0928\u094d\u0926\u0940 \u0643\u062a\u0627\u0628 "
                    "\u05e1\u05e4\u05e8 \u0e17\u0e35\u0e48",
                    AnalyzerKind::kUnicode),
              ElementsAre("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0643\u062a\u0627\u0628",
                          "\u05e1\u05e4\u05e8", "\u0e17\u0e35\u0e48"));
}

TEST(Analyzer, SaysWhereATermIsInTheText) {
  const std::string text = "The Dog's  running \u65e5\u672c\u8a9e";
  std::vector<std::pair<std::string, std::string>> found;
  for (auto kind : {AnalyzerKind::kEnglish, AnalyzerKind::kUnicode})
    Analyzer(kind).analyze(text, [&](std::string_view term, std::string_view written) {
      EXPECT_GE(written.data(), text.data());
      EXPECT_LE(written.data() + written.size(), text.data() + text.size());
      found.emplace_back(term, written);
    });
  using Pair = std::pair<std::string, std::string>;
  EXPECT_THAT(
      found,
      ElementsAre(Pair("dog", "Dog's"), Pair("run", "running"), Pair("\u65e5", "\u65e5"),
                  Pair("\u672c", "\u672c"), Pair("\u8a9e", "\u8a9e"), Pair("the", "The"),
                  Pair("dog's", "Dog's"), Pair("running", "running"),
                  Pair("\u65e5\u672c", "\u65e5\u672c"), Pair("\u672c\u8a9e", "\u672c\u8a9e")));
}

TEST(Analyzer, KindsHaveNames) {
  for (auto kind : {AnalyzerKind::kEnglish, AnalyzerKind::kWhitespace, AnalyzerKind::kUnicode})
    EXPECT_EQ(parse_analyzer_kind(analyzer_name(kind)), kind);
  EXPECT_THROW(parse_analyzer_kind("german"), base::Error);
}

TEST(Analyzer, RemembersStemsWithoutMixingThemUp) {
  std::vector<std::string> words, expected;
  for (int i = 0; i < 600; ++i) {
    words.push_back(
        base::str("cat", char('a' + i % 26), char('a' + i / 26), i % 2 ? "ies" : "ing"));
    expected.push_back(terms(words.back()).at(0));
  }
  Analyzer one;
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < words.size(); ++i)
      ASSERT_EQ(one.analyze(words[i]), std::vector{expected[i]});
    for (int i = 0; i < 30000; ++i) {  // more than it remembers
      const std::string word = base::str("running", i);
      ASSERT_EQ(one.analyze(word), std::vector{word});
    }
  }
}

TEST(Analyzer, TakesAnyBytes) {
  for (auto kind : {AnalyzerKind::kEnglish, AnalyzerKind::kWhitespace, AnalyzerKind::kUnicode}) {
    base::Random random(3);
    Analyzer analyzer(kind);
    size_t num_bytes = 0;
    for (int round = 0; round < 2000; ++round) {
      std::string text;
      for (uint64_t n = random.below(40); n > 0; --n)
        text += static_cast<char>(random.below(4) ? 'a' + random.below(6) : random.below(256));
      for (const auto& term : analyzer.analyze(text)) {
        EXPECT_FALSE(term.empty());
        num_bytes += term.size();
      }
    }
    EXPECT_GT(num_bytes, 10000u);
  }
  EXPECT_THAT(terms("ab\xff"
                    "cd \xc3"),
              ElementsAre("ab", "cd"));
}

}  // namespace
}  // namespace erank::retrieve
