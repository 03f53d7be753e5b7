#include "erank/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "tests/shared_data.h"

namespace erank::text {
namespace {

using ::testing::HasSubstr;

const base::Json& golden() {
  static const base::Json all = base::parse_json(
      base::read_file(std::string(ERANK_SOURCE_DIR) + "/tests/golden/prompt.json"), "prompt.json");
  return all["templates"];
}

ChatConversation conversation_of(const base::Json& entry) {
  ChatConversation conversation;
  for (const auto& message : entry["messages"])
    conversation.messages.push_back({message[0], message[1]});
  conversation.add_generation_prompt = entry["add_generation_prompt"];
  conversation.eos_token = "<|im_end|>";
  return conversation;
}

void expect_renders_as_the_reference(const std::string& name, const std::string& source) {
  const ChatTemplate chat(source);
  ASSERT_GE(golden()[name]["rendered"].size(), 10u);
  for (const auto& entry : golden()[name]["rendered"]) {
    EXPECT_EQ(chat.render(conversation_of(entry)), entry["text"].get<std::string>())
        << name << entry["messages"];
  }
}

// "" for a template that the repository may not hold and this machine does not have.
std::string source_of(const std::string& name) {
  if (golden()[name].contains("source")) return golden()[name]["source"];
  if (name == "qwen2") {
    const std::string path =
        erank::testing::shared_data("qwen-tokenizer/tokenizer_config.qwen2.json");
    return path.empty()
               ? ""
               : base::parse_json(base::read_file(path), path)["chat_template"].get<std::string>();
  }
  const std::string path =
      erank::testing::shared_data("qwen-tokenizer/chat_template." + name + ".jinja.txt");
  return path.empty() ? "" : base::read_file(path);
}

class ChatTemplateGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(ChatTemplateGolden, RendersAsTransformersDoes) {
  const std::string source = source_of(GetParam());
  if (source.empty()) GTEST_SKIP() << "needs qwen-tokenizer of the shared data";
  expect_renders_as_the_reference(GetParam(), source);
}

INSTANTIATE_TEST_SUITE_P(Templates, ChatTemplateGolden,
                         ::testing::Values("qwen2", "qwen2_5", "qwen3", "qwen3_instruct_2507",
                                           "human_assistant", "exercise"));

// The rendering of one user turn "hi", or the error's text.
std::string rendered(const std::string& source) {
  try {
    return ChatTemplate(source).render(
        {.messages = {{"user", "hi"}}, .bos_token = "<s>", .eos_token = "</s>"});
  } catch (const base::Error& error) {
    EXPECT_EQ(error.kind(), base::ErrorKind::kInvalidInput);
    EXPECT_THAT(error.what(), HasSubstr("--prompt-format FILE"));
    return error.what();
  }
}

TEST(ChatTemplate, ControlsWhiteSpaceAsTransformersSetsIt) {
  EXPECT_EQ(rendered("a\n  {% if 1 %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(rendered("a {% if 1 %} b {% endif %} c"), "a  b  c");
  EXPECT_EQ(rendered("a \n\t {%- if 1 -%} \n b \n {%- endif -%} \n c"), "abc");
  EXPECT_EQ(rendered("a\n  {{ 'x' }}\n b"), "a\n  x\n b");
  EXPECT_EQ(rendered("a\n  {%+ if 1 +%}\nb{% endif %}"), "a\n  \nb");
  EXPECT_EQ(rendered("a\n  {# note #}\nb"), "a\nb");
  EXPECT_EQ(rendered("a {#- note -#} b{#-#} c"), "ab c");
  EXPECT_EQ(rendered("a\r\nb\rc\n\n"), "a\nb\nc\n");
  EXPECT_EQ(rendered("{ {a} }} %} #}"), "{ {a} }} %} #}");
}

TEST(ChatTemplate, KeepsTheScopesOfJinja) {
  EXPECT_EQ(
      rendered(
          "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }}"),
      "15151");
  EXPECT_EQ(rendered("{% if 1 %}{% set x = 2 %}{% endif %}{{ x }}"), "2");
  EXPECT_EQ(rendered("{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = n.x + 1 %}{% "
                     "endfor %}{{ n.x }}"),
            "2");
  EXPECT_EQ(
      rendered(
          "{% for i in [] %}x{% else %}none{% endfor %}{{ i is defined }}{{ loop is defined }}"),
      "noneFalseFalse");
  EXPECT_EQ(rendered("{% for i in [1,2] %}{% for j in 'ab' %}{{ loop.index }}{% endfor %}{{ "
                     "loop.index }}{% endfor %}"),
            "121122");
}

TEST(ChatTemplate, ReadsWhatStandsInBranchesNotTaken) {
  EXPECT_EQ(rendered("{% if tools %}{{ tools | map('upper') | join(sep=', ') }}{{ x.y.z(1, "
                     "a=2)[3:4] }}{{ 1.5 ** 2 / 3 }}"
                     "{% for a, b in t if a is divisibleby 3 %}{{ strftime_now('%d') }}{% endfor "
                     "%}{% endif %}ok"),
            "ok");
}

TEST(ChatTemplate, RefusesByNameAndLineWhatItDoesNotKnow) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\n\n{% macro f(x) %}{% endmacro %}", "line 3: the tag 'macro' is not known here"},
      {"{% include 'x' %}", "the tag 'include'"},
      {"{% raw %}{{{% endraw %}", "the tag 'raw'"},
      {"\n{{ 'x' | upper }}", "line 2: the filter 'upper' is not known here"},
      {"{{ [1] | tojson(indent=2) }}", "the filter 'tojson' with the argument 'indent'"},
      {"{{ 3 is divisibleby 3 }}", "the test 'divisibleby'"},
      {"{{ 'x'.upper() }}", "the method 'upper' of a text"},
      {"{{ messages.append(1) }}", "the method 'append' of a list"},
      {"{{ strftime_now('%d') }}", "the function 'strftime_now'"},
      {"{{ 1.5 }}", "the number 1.5 with a fraction"},
      {"{{ 3 / 2 }}", "the operator '/'"},
      {"{{ 'a' % 2 }}", "'%' of a text and an integer"},
      {"{{ messages }}", "writing a list as text"},
      {"{% set a, b = 1, 2 %}", "'set' with several names"},
      {"{% for x in y recursive %}{% endfor %}", "a recursive loop"},
      {"{{ f(*x) }}", "arguments by '*'"},
      {"{{ raise_exception('only pairs') }}", "the template refuses the conversation: only pairs"},
  };
  for (const auto& [source, message] : cases)
    EXPECT_THAT(rendered(source), HasSubstr(message)) << source;
}

TEST(ChatTemplate, RefusesWhatIsNoTemplate) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{% if 1 %}", "'if' is not closed"},
      {"{% if 1 %}{% endfor %}", "unexpected tag 'endfor' inside 'if'"},
      {"{% endif %}", "unexpected tag 'endif'"},
      {"{{ 'x }}", "a text is not closed"},
      {"{{ x", "'{{' is not closed"},
      {"{# x", "'{#' is not closed"},
      {"{{ }}", "where an expression is expected"},
      {"{{ a b }}", "found 'b' where '}}' is expected"},
      {"{{ (1 }}", "unexpected '}'"},
      {"{{ a ? b }}", "unexpected character '?'"},
      {"{{ '\\xZZ' }}", "wants 2 hex digits"},
      {"{% break %}", "'break' outside a loop"},
      {"{{ x.y }}", "the undefined 'x' has no 'y'"},
      {"{{ 'a' + x }}", "'+' of a text and the undefined 'x'"},
      {"{{ 1 < 'a' }}", "'<' between an integer and a text"},
      {"{{ 1 // 0 }}", "a division by zero"},
      {"{{ [1][::0] }}", "a slice with step 0"},
      {"{% for a, b in [[1]] %}{% endfor %}", "a loop with 2 names"},
      {"{% set x.y = 1 %}", "'set' of an attribute of the undefined 'x'"},
  };
  for (const auto& [source, message] : cases)
    EXPECT_THAT(rendered(source), HasSubstr(message)) << source;
}

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(ChatTemplate, BoundsTheWorkOfHostileTemplates) {
  const std::string nest = "[[[[[[[[[[1,2],3],4],5],6],7],8],9],10],11]";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {repeated("{% for i in 'aaaaaaaaaaaaaaaaaaaa' %}", 8) + repeated("{% endfor %}", 8),
       "too much work"},
      {"{% set n = namespace(s='aaaaaaaa') %}{% for i in 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}"
       "{% set n.s = n.s + n.s %}{% endfor %}",
       "too much work"},
      {"{% set n = namespace(l=[1]) %}{% for i in 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}"
       "{% set n.l = n.l + n.l %}{% endfor %}",
       "too much work"},
      {"{% set n = namespace(l=[1]) %}{% for i in "
       "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}"
       "{% set n.l = [n.l, n.l] %}{% endfor %}",
       "values inside each other"},
      {"{% set n = namespace(l=[1]) %}{% for i in 'aaaaaaaaaaaaaaaaaaaaaaaa' %}"
       "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l | tojson }}",
       "too much work"},
      {"{% set n = namespace() %}{% set n.n = n %}", "a namespace inside another value"},
      {"{{ " + repeated("(", 5000) + repeated(")", 5000) + " }}", "levels of nesting"},
      {"{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}", "levels of nesting"},
      {"{{ " + repeated("not ", 50000) + "1 }}", "levels of nesting"},
      {"{{ " + repeated("-", 1000) + "1 }}", "levels of nesting"},
      {"{{ 1" + repeated("+1", 50000) + " }}", "levels"},
      {"{{ a" + repeated(".a", 50000) + " }}", "levels"},
      {"{{ 'a'" + repeated("|trim", 40000) + " }}", "levels"},
      {"{{ " + repeated("1 if 1 else ", 10000) + "2 }}", "levels of nesting"},
      {repeated("{% if 1 %}", 20000), "levels of nesting"},
      {std::string(size_t{1} << 20, 'x'), "bytes"},
      {"{{ 99999999999999999999999 }}", "too large"},
      {"{% set n = namespace(i=3) %}{% for i in 'aaaaaaaaaaaaaaaaaaaa' %}{% set n.i = n.i * n.i "
       "%}{% endfor %}",
       "too large"},
  };
  for (const auto& [source, message] : cases) {
    EXPECT_THAT(rendered(source), HasSubstr(message)) << source.substr(0, 100);
  }
  EXPECT_EQ(rendered("{{ " + nest + " | length }}"), "2");
}

