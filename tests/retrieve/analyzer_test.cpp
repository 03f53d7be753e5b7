#include "erank/retrieve/analyzer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/random.h"

namespace erank::retrieve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> terms(std::string_view text) { return Analyzer().analyze(text); }

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

TEST(Analyzer, TakesAnyBytes) {
  base::Random random(3);
  Analyzer analyzer;
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
  EXPECT_THAT(terms("ab\xff"
                    "cd \xc3"),
              ElementsAre("ab", "cd"));
}

}  // namespace
}  // namespace erank::retrieve
