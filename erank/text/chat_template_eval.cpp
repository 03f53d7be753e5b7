#include "erank/text/chat_template_eval.h"

#include <algorithm>
#include <optional>

#include "erank/base/error.h"

namespace erank::text::jinja {
namespace {

enum class Flow { kOn, kBreak, kContinue };

class Evaluator {
 public:
  explicit Evaluator(Variables globals) {
    scopes_.push_back(std::move(globals));
    scopes_.emplace_back();
  }

  std::string run(const Body& body) {
    std::string out;
    execute(body, out);
    return out;
  }

 private:
  std::vector<Variables> scopes_;  // the innermost last; each iteration of a loop has its own
  Budget budget_;

  // ---- statements ----

  Flow execute(const Body& body, std::string& out) {
    for (const Node& node : body) {
      budget_.spend(1, node.line);
      if (const Flow flow = execute(node, out); flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  Flow execute(const Node& node, std::string& out) {
    switch (node.kind) {
      case NodeKind::kText:
        write(node.text, node.line, out);
        return Flow::kOn;
      case NodeKind::kOutput:
        write(spell(eval(*node.expr), node.line), node.line, out);
        return Flow::kOn;
      case NodeKind::kIf:
        for (const Branch& branch : node.branches) {
          if (!branch.condition || truthy(eval(*branch.condition)))
            return execute(branch.body, out);
        }
        return Flow::kOn;
      case NodeKind::kFor:
        return loop(node, out);
      case NodeKind::kSet:
        assign(node, eval(*node.expr));
        return Flow::kOn;
      case NodeKind::kSetBlock: {
        std::string text;
        const Flow flow = execute(node.branches[0].body, text);
        if (flow == Flow::kOn) assign(node, Value{std::move(text)});
        return flow;
      }
      case NodeKind::kBreak:
        return Flow::kBreak;
      case NodeKind::kContinue:
        return Flow::kContinue;
      case NodeKind::kGroup:
        return execute(node.branches[0].body, out);
    }
    ERANK_CHECK(false, "node kind ", static_cast<int>(node.kind));
  }

  void write(const std::string& text, int line, std::string& out) {
    budget_.spend_text(text.size(), line);
    out += text;
  }

  static void put(Variables& variables, const std::string& name, Value value) {
    for (auto& [known, slot] : variables) {
      if (known != name) continue;
      slot = std::move(value);
      return;
    }
    variables.emplace_back(name, std::move(value));
  }

  void refuse_namespace(const Value& value, int line) {
    if (value.as<std::shared_ptr<Namespace>>()) {
      throw Fault{line, "a namespace inside another value is not known here"};
    }
  }

  void assign(const Node& node, Value value) {
    if (node.attribute.empty()) {
      budget_.spend(1 + scopes_.back().size() / 16, node.line);
      put(scopes_.back(), node.targets[0], std::move(value));
      return;
    }
    const Value target = look_up(node.targets[0], node.line);
    const auto* space = target.as<std::shared_ptr<Namespace>>();
    if (!space) throw Fault{node.line, base::str("'set' of an attribute of ", describe(target))};
    refuse_namespace(value, node.line);
    budget_.spend(1 + (*space)->items.size() / 16, node.line);
    put((*space)->items, node.attribute, std::move(value));
  }

  // What a for statement walks.
  std::vector<Value> items_of(const Value& value, int line) {
    std::vector<Value> items;
    if (value.is_undefined()) return items;
    if (const List* list = value.list()) {
      budget_.spend(list->items.size(), line);
      return list->items;
    }
    if (const Dict* dict = value.dict()) {
      for (const auto& [key, unused] : dict->items) {
        budget_.spend_text(key.size(), line);
        items.push_back(Value{key});
      }
      return items;
    }
    if (const std::string* text = value.text()) {
      budget_.spend(text->size(), line);
      for (const std::string_view c : characters(*text)) items.push_back(Value{std::string(c)});
      return items;
    }
    throw Fault{line, base::str("a loop over ", describe(value))};
  }

  void bind(const Node& node, const Value& item) {
    if (node.targets.size() == 1) {
      put(scopes_.back(), node.targets[0], item);
      return;
    }
    const List* parts = item.list();
    if (!parts || parts->items.size() != node.targets.size()) {
      throw Fault{node.line,
                  base::str("a loop with ", node.targets.size(), " names over ", describe(item))};
    }
    for (size_t i = 0; i < node.targets.size(); ++i)
      put(scopes_.back(), node.targets[i], parts->items[i]);
  }

  Flow loop(const Node& node, std::string& out) {
    std::vector<Value> items = items_of(eval(*node.expr), node.line);
    if (node.filter) {
      std::vector<Value> kept;
      for (Value& item : items) {
        scopes_.emplace_back();
        bind(node, item);
        if (truthy(eval(*node.filter))) kept.push_back(std::move(item));
        scopes_.pop_back();
      }
      items = std::move(kept);
    }
    if (items.empty() && node.branches.size() > 1) {
      scopes_.emplace_back();
      const Flow flow = execute(node.branches[1].body, out);
      scopes_.pop_back();
      return flow;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      budget_.spend(4, node.line);
      scopes_.emplace_back();
      bind(node, items[i]);
      put(scopes_.back(), "loop", loop_value(items, i, node.line));
      const Flow flow = execute(node.branches[0].body, out);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    return Flow::kOn;
  }

  Value loop_value(const std::vector<Value>& items, size_t i, int line) {
    const auto number = [](size_t n) { return Value{static_cast<int64_t>(n)}; };
    const size_t n = items.size();
    std::vector<std::pair<std::string, Value>> entries = {
        {"index", number(i + 1)},    {"index0", number(i)},
        {"revindex", number(n - i)}, {"revindex0", number(n - i - 1)},
        {"first", Value{i == 0}},    {"last", Value{i + 1 == n}},
        {"length", number(n)}};
    if (i > 0) entries.emplace_back("previtem", items[i - 1]);
    if (i + 1 < n) entries.emplace_back("nextitem", items[i + 1]);
    return make_dict(std::move(entries), line);
  }

  // ---- expressions ----

  Value look_up(const std::string& name, int line) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      budget_.spend(scope->size() / 16, line);
      for (const auto& [known, value] : *scope) {
        if (known == name) return value;
      }
    }
    return Value{Undefined{name}};
  }

  Value eval(const Expr& expr) {
    budget_.spend(1, expr.line);
    Value value = compute(expr);
    if (const std::string* text = value.text()) budget_.spend_text(text->size(), expr.line);
    return value;
  }

  Value compute(const Expr& expr) {
    switch (expr.kind) {
      case ExprKind::kString:
        return Value{expr.text};
      case ExprKind::kInteger:
        return Value{expr.integer};
      case ExprKind::kFloat:
        throw Fault{expr.line,
                    base::str("the number ", expr.text, " with a fraction is not known here")};
      case ExprKind::kBool:
        return Value{expr.integer != 0};
      case ExprKind::kNone:
        return Value{None{}};
      case ExprKind::kName:
        return look_up(expr.text, expr.line);
      case ExprKind::kList:
      case ExprKind::kTuple: {
        std::vector<Value> items;
        for (const ExprPtr& child : expr.children) items.push_back(eval(*child));
        return make_list(std::move(items), expr.line);
      }
      case ExprKind::kDict:
        return dict(expr);
      case ExprKind::kAttribute:
        return attribute(eval(*expr.children[0]), expr.text, expr.line);
      case ExprKind::kSubscript:
        return subscript(expr);
      case ExprKind::kSlice:
        return slice(expr);
      case ExprKind::kCall:
        return call(expr);
      case ExprKind::kFilter:
        return apply_filter(expr.text, arguments(expr, eval(*expr.children[0])), budget_);
      case ExprKind::kTest:
        return Value{apply_test(expr.text, arguments(expr, eval(*expr.children[0])), budget_)};
      case ExprKind::kNegate:
      case ExprKind::kPlus:
        return signed_number(expr);
      case ExprKind::kNot:
        return Value{!truthy(eval(*expr.children[0]))};
      case ExprKind::kBinary:
        return binary(expr);
      case ExprKind::kCompare:
        return compare(expr);
      case ExprKind::kAnd: {
        Value left = eval(*expr.children[0]);
        return truthy(left) ? eval(*expr.children[1]) : left;
      }
      case ExprKind::kOr: {
        Value left = eval(*expr.children[0]);
        return truthy(left) ? left : eval(*expr.children[1]);
      }
      case ExprKind::kConditional:
        if (truthy(eval(*expr.children[1]))) return eval(*expr.children[0]);
        return expr.children[2] ? eval(*expr.children[2]) : Value{Undefined{"else"}};
    }
    ERANK_CHECK(false, "expression kind ", static_cast<int>(expr.kind));
  }

  Value dict(const Expr& expr) {
    std::vector<std::pair<std::string, Value>> items;
    for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
      const Value key = eval(*expr.children[i]);
      if (!key.text())
        throw Fault{expr.line,
                    base::str("a dict's key that is ", describe(key), " is not known here")};
      budget_.spend(1 + items.size() / 16, expr.line);
      put(items, *key.text(), eval(*expr.children[i + 1]));
    }
    return make_dict(std::move(items), expr.line);
  }

  Value attribute(const Value& object, const std::string& name, int line) {
    if (object.is_undefined())
      throw Fault{line, base::str(describe(object), " has no '", name, "'")};
    if (const Dict* dict = object.dict()) {
      budget_.spend(dict->items.size() / 16, line);
      if (const Value* found = dict->find(name)) return *found;
    } else if (const auto* space = object.as<std::shared_ptr<Namespace>>()) {
      budget_.spend((*space)->items.size() / 16, line);
      for (const auto& [known, value] : (*space)->items) {
        if (known == name) return value;
      }
    }
    return Value{Undefined{name}};
  }

  int64_t need_integer(const Value& value, int line, std::string_view what) {
    int64_t storage = 0;
    const int64_t* number = integer_of(value, storage);
    if (!number) throw Fault{line, base::str(what, " wants an integer, found ", describe(value))};
    return *number;
  }

  Value subscript(const Expr& expr) {
    const Value object = eval(*expr.children[0]);
    const Value key = eval(*expr.children[1]);
    if (const std::string* name = key.text()) return attribute(object, *name, expr.line);
    if (object.is_undefined()) throw Fault{expr.line, base::str(describe(object), " has no items")};
    int64_t index = need_integer(key, expr.line, "[]");
    if (const List* list = object.list()) {
      const auto size = static_cast<int64_t>(list->items.size());
      if (index < 0) index += size;
      if (index >= 0 && index < size) return list->items[static_cast<size_t>(index)];
    } else if (const std::string* text = object.text()) {
      budget_.spend(text->size(), expr.line);
      const auto parts = characters(*text);
      const auto size = static_cast<int64_t>(parts.size());
      if (index < 0) index += size;
      if (index >= 0 && index < size) return Value{std::string(parts[static_cast<size_t>(index)])};
    }
    return Value{Undefined{base::str("[", index, "]")}};
  }

  // The positions that Python's slice of a sequence of `size` items takes.
  std::vector<size_t> slice_positions(const Expr& expr, size_t size) {
    std::optional<int64_t> parts[3];
    for (size_t i = 0; i < 3; ++i) {
      if (!expr.children[i + 1]) continue;
      const Value value = eval(*expr.children[i + 1]);
      if (!value.as<None>()) parts[i] = need_integer(value, expr.line, "[:]");
    }
    const int64_t step = parts[2].value_or(1), n = static_cast<int64_t>(size);
    if (step == 0) throw Fault{expr.line, "a slice with step 0"};
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    const auto place = [&](const std::optional<int64_t>& part, int64_t fallback) {
      if (!part) return fallback;
      return std::clamp(*part < 0 ? *part + n : *part, low, high);
    };
    const int64_t begin = place(parts[0], step > 0 ? low : high);
    const int64_t end = place(parts[1], step > 0 ? high : low);
    const int64_t stride = std::clamp(step, -n - 1, n + 1);
    std::vector<size_t> positions;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += stride)
      positions.push_back(static_cast<size_t>(i));
    return positions;
  }

