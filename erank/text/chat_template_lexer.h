// A chat template's source as tokens: the text between the tags with Jinja's white-space control
// applied, and what is inside the tags. Part of chat_template.cpp's inside.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace erank::text::jinja {

// What is wrong with a template, and where. Never leaves ChatTemplate, which turns it into an Error
// or a nullopt.
struct Fault {
  int line = 0;
  std::string what;
};

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // of kString and kText: the value; of the others: as written
  int64_t integer = 0;
  int line = 0;
};

// The last token is kEnd. Throws Fault.
std::vector<Token> tokenize(std::string_view source);

}  // namespace erank::text::jinja
