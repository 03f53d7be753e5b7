#include "erank/text/answer_parser.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <regex>
#include <string>
#include <vector>

#include "erank/text/white_space.h"

namespace erank::text {
namespace {

constexpr int kNone = -1;

struct Case {
  const char* text;
  int value;  // kNone: unformatted
};

// What each odd answer counts as.
const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      // well-formed
      {"<think>t</think><answer>7</answer>", 7},
      {"t</think><answer>7</answer>", 7},
      {"</think><answer>7</answer>", 7},
      {"<think></think><answer>0</answer>", 0},
      {"<think>t</think><answer>10</answer>", 10},
      {"<think>t</think><answer>1</answer>", 1},
      {"<think>\nt\n</think>\n\n<answer>3</answer>", 3},
      {"<think>t</think> \t\r\n<answer>3</answer>", 3},
      {"<think>t</think><answer> 3 </answer>", 3},
      {"<think>t</think><answer>\n10\n</answer>", 10},
      {"<think>t</think><answer>3</answer>\n", 3},
      {"<think>t</think><answer>3</answer> \n\n ", 3},
      {"\n <think>t</think><answer>3</answer>", 3},
      // white space is Unicode's
      {"<think>t</think>\u00a0<answer>3</answer>", 3},
      {"<think>t</think><answer>\u30003\u2009</answer>", 3},
      {"<think>t</think>\u2028<answer>3</answer>\u0085", 3},
      {"<think>t</think><answer>\u200b3</answer>", kNone},  // zero width space is none
      {"<think>t</think>\ufeff<answer>3</answer>", kNone},
      // reasoning that looks like answers, or ends more than once
      {"<think><answer>2</answer></think><answer>5</answer>", 5},
      {"<think>a</think>b</think><answer>5</answer>", 5},
      {"<think>a</think><answer>2</answer></think><answer>5</answer>", 5},
      {"<think>a<think>b</think></think><answer>5</answer>", 5},
      {"no tag at first</think><answer>5</answer>", 5},
      {"<think>the answer is <answer>2</answer>", kNone},
      {"<think>a</think><answer>5</answer><think>b", kNone},
      {"<think>a</think><answer>5</answer><think>b</think>", kNone},
      {"<think>a</think><answer>5</answer></think>", kNone},
      // missing or broken tags
      {"", kNone},
      {"7", kNone},
      {"<answer>7</answer>", kNone},
      {"<think>t<answer>7</answer>", kNone},
      {"<think>t</think>", kNone},
      {"<think>t</think>7", kNone},
      {"<think>t</think><answer>", kNone},
      {"<think>t</think><answer>7", kNone},
      {"<think>t</think><answer>7</answer", kNone},
      {"<think>t</think><answer>7<answer>", kNone},
      {"<think>t</think><answer>7</ answer>", kNone},
      {"<think>t</think>< answer>7</answer>", kNone},
      {"<think>t</think>answer>7</answer>", kNone},
      {"<think>t</think><answer></answer>", kNone},
      {"<think>t</think><answer> </answer>", kNone},
      {"<think>t</think ><answer>7</answer>", kNone},
      {"<think>t< /think><answer>7</answer>", kNone},
      {"<think>t</THINK><answer>7</answer>", kNone},
      {"<think>t</think><ANSWER>7</ANSWER>", kNone},
      {"<think>t</think><Answer>7</Answer>", kNone},
      {"<think>t</think><answer><answer>7</answer></answer>", kNone},
      {"<think>t</think><answer>7</answer></answer>", kNone},
      {"<think>t</think><answer score=\"7\">7</answer>", kNone},
      // not an integer of the scale, as the scale spells it
      {"<think>t</think><answer>11</answer>", kNone},
      {"<think>t</think><answer>100</answer>", kNone},
      {"<think>t</think><answer>10000000000000000000000</answer>", kNone},
      {"<think>t</think><answer>-1</answer>", kNone},
      {"<think>t</think><answer>-0</answer>", kNone},
      {"<think>t</think><answer>+5</answer>", kNone},
      {"<think>t</think><answer>3.5</answer>", kNone},
      {"<think>t</think><answer>3.0</answer>", kNone},
      {"<think>t</think><answer>3.</answer>", kNone},
      {"<think>t</think><answer>07</answer>", kNone},
      {"<think>t</think><answer>00</answer>", kNone},
      {"<think>t</think><answer>010</answer>", kNone},
      {"<think>t</think><answer>1 0</answer>", kNone},
      {"<think>t</think><answer>7/10</answer>", kNone},
      {"<think>t</think><answer>seven</answer>", kNone},
      {"<think>t</think><answer>7 points</answer>", kNone},
      {"<think>t</think><answer>score: 7</answer>", kNone},
      {"<think>t</think><answer>**7**</answer>", kNone},
      {"<think>t</think><answer>\uff17</answer>", kNone},  // full-width 7
      {"<think>t</think><answer>\u0667</answer>", kNone},  // Arabic-Indic 7
      {"<think>t</think><answer>1e1</answer>", kNone},
      {"<think>t</think><answer>0x7</answer>", kNone},
      {"<think>t</think><answer>3-4</answer>", kNone},
      // something else beside the answer
      {"<think>t</think><answer>3</answer><answer>7</answer>", kNone},
      {"<think>t</think><answer>7</answer><answer>7</answer>", kNone},
      {"<think>t</think>The score is <answer>7</answer>", kNone},
      {"<think>t</think><answer>7</answer>.", kNone},
      {"<think>t</think><answer>7</answer> I hope this helps.", kNone},
      {"<think>t</think><answer>7</answer><|im_end|>", kNone},
      // a final `>` merged with what follows is one token, yet two pieces of text
      {"<think>t</think>\n\n<answer>7</answer>\n\n", 7},
      {"<think>t</think>><answer>7</answer>", kNone},
      // broken UTF-8 is text
      {"<think>\xff\xc3</think><answer>7</answer>", 7},
      {"<think>t</think>\xc2<answer>7</answer>", kNone},
      {"<think>t</think><answer>7\xe3\x80</answer>", kNone},
  };
  return all;
}