  Value slice(const Expr& expr) {
    const Value object = eval(*expr.children[0]);
    if (const List* list = object.list()) {
      budget_.spend(list->items.size(), expr.line);
      std::vector<Value> items;
      for (const size_t i : slice_positions(expr, list->items.size()))
        items.push_back(list->items[i]);
      return make_list(std::move(items), expr.line);
    }
    if (const std::string* text = object.text()) {
      budget_.spend(text->size(), expr.line);
      const auto parts = characters(*text);
      std::string out;
      for (const size_t i : slice_positions(expr, parts.size())) out += parts[i];
      return Value{std::move(out)};
    }
    throw Fault{expr.line, base::str("a slice of ", describe(object))};
  }

  Arguments arguments(const Expr& expr, Value self) {
    Arguments args;
    args.line = expr.line;
    args.positional.push_back(std::move(self));
    for (size_t i = 1; i < expr.children.size(); ++i)
      args.positional.push_back(eval(*expr.children[i]));
    for (const auto& [name, value] : expr.keywords) args.named.emplace_back(name, eval(*value));
    return args;
  }

  Value call(const Expr& expr) {
    const Expr& callee = *expr.children[0];
    if (callee.kind == ExprKind::kAttribute) {
      return call_method(callee.text, arguments(expr, eval(*callee.children[0])), budget_);
    }
    if (callee.kind != ExprKind::kName)
      throw Fault{expr.line, "a call of what is no name is not known here"};
    if (callee.text == "raise_exception") {
      const Arguments args = arguments(expr, Value{None{}});
      const std::string reason =
          args.positional.size() > 1 ? spell(args.positional[1], expr.line) : "";
      throw Fault{expr.line, base::str("the template refuses the conversation: ", reason)};
    }
    if (callee.text == "namespace" && expr.children.size() == 1) {
      auto space = std::make_shared<Namespace>();
      for (const auto& [name, child] : expr.keywords) {
        Value value = eval(*child);
        refuse_namespace(value, expr.line);
        budget_.spend(1 + space->items.size() / 16, expr.line);
        put(space->items, name, std::move(value));
      }
      return Value{std::move(space)};
    }
    throw Fault{expr.line, base::str("the function '", callee.text, "' is not known here")};
  }

