#include "erank/text/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

#include "erank/base/utf8.h"
#include "erank/text/white_space.h"
#include "tests/text/tokenizer_support.h"

namespace erank::text {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// An id a byte.
const Tokenizer& bytes() {
  static const Tokenizer tokenizer = Tokenizer::from_json(base::dump_json(small_tokenizer({})));
  return tokenizer;
}

std::vector<std::string> texts(std::string_view document, int max_tokens, int max_windows = 100) {
  std::vector<std::string> out;
  for (auto& window : split_windows(bytes(), document, max_tokens, max_windows).windows)
    out.push_back(window.text);
  return out;
}

TEST(Windows, EndAndBeginAtSentences) {
  EXPECT_THAT(texts("One two. Six. Seven. Eight. Nine ten.", 24),
              ElementsAre("One two. Six. Seven.", "Seven. Eight. Nine ten."));
  EXPECT_THAT(texts("He says \"no.\" He left! Why? Who knows.", 30),
              ElementsAre("He says \"no.\" He left! Why?", "Why? Who knows."));
  EXPECT_THAT(texts("a list of\nlines\nthat end", 18),
              ElementsAre("a list of\nlines", "lines\nthat end"));
  EXPECT_THAT(texts("One e.g. two etc. three", 16), ElementsAre("One e.g. two", "two etc. three"))
      << "a lower-case letter goes on with a sentence";
}

TEST(Windows, OverlapByWordsWhereASentenceIsLong) {
  EXPECT_THAT(texts("One two. Three four. Five six. Seven.", 24),
              ElementsAre("One two. Three four.", "four. Five six. Seven."));
}

TEST(Windows, EndAtWordsAndCharactersWhereThereIsNoSentence) {
  EXPECT_THAT(texts("alpha be ga delta", 12), ElementsAre("alpha be ga", "ga delta"));
  EXPECT_THAT(texts("abcdefghij", 4), ElementsAre("abcd", "defg", "ghij"));
}

TEST(Windows, AllButTheFirstBeginWithTheDocumentsFirstSentence) {
  const std::string document =
      "On bread. It needs flour. It needs water. Yeast makes it rise. Salt is for taste.";
  const auto windows = split_windows(bytes(), document, 44, 9);
  EXPECT_EQ(windows.head, "On bread.");
  ASSERT_EQ(windows.windows.size(), 4u);
  EXPECT_EQ(windows.windows[0].text, "On bread. It needs flour. It needs water.");
  EXPECT_EQ(windows.windows[1].text, "On bread. It needs water. Yeast makes it");
  EXPECT_EQ(windows.windows[1].begin, 26);
  EXPECT_EQ(windows.windows[2].text, "On bread. Yeast makes it rise.");
  EXPECT_EQ(windows.windows[3].text, "On bread. it rise. Salt is for taste.");
  EXPECT_EQ(split_windows(bytes(), "a " + document, 44, 9).head, "a On bread.");
  EXPECT_EQ(split_windows(bytes(), "A\n" + document + document + document, 200, 9).head, "A");
  EXPECT_EQ(split_windows(bytes(), document, 200, 9).head, "");
}

TEST(Windows, OfAShortDocumentThereIsOne) {
  EXPECT_THAT(texts("One. Two.", 9), ElementsAre("One. Two."));
  EXPECT_THAT(texts("  One.  ", 20), ElementsAre("One."));
  EXPECT_THAT(texts("", 4), IsEmpty());
  EXPECT_THAT(texts(" \n ", 1), IsEmpty());
}

TEST(Windows, AreAsManyAsAllowed) {
  const auto all = split_windows(bytes(), "One. Two. Three. Four.", 10, 100);
  EXPECT_TRUE(all.complete);
  EXPECT_GT(all.windows.size(), 2u);
  const auto two = split_windows(bytes(), "One. Two. Three. Four.", 10, 2);
  EXPECT_FALSE(two.complete);
  EXPECT_EQ(two.windows.size(), 2u);
  const auto just = static_cast<int>(all.windows.size());
  EXPECT_TRUE(split_windows(bytes(), "One. Two. Three. Four.", 10, just).complete);
}

TEST(Windows, OfAHugeDocumentOnlyTheBeginningIsRead) {
  const std::string huge(200 << 20, 'x');
  const auto windows = split_windows(bytes(), huge, 64, 4);
  EXPECT_FALSE(windows.complete);
  EXPECT_EQ(windows.windows.size(), 4u);
}

TEST(Windows, PlacesAreCodePoints) {
  const auto windows = split_windows(
      bytes(), "\xc3\xa4\xc3\xb6\xc3\xbc. \xe3\x81\x82\xe3\x80\x82\xe3\x81\x84.", 15, 9);
  ASSERT_EQ(windows.windows.size(), 2u);
  EXPECT_EQ(windows.windows[0].text, "\xc3\xa4\xc3\xb6\xc3\xbc. \xe3\x81\x82\xe3\x80\x82");
  EXPECT_EQ(windows.windows[0].begin, 0);
  EXPECT_EQ(windows.windows[0].end, 7);
  EXPECT_EQ(windows.windows[1].end, 9);
  EXPECT_EQ(windows.windows[1].begin, 5);
}

TEST(Windows, CoverEveryDocumentInOrder) {
  EXPECT_TRUE(rc::check("windows", [] {
    const auto letters =
        rc::gen::element<std::string>("a", "B", ".", " ", "\n", "?", "\xc3\xa9", "\xe3\x80\x82",
                                      "\xf0\x9f\x8d\x9e", ") ", "\xe3\x80\x80", "\xe2\x80\x89");
    std::string document;
    for (const auto& piece : *rc::gen::container<std::vector<std::string>>(letters))
      document += piece;
    const int max_tokens = *rc::gen::inRange(1, 50);
    const auto [head, windows, complete] = split_windows(bytes(), document, max_tokens, 1000);
    RC_ASSERT(complete);
    RC_ASSERT(static_cast<int>(head.size()) <= max_tokens / 4);
    int64_t end = 0, begin = -1;
    const auto is_space = [&](int64_t from, int64_t to) {
      const auto part = base::utf8_slice(document, from, to);
      return trim_white_space(part).empty();
    };
    for (const auto& window : windows) {
      const std::string before = head.empty() || &window == &windows[0] ? "" : head + " ";
      RC_ASSERT(window.text ==
                before + std::string(base::utf8_slice(document, window.begin, window.end)));
      RC_ASSERT(base::is_valid_utf8(window.text));
      RC_ASSERT(!window.text.empty());
      // A character of four bytes is not divided.
      RC_ASSERT(window.text.size() <= static_cast<size_t>(std::max(max_tokens, 4)));
      RC_ASSERT(window.begin > begin);
      RC_ASSERT(window.end > end);
      RC_ASSERT(window.begin <= end || is_space(end, window.begin));
      begin = window.begin, end = window.end;
    }
    RC_ASSERT(is_space(end, static_cast<int64_t>(document.size())));
  }));
}

// Where neighbouring bytes are one id, a part may have more ids than it had inside the whole.
TEST(Windows, KeepTheBudgetOfMergedIds) {
  const auto tokenizer =
      Tokenizer::from_json(base::dump_json(small_tokenizer({{"a", "b"}, {"b", "c"}, {"ab", "c"}})));
  std::string document;
  for (int i = 0; i < 300; ++i) document += "abc"[i * i % 7 % 3];
  for (const int max_tokens : {1, 2, 3, 7, 20, 40}) {
    const auto windows = split_windows(tokenizer, document, max_tokens, 1000);
    EXPECT_TRUE(windows.complete);
    for (const auto& window : windows.windows)
      EXPECT_LE(std::ssize(tokenizer.encode(window.text)), max_tokens) << window.text;
  }
}

}  // namespace
}  // namespace erank::text
