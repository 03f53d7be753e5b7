// A chat template as a tree. Part of chat_template.cpp's inside.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "erank/text/chat_template_lexer.h"

namespace erank::text::jinja {

enum class ExprKind {
  kString,
  kInteger,
  kFloat,
  kBool,
  kNone,  // literals: text, integer
  kName,  // text
  kList,
  kTuple,      // children
  kDict,       // children: key, value, key, value ...
  kAttribute,  // children[0] . text
  kSubscript,  // children[0] [ children[1] ]
  kSlice,      // children[0] [ children[1] : children[2] : children[3] ], null where left out
  kCall,       // children[0] ( children[1..] ), keywords
  kFilter,     // children[0] | text ( children[1..] ), keywords
  kTest,       // children[0] is text ( children[1..] )
  kNegate,
  kPlus,
  kNot,      // children[0]
  kBinary,   // children[0] text children[1], text one of + - * / // % ** ~
  kCompare,  // children[0] ops[0] children[1] ops[1] children[2] ...
  kAnd,
  kOr,           // children[0], children[1]
  kConditional,  // children[0] if children[1] else children[2] (null: undefined)
};

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  // 1 + the deepest child's
  std::string text;
  int64_t integer = 0;
  std::vector<ExprPtr> children;
  std::vector<std::string> ops;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
};

enum class NodeKind {
  kText,    // text
  kOutput,  // {{ expr }}
  kIf,      // branches: expr (null: else), body
  kFor,  // targets, expr = what is walked, filter (may be null); branches[0] = body, branches[1] =
         // else
  kSet,  // targets[0] [. attribute] = expr
  kSetBlock,  // targets[0] [. attribute] = the output of branches[0]
  kBreak,
  kContinue,
  kGroup,  // branches[0]: generation
};

struct Node;
using Body = std::vector<Node>;
struct Branch {
  ExprPtr condition;
  Body body;
};

struct Node {
  NodeKind kind;
  int line = 0;
  std::string text;
  std::vector<std::string> targets;
  std::string attribute;
  ExprPtr expr, filter;
  std::vector<Branch> branches;
};

// Throws Fault with the first construct that is not known, or not Jinja.
Body parse(const std::vector<Token>& tokens);

}  // namespace erank::text::jinja