TEST(AnswerParser, DecidesEveryOddAnswerOfTheTable) {
  ASSERT_GE(cases().size(), 60u);
  const AnswerParser parser;
  for (const Case& c : cases()) {
    const auto answer = parser.parse(c.text);
    EXPECT_EQ(answer ? answer->value : kNone, c.value) << c.text;
    if (!answer) continue;
    EXPECT_EQ(std::string(c.text).substr(answer->integer_begin,
                                         answer->integer_end - answer->integer_begin),
              std::to_string(c.value))
        << c.text;
  }
}

TEST(AnswerParser, KeepsToTheScaleItWasGiven) {
  const AnswerParser zero_to_three(Scale::kZeroToThree);
  EXPECT_EQ(zero_to_three.parse("</think><answer>3</answer>")->value, 3);
  EXPECT_FALSE(zero_to_three.parse("</think><answer>4</answer>"));
  EXPECT_FALSE(zero_to_three.parse("</think><answer>10</answer>"));
  EXPECT_FALSE(zero_to_three.parse("</think><answer>yes</answer>"));
  EXPECT_EQ(AnswerParser(999).parse("</think><answer>999</answer>")->value, 999);
  EXPECT_FALSE(AnswerParser(999).parse("</think><answer>1000</answer>"));
}

TEST(AnswerParser, ReadsYesAndNoOnTheirScaleAlone) {
  const AnswerParser parser(Scale::kYesNo);
  EXPECT_EQ(parser.parse("why</think> <answer> yes </answer>\n")->value, 1);
  EXPECT_EQ(parser.parse("why</think><answer>no</answer>")->value, 0);
  EXPECT_EQ(parser.parse("why</think><answer>no</answer>")->reasoning, "why");
  for (const char* odd : {"Yes", "NO", "1", "0", "yesno", "not", "yes.", "ye", "", "maybe"})
    EXPECT_FALSE(parser.parse("</think><answer>" + std::string(odd) + "</answer>")) << odd;
  EXPECT_FALSE(AnswerParser().parse("</think><answer>yes</answer>"));
  const std::string whole = "</think><answer>\nyes";
  EXPECT_FALSE(parser.find_integer(std::string_view(whole).substr(0, whole.size() - 1)));
  EXPECT_EQ(parser.find_integer(whole), whole.size() - 3);
}

TEST(AnswerParser, ReadsTheThoughtOfFinishedAndUnfinishedText) {
  EXPECT_EQ(AnswerParser::reasoning_of("<think>\n a b \n</think>\n<answer>7</answer>"), "a b");
  EXPECT_EQ(AnswerParser::reasoning_of("a b</think><answer>7"), "a b");
  EXPECT_EQ(AnswerParser::reasoning_of("\n<think>\nstill thin"), "still thin");
  EXPECT_EQ(AnswerParser::reasoning_of("<think>a</think>b</think>"), "a</think>b");
  EXPECT_EQ(AnswerParser::reasoning_of("I write <think> in prose</think>"),
            "I write <think> in prose");
  EXPECT_EQ(AnswerParser::reasoning_of("<think></think>"), "");
  EXPECT_EQ(AnswerParser::reasoning_of(""), "");
  EXPECT_EQ(AnswerParser().parse("<think> c </think><answer>4</answer>")->reasoning, "c");
}

TEST(AnswerParser, SaysWhereTheIntegerBeginsAsSoonAsItStandsThere) {
  const std::string whole = "<think>1 or <answer>2</answer>?</think>\n<answer> 10</answer>";
  const size_t integer = whole.rfind("10");
  for (size_t size = 0; size <= whole.size(); ++size) {
    const auto begin = AnswerParser().find_integer(std::string_view(whole).substr(0, size));
    EXPECT_EQ(begin.has_value(), size > integer) << size;
    if (begin) {
      EXPECT_EQ(*begin, integer);
    }
  }
  EXPECT_FALSE(AnswerParser().find_integer("</think><answer>x7"));
  EXPECT_EQ(AnswerParser::thought_end(whole), whole.find("</think>"));
  EXPECT_EQ(AnswerParser::thought_end("<think>open"), 11u);
}