TEST(ChatTemplate, SaysNothingWhereAConversationNeedNotBeKnown) {
  const ChatTemplate chat("{{ messages[1].content | upper }}");
  EXPECT_FALSE(chat.try_render({.messages = {{"user", "a"}, {"assistant", "b"}}}));
  EXPECT_EQ(ChatTemplate("{{ messages[0].content }}").try_render({.messages = {{"user", "a"}}}),
            "a");
}

// The pieces of which templates are made, in any order.
std::string any_template() {
  static const std::vector<std::string> kPieces = {
      "{{ ",        " }}",      "{% ",        " %}",
      "{%- ",       " -%}",     "{# ",        " #}",
      "if ",        "else",     "elif ",      "endif",
      "for ",       "endfor",   "in ",        "set ",
      "endset",     "= ",       "x",          "messages",
      ".content",   "['role']", "[0]",        "[::-1]",
      "(",          ")",        "[",          "]",
      "{",          "}",        ",",          ":",
      "|",          "trim",     "length",     "tojson",
      "is ",        "not ",     "defined",    "string",
      "and ",       "or ",      "+",          "-",
      "~",          "'a'",      "1",          "loop.index0",
      "namespace(", "ns.a ",    "split('a')", "\n",
      " text ",     "\xff",     "true",       "raise_exception('x')"};
  const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(kPieces));
  std::string text;
  for (const auto& part : parts) text += part;
  return text;
}

TEST(ChatTemplate, RendersOrRefusesAnyTextWithoutHarm) {
  EXPECT_TRUE(rc::check("any template", [] {
    const std::string source = any_template();
    try {
      const ChatTemplate chat(source);
      const ChatConversation conversation = {.messages = {{"user", "hi"}}};
      const auto text = chat.try_render(conversation);
      if (text) RC_ASSERT(*text == chat.render(conversation));
    } catch (const base::Error& error) {
      RC_ASSERT(std::string(error.what()).find("--prompt-format") != std::string::npos);
    }
  }));
}

}  // namespace
}  // namespace erank::text
