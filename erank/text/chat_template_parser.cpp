#include "erank/text/chat_template_parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>

#include "erank/base/error.h"

namespace erank::text::jinja {
namespace {

constexpr int kMaxNesting = 64;  // of brackets, signs and statements: bounds the reader's recursion
constexpr int kMaxExprDepth =
    256;  // of a finished expression, chains included: bounds the evaluator's

class Parser {
 public:
  explicit Parser(const std::vector<Token>& tokens) : tokens_(tokens) {}

  Body run() {
    Body body = statements();
    if (!at_end()) fail(base::str("unexpected tag '", tokens_[pos_ + 1].text, "'"));
    return body;
  }

 private:
  const std::vector<Token>& tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  int loops_ = 0;

  // One level of the reader's recursion.
  struct Level {
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) {
        parser_.fail(base::str("more than ", kMaxNesting, " levels of nesting"));
      }
    }
    ~Level() { --parser_.nesting_; }
    Parser& parser_;
  };

  const Token& now() const { return tokens_[pos_]; }
  bool at_end() const { return now().kind == TokenKind::kEnd; }
  [[noreturn]] void fail(const std::string& what) const { throw Fault{now().line, what}; }
  [[noreturn]] void fail_expected(std::string_view expected) const {
    fail(base::str("found '", now().text.substr(0, 40), "' where ", expected, " is expected"));
  }

  bool is_op(std::string_view op) const {
    return now().kind == TokenKind::kOperator && now().text == op;
  }
  bool is_word(std::string_view word) const {
    return now().kind == TokenKind::kName && now().text == word;
  }
  bool take_op(std::string_view op) {
    if (!is_op(op)) return false;
    ++pos_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (!is_word(word)) return false;
    ++pos_;
    return true;
  }
  void need_op(std::string_view op) {
    if (!take_op(op)) fail_expected(base::str("'", op, "'"));
  }
  std::string need_name() {
    if (now().kind != TokenKind::kName) fail_expected("a name");
    return tokens_[pos_++].text;
  }
  void need_block_end() {
    if (now().kind != TokenKind::kBlockEnd) fail_expected("'%}'");
    ++pos_;
  }

  // ---- statements ----

  // True at `{% word`, for any of the words.
  bool at_tag(std::initializer_list<std::string_view> words) const {
    if (now().kind != TokenKind::kBlockBegin) return false;
    const Token& next = tokens_[pos_ + 1];
    return next.kind == TokenKind::kName &&
           std::find(words.begin(), words.end(), next.text) != words.end();
  }

  // Up to a tag that ends or divides the statement around, or to the end of the template.
  Body statements() {
    const Level level(*this);
    Body body;
    while (!at_end()) {
      if (at_tag({"endif", "elif", "else", "endfor", "endset", "endgeneration"})) break;
      body.push_back(statement());
    }
    return body;
  }

  void need_tag(std::string_view word, std::string_view of, int line) {
    if (!at_tag({word})) {
      if (at_end()) throw Fault{line, base::str("'", of, "' is not closed")};
      fail(base::str("unexpected tag '", tokens_[pos_ + 1].text, "' inside '", of, "'"));
    }
    pos_ += 2;
    need_block_end();
  }

  Node statement() {
    Node node;
    node.line = now().line;
    if (now().kind == TokenKind::kText) {
      node.kind = NodeKind::kText;
      node.text = tokens_[pos_++].text;
    } else if (now().kind == TokenKind::kOutputBegin) {
      ++pos_;
      node.kind = NodeKind::kOutput;
      node.expr = tuple(true);
      if (now().kind != TokenKind::kOutputEnd) fail_expected("'}}'");
      ++pos_;
    } else {
      ++pos_;  // a block: nothing else begins outside a tag
      read_block(node);
    }
    return node;
  }