  Value signed_number(const Expr& expr) {
    const int64_t number = need_integer(eval(*expr.children[0]), expr.line, "a sign");
    if (expr.kind == ExprKind::kPlus) return Value{number};
    int64_t result = 0;
    if (__builtin_sub_overflow(int64_t{0}, number, &result))
      throw Fault{expr.line, "a number is too large"};
    return Value{result};
  }

  Value binary(const Expr& expr) {
    Value left = eval(*expr.children[0]);
    const Value right = eval(*expr.children[1]);
    if (expr.text == "~") {
      std::string out = spell(left, expr.line);
      out += spell(right, expr.line);
      return Value{std::move(out)};
    }
    int64_t store_a = 0, store_b = 0;
    const int64_t* a = integer_of(left, store_a);
    const int64_t* b = integer_of(right, store_b);
    if (a && b) return arithmetic(expr, *a, *b);
    if (expr.text == "+" && left.text() && right.text()) return Value{*left.text() + *right.text()};
    if (expr.text == "+" && left.list() && right.list()) {
      std::vector<Value> items = left.list()->items;
      items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
      budget_.spend(items.size(), expr.line);
      return make_list(std::move(items), expr.line);
    }
    throw Fault{expr.line, base::str("'", expr.text, "' of ", describe(left), " and ",
                                     describe(right), " is not known here")};
  }