// Text of the grammar's own pieces, where chance alone would never meet it.
std::string any_answer_text() {
  return *rc::gen::map(
      rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(std::vector<std::string>{
          "<think>", "</think>", "<answer>", "</answer>", " ", "\n", "1", "0", "7", "10", "11", "-",
          ".", "x", "\u3000", "\xc3", ">", "<"})),
      [](const std::vector<std::string>& parts) {
        std::string text;
        for (const auto& part : parts) text += part;
        return text;
      });
}

TEST(AnswerParser, ParsesExactlyWhatTheGrammarDescribes) {
  EXPECT_TRUE(rc::check("the grammar as a regular expression", [] {
    const auto one_of = [](std::vector<std::string> choices) {
      return *rc::gen::elementOf(std::move(choices));
    };
    const auto junk = [] {
      return *rc::gen::inRange(0, 8) == 0 ? any_answer_text() : std::string();
    };
    std::string text = any_answer_text() + "</think>" + junk() + one_of({"", " ", "\n\t"});
    text += "<answer>" + junk() + one_of({"", " "});
    text += one_of({"0", "5", "10", "1", "11", "05", ""}) + one_of({"", "\u3000"}) + "</answer>" +
            junk();
    static const std::regex kTail("^[ \n\t]*<answer>[ \n\t]*(10|[0-9])[ \n\t]*</answer>[ \n\t]*$");
    const size_t close = text.rfind("</think>");
    std::string tail = close == std::string::npos ? "" : text.substr(close + 8);
    for (size_t at; (at = tail.find("\u3000")) != std::string::npos;) tail.replace(at, 3, " ");
    std::smatch match;
    const bool expected = std::regex_match(tail, match, kTail);
    const auto answer = AnswerParser().parse(text);
    RC_CLASSIFY(expected, "well-formed");
    RC_ASSERT(answer.has_value() == expected);
    if (expected) RC_ASSERT(answer->value == std::stoi(match[1]));
  }));
}

TEST(AnswerParser, GivesBackWhatWasWritten) {
  EXPECT_TRUE(rc::check("written, then parsed", [] {
    const auto thought = *rc::gen::arbitrary<std::string>();
    const int value = *rc::gen::inRange(0, 11);
    RC_PRE(thought.find("</think>") == std::string::npos);
    const auto answer = AnswerParser().parse("<think>" + thought + "</think><answer>" +
                                             std::to_string(value) + "</answer>");
    RC_ASSERT(answer.has_value());
    RC_ASSERT(answer->value == value);
    RC_ASSERT(answer->reasoning == trim_white_space(thought));
  }));
}

TEST(AnswerParser, ReadsARepliesReasoningFromItsFieldOrFromItsText) {
  const AnswerParser parser;
  const auto read = [&](std::string_view reasoning, std::string_view text) {
    const auto answer = parser.parse_reply(reasoning, text);
    if (!answer) return std::string("none");
    EXPECT_EQ(text.substr(answer->integer_begin, answer->integer_end - answer->integer_begin),
              std::to_string(answer->value));
    return answer->reasoning + "|" + std::to_string(answer->value);
  };
  EXPECT_EQ(read("", "<think>a</think><answer>7</answer>"), "a|7");
  EXPECT_EQ(read("", "a </think>\n<answer> 7 </answer>\n"), "a|7");
  EXPECT_EQ(read("", "\n<answer>10</answer>"), "|10");
  EXPECT_EQ(read(" r ", "<answer>0</answer>"), "r|0");
  EXPECT_EQ(read("r", "<think>a</think><answer>7</answer>"), "r|7");
  EXPECT_EQ(read(" \n", "<think>a</think><answer>7</answer>"), "a|7");
  EXPECT_EQ(read("r", "So: <answer>7</answer>"), "none");
  EXPECT_EQ(read("r", "<answer>11</answer>"), "none");
  EXPECT_EQ(read("r", ""), "none");
}

TEST(AnswerParser, TakesItsTagsOutOfReasoning) {
  EXPECT_EQ(AnswerParser::without_tags(" a <think>b</think> <answer>3</answer> "), "a b 3");
  EXPECT_EQ(AnswerParser::without_tags("</th<think>ink>"), "");
  EXPECT_EQ(AnswerParser::without_tags("a < b > c <b>"), "a < b > c <b>");
  std::string nested;
  for (int i = 0; i < 300000; ++i) nested += "<thi";
  for (int i = 0; i < 300000; ++i) nested += "nk>";
  EXPECT_EQ(AnswerParser::without_tags(nested), "");
}

TEST(AnswerParser, ReadsALongThoughtInNoTime) {
  std::string text(size_t{8} << 20, ' ');
  EXPECT_FALSE(AnswerParser().parse(text));
  text += "</think><answer>" + std::string(size_t{8} << 20, '\n') + "7</answer>";
  EXPECT_EQ(AnswerParser().parse(text)->value, 7);
}

}  // namespace
}  // namespace erank::text