  void read_block(Node& node) {
    const std::string tag = need_name();
    if (tag == "if") {
      read_if(node);
    } else if (tag == "for") {
      read_for(node);
    } else if (tag == "set") {
      read_set(node);
    } else if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail(base::str("'", tag, "' outside a loop"));
      node.kind = tag == "break" ? NodeKind::kBreak : NodeKind::kContinue;
      need_block_end();
    } else if (tag == "generation") {
      node.kind = NodeKind::kGroup;
      need_block_end();
      node.branches.push_back({nullptr, statements()});
      need_tag("endgeneration", "generation", node.line);
    } else {
      throw Fault{node.line, base::str("the tag '", tag, "' is not known here")};
    }
  }

  void read_if(Node& node) {
    node.kind = NodeKind::kIf;
    for (bool more = true; more;) {
      ExprPtr condition = tuple(false);
      need_block_end();
      node.branches.push_back({std::move(condition), statements()});
      more = at_tag({"elif"});
      if (more) pos_ += 2;
    }
    if (at_tag({"else"})) {
      need_tag("else", "if", node.line);
      node.branches.push_back({nullptr, statements()});
    }
    need_tag("endif", "if", node.line);
  }

  void read_for(Node& node) {
    node.kind = NodeKind::kFor;
    const bool parenthesis = take_op("(");
    do {
      if (!node.targets.empty() && (is_word("in") || is_op(")"))) break;
      node.targets.push_back(need_name());
    } while (take_op(","));
    if (parenthesis) need_op(")");
    for (const std::string& target : node.targets) {
      if (target == "loop") fail("a loop's variable may not be named 'loop'");
    }
    if (!take_word("in")) fail_expected("'in'");
    node.expr = tuple(false);
    if (take_word("if")) node.filter = conditional();
    if (is_word("recursive")) fail("a recursive loop is not known here");
    need_block_end();
    ++loops_;
    node.branches.push_back({nullptr, statements()});
    --loops_;
    if (at_tag({"else"})) {
      need_tag("else", "for", node.line);
      node.branches.push_back({nullptr, statements()});
    }
    need_tag("endfor", "for", node.line);
  }

  void read_set(Node& node) {
    node.targets.push_back(need_name());
    if (take_op(".")) node.attribute = need_name();
    if (is_op(",")) fail("'set' with several names is not known here");
    if (take_op("=")) {
      node.kind = NodeKind::kSet;
      node.expr = tuple(true);
      need_block_end();
      return;
    }
    if (is_op("|")) fail("'set' as a block with a filter is not known here");
    node.kind = NodeKind::kSetBlock;
    need_block_end();
    node.branches.push_back({nullptr, statements()});
    need_tag("endset", "set", node.line);
  }

  // ---- expressions ----

  template <typename... Children>
  ExprPtr make(ExprKind kind, int line, std::string text, Children... children) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = line;
    expr->text = std::move(text);
    (expr->children.push_back(std::move(children)), ...);
    return finish(std::move(expr));
  }

  ExprPtr finish(std::unique_ptr<Expr> expr) {
    for (const ExprPtr& child : expr->children) {
      if (child) expr->depth = std::max(expr->depth, child->depth + 1);
    }
    for (const auto& [name, child] : expr->keywords) {
      expr->depth = std::max(expr->depth, child->depth + 1);
    }
    if (expr->depth > kMaxExprDepth) {
      fail(base::str("an expression of more than ", kMaxExprDepth, " levels"));
    }
    return expr;
  }

  // One expression, or several with commas between them as a tuple.
  ExprPtr tuple(bool with_conditional) {
    const int line = now().line;
    const auto item = [&] { return with_conditional ? conditional() : disjunction(); };
    ExprPtr first = item();
    if (!is_op(",")) return first;
    auto expr = std::make_unique<Expr>();
    expr->kind = ExprKind::kTuple;
    expr->line = line;
    expr->children.push_back(std::move(first));
    while (take_op(",")) {
      if (is_op(")") || now().kind == TokenKind::kOutputEnd || now().kind == TokenKind::kBlockEnd)
        break;
      expr->children.push_back(item());
    }
    return finish(std::move(expr));
  }

  ExprPtr conditional() {
    const Level level(*this);
    ExprPtr value = disjunction();
    while (is_word("if")) {
      const int line = now().line;
      ++pos_;
      ExprPtr condition = disjunction();
      ExprPtr other = take_word("else") ? conditional() : nullptr;
      value = make(ExprKind::kConditional, line, "if", std::move(value), std::move(condition),
                   std::move(other));
    }
    return value;
  }

  ExprPtr disjunction() {
    ExprPtr left = conjunction();
    while (is_word("or")) {
      const int line = tokens_[pos_++].line;
      ExprPtr right = conjunction();
      left = make(ExprKind::kOr, line, "or", std::move(left), std::move(right));
    }
    return left;
  }

  ExprPtr conjunction() {
    ExprPtr left = negation();
    while (is_word("and")) {
      const int line = tokens_[pos_++].line;
      ExprPtr right = negation();
      left = make(ExprKind::kAnd, line, "and", std::move(left), std::move(right));
    }
    return left;
  }

  ExprPtr negation() {
    if (!is_word("not")) return comparison();
    const Level level(*this);
    const int line = tokens_[pos_++].line;
    return make(ExprKind::kNot, line, "not", negation());
  }

  ExprPtr comparison() {
    const int line = now().line;
    ExprPtr first = sum();
    std::unique_ptr<Expr> chain;
    while (true) {
      std::string op;
      if (now().kind == TokenKind::kOperator) {
        static constexpr std::array<std::string_view, 6> kOps = {"==", "!=", "<", "<=", ">", ">="};
        if (std::find(kOps.begin(), kOps.end(), now().text) == kOps.end()) break;
        op = tokens_[pos_++].text;
      } else if (take_word("in")) {
        op = "in";
      } else if (is_word("not") && tokens_[pos_ + 1].kind == TokenKind::kName &&
                 tokens_[pos_ + 1].text == "in") {
        pos_ += 2;
        op = "not in";
      } else {
        break;
      }
      if (!chain) {
        chain = std::make_unique<Expr>();
        chain->kind = ExprKind::kCompare;
        chain->line = line;
        chain->children.push_back(std::move(first));
      }
      chain->ops.push_back(std::move(op));
      chain->children.push_back(sum());
    }
    return chain ? finish(std::move(chain)) : std::move(first);
  }

  // One level of binary operators, left to right.
  ExprPtr binary(std::initializer_list<std::string_view> ops, ExprPtr (Parser::*operand)()) {
    ExprPtr left = (this->*operand)();
    while (now().kind == TokenKind::kOperator &&
           std::find(ops.begin(), ops.end(), now().text) != ops.end()) {
      const Token& op = tokens_[pos_++];
      ExprPtr right = (this->*operand)();
      left = make(ExprKind::kBinary, op.line, op.text, std::move(left), std::move(right));
    }
    return left;
  }
  ExprPtr sum() { return binary({"+", "-"}, &Parser::concatenation); }
  ExprPtr concatenation() { return binary({"~"}, &Parser::product); }
  ExprPtr product() { return binary({"*", "/", "//", "%"}, &Parser::power); }
  ExprPtr power() { return binary({"**"}, &Parser::filtered); }

  ExprPtr filtered() { return filters(unary()); }

  ExprPtr unary() {
    if (!is_op("-") && !is_op("+")) return postfix(primary());
    const Level level(*this);
    const Token& sign = tokens_[pos_++];
    return postfix(make(sign.text == "-" ? ExprKind::kNegate : ExprKind::kPlus, sign.line,
                        sign.text, unary()));
  }

  ExprPtr primary() {
    const Token& token = now();
    switch (token.kind) {
      case TokenKind::kName:
        ++pos_;
        if (token.text == "true" || token.text == "True" || token.text == "false" ||
            token.text == "False") {
          return literal(ExprKind::kBool, token, token.text[0] == 't' || token.text[0] == 'T');
        }
        if (token.text == "none" || token.text == "None") return literal(ExprKind::kNone, token, 0);
        return make(ExprKind::kName, token.line, token.text);
      case TokenKind::kString: {
        std::string text;
        while (now().kind == TokenKind::kString) text += tokens_[pos_++].text;
        return make(ExprKind::kString, token.line, std::move(text));
      }
      case TokenKind::kInteger:
        ++pos_;
        return literal(ExprKind::kInteger, token, token.integer);
      case TokenKind::kFloat:
        ++pos_;
        return make(ExprKind::kFloat, token.line, token.text);
      default:
        break;
    }
    if (is_op("(")) return parenthesis();
    if (is_op("[")) return list();
    if (is_op("{")) return dict();
    fail_expected("an expression");
  }

  ExprPtr literal(ExprKind kind, const Token& token, int64_t value) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = token.line;
    expr->text = token.text;
    expr->integer = value;
    return expr;
  }

  ExprPtr parenthesis() {
    const int line = tokens_[pos_++].line;
    if (take_op(")")) return make(ExprKind::kTuple, line, "()");
    ExprPtr inner = tuple(true);
    need_op(")");
    return inner;
  }

  ExprPtr list() {
    auto expr = std::make_unique<Expr>();
    expr->kind = ExprKind::kList;
    expr->line = tokens_[pos_++].line;
    while (!take_op("]")) {
      if (!expr->children.empty()) {
        need_op(",");
        if (take_op("]")) break;
      }
      expr->children.push_back(conditional());
    }
    return finish(std::move(expr));
  }

  ExprPtr dict() {
    auto expr = std::make_unique<Expr>();
    expr->kind = ExprKind::kDict;
    expr->line = tokens_[pos_++].line;
    while (!take_op("}")) {
      if (!expr->children.empty()) {
        need_op(",");
        if (take_op("}")) break;
      }
      expr->children.push_back(conditional());
      need_op(":");
      expr->children.push_back(conditional());
    }
    return finish(std::move(expr));
  }

  ExprPtr postfix(ExprPtr value) {
    while (true) {
      const int line = now().line;
      if (take_op(".")) {
        if (now().kind == TokenKind::kInteger) {
          ExprPtr index = primary();
          value = make(ExprKind::kSubscript, line, "[]", std::move(value), std::move(index));
        } else {
          std::string name = need_name();
          value = make(ExprKind::kAttribute, line, std::move(name), std::move(value));
        }
      } else if (take_op("[")) {
        value = subscript(std::move(value), line);
      } else if (is_op("(")) {
        value = call(ExprKind::kCall, line, "()", std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr subscript(ExprPtr value, int line) {
    ExprPtr parts[3];
    int num_colons = 0;
    while (!is_op("]")) {
      if (take_op(":")) {
        if (++num_colons > 2) fail_expected("']'");
      } else if (parts[num_colons]) {
        fail_expected("']'");
      } else {
        parts[num_colons] = conditional();
      }
    }
    need_op("]");
    if (num_colons == 0 && !parts[0]) fail("'[]' is empty");
    if (num_colons == 0) {
      return make(ExprKind::kSubscript, line, "[]", std::move(value), std::move(parts[0]));
    }
    return make(ExprKind::kSlice, line, "[:]", std::move(value), std::move(parts[0]),
                std::move(parts[1]), std::move(parts[2]));
  }

  ExprPtr filters(ExprPtr value) {
    while (true) {
      const int line = now().line;
      if (take_op("|")) {
        std::string name = dotted_name();
        value = is_op("(") ? call(ExprKind::kFilter, line, std::move(name), std::move(value))
                           : make(ExprKind::kFilter, line, std::move(name), std::move(value));
      } else if (take_word("is")) {
        value = test(std::move(value), line);
      } else {
        return value;
      }
    }
  }

  std::string dotted_name() {
    std::string name = need_name();
    while (take_op(".")) name += "." + need_name();
    return name;
  }

  ExprPtr test(ExprPtr value, int line) {
    const bool negated = take_word("not");
    std::string name = dotted_name();
    if (is_op("(")) {
      value = call(ExprKind::kTest, line, std::move(name), std::move(value));
    } else if (at_operand()) {
      ExprPtr argument = postfix(primary());
      value = make(ExprKind::kTest, line, std::move(name), std::move(value), std::move(argument));
    } else {
      value = make(ExprKind::kTest, line, std::move(name), std::move(value));
    }
    return negated ? make(ExprKind::kNot, line, "not", std::move(value)) : std::move(value);
  }

  // True where a test's argument without brackets begins.
  bool at_operand() const {
    if (now().kind == TokenKind::kName) {
      static constexpr std::array<std::string_view, 7> kOperators = {"else", "or",  "and", "if",
                                                                     "in",   "not", "is"};
      return std::find(kOperators.begin(), kOperators.end(), now().text) == kOperators.end();
    }
    return now().kind == TokenKind::kString || now().kind == TokenKind::kInteger ||
           now().kind == TokenKind::kFloat || is_op("[") || is_op("{");
  }

  ExprPtr call(ExprKind kind, int line, std::string text, ExprPtr callee) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = line;
    expr->text = std::move(text);
    expr->children.push_back(std::move(callee));
    need_op("(");
    bool first = true;
    while (!take_op(")")) {
      if (!first) {
        need_op(",");
        if (take_op(")")) break;
      }
      first = false;
      if (is_op("*") || is_op("**")) fail("arguments by '*' are not known here");
      const Token& next = tokens_[pos_ + 1];
      if (now().kind == TokenKind::kName && next.kind == TokenKind::kOperator && next.text == "=") {
        std::string name = need_name();
        ++pos_;
        expr->keywords.emplace_back(std::move(name), conditional());
      } else {
        if (!expr->keywords.empty()) fail("a positional argument after a keyword argument");
        expr->children.push_back(conditional());
      }
    }
    return finish(std::move(expr));
  }
};

}  // namespace

Body parse(const std::vector<Token>& tokens) { return Parser(tokens).run(); }

}  // namespace erank::text::jinja