  Value arithmetic(const Expr& expr, int64_t a, int64_t b) {
    int64_t result = 0;
    bool overflow = false;
    if (expr.text == "+") {
      overflow = __builtin_add_overflow(a, b, &result);
    } else if (expr.text == "-") {
      overflow = __builtin_sub_overflow(a, b, &result);
    } else if (expr.text == "*") {
      overflow = __builtin_mul_overflow(a, b, &result);
    } else if (expr.text == "//" || expr.text == "%") {
      if (b == 0) throw Fault{expr.line, "a division by zero"};
      if (b == -1) {  // the smallest integer has no negative
        overflow = expr.text == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
      } else {
        const int64_t rest = (a % b != 0 && (a < 0) != (b < 0)) ? a % b + b : a % b;
        result = expr.text == "%" ? rest : a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
      }
    } else {
      throw Fault{expr.line, base::str("the operator '", expr.text, "' is not known here")};
    }
    if (overflow) throw Fault{expr.line, "a number is too large"};
    return Value{result};
  }

  Value compare(const Expr& expr) {
    Value left = eval(*expr.children[0]);
    for (size_t i = 0; i < expr.ops.size(); ++i) {
      Value right = eval(*expr.children[i + 1]);
      if (!holds(left, expr.ops[i], right, expr.line)) return Value{false};
      left = std::move(right);
    }
    return Value{true};
  }

  bool holds(const Value& left, const std::string& op, const Value& right, int line) {
    if (op == "==") return equal(left, right, budget_, line);
    if (op == "!=") return !equal(left, right, budget_, line);
    if (op == "in") return contains(right, left, line);
    if (op == "not in") return !contains(right, left, line);
    int64_t store_a = 0, store_b = 0;
    const int64_t* a = integer_of(left, store_a);
    const int64_t* b = integer_of(right, store_b);
    int order = 0;
    if (a && b) {
      order = *a < *b ? -1 : *a > *b ? 1 : 0;
    } else if (left.text() && right.text()) {
      order = left.text()->compare(*right.text());
    } else {
      throw Fault{line, base::str("'", op, "' between ", describe(left), " and ", describe(right))};
    }
    return op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
  }

  bool contains(const Value& whole, const Value& part, int line) {
    if (whole.is_undefined()) return false;
    if (const std::string* text = whole.text()) {
      if (!part.text()) throw Fault{line, base::str("'in' of ", describe(part), " and a text")};
      budget_.spend(text->size() * part.text()->size() / 1024 + 1, line);
      return text->find(*part.text()) != std::string::npos;
    }
    if (const List* list = whole.list()) {
      for (const Value& item : list->items) {
        if (equal(item, part, budget_, line)) return true;
      }
      return false;
    }
    if (const Dict* dict = whole.dict()) {
      budget_.spend(1 + dict->items.size() / 16, line);
      return part.text() && dict->find(*part.text());
    }
    throw Fault{line, base::str("'in' of ", describe(whole))};
  }
};

}  // namespace

std::string evaluate(const Body& body, Variables globals) {
  return Evaluator(std::move(globals)).run(body);
}

}  // namespace erank::text::jinja
