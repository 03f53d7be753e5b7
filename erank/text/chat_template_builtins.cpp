#include <algorithm>

#include "erank/base/error.h"
#include "erank/text/chat_template_eval.h"
#include "erank/text/white_space.h"

namespace erank::text::jinja {
namespace {

[[noreturn]] void refuse(const Arguments& args, std::string_view what, const std::string& name,
                         std::string_view why = "is not known here") {
  throw Fault{args.line, base::str("the ", what, " '", name, "' ", why)};
}

void check_count(const Arguments& args, size_t at_most, std::string_view what,
                 const std::string& name) {
  if (args.positional.size() > 1 + at_most) refuse(args, what, name, "has too many arguments");
  if (!args.named.empty()) {
    refuse(args, what, name,
           base::str("with the argument '", args.named[0].first, "' is not known here"));
  }
}

const std::string& text_argument(const Arguments& args, size_t i, std::string_view what,
                                 const std::string& name) {
  if (i >= args.positional.size()) refuse(args, what, name, "lacks an argument");
  const std::string* text = args.positional[i].text();
  if (!text)
    refuse(args, what, name, base::str("wants a text, found ", describe(args.positional[i])));
  return *text;
}

// `text` without characters of `set` (null: white space) at the chosen ends.
std::string_view stripped(std::string_view text, const std::string* set, bool left, bool right,
                          Budget& budget, int line) {
  if (!set) {
    if (left) text.remove_prefix(skip_white_space(text, 0));
    return right ? trim_white_space_right(text) : text;
  }
  const std::vector<std::string_view> members = characters(*set);
  std::vector<std::string_view> kept = characters(text);
  const auto in_set = [&](std::string_view c) {
    budget.spend(1 + members.size() / 16, line);
    return std::find(members.begin(), members.end(), c) != members.end();
  };
  size_t begin = 0, end = kept.size();
  while (left && begin < end && in_set(kept[begin])) ++begin;
  while (right && end > begin && in_set(kept[end - 1])) --end;
  if (begin == end) return {};
  const char* first = kept[begin].data();
  return {first, static_cast<size_t>(kept[end - 1].data() + kept[end - 1].size() - first)};
}

Value split(const std::string& text, const std::string& separator, int64_t at_most, Budget& budget,
            int line) {
  std::vector<Value> parts;
  budget.spend(text.size() * separator.size() / 1024 + 1, line);
  size_t begin = 0;
  while (at_most < 0 || static_cast<int64_t>(parts.size()) < at_most) {
    const size_t found = text.find(separator, begin);
    if (found == std::string::npos) break;
    budget.spend_text(found - begin, line);
    parts.push_back(Value{text.substr(begin, found - begin)});
    begin = found + separator.size();
  }
  parts.push_back(Value{text.substr(begin)});
  return make_list(std::move(parts), line);
}

Value split_white_space(const std::string& text, Budget& budget, int line) {
  std::vector<Value> parts;
  for (size_t pos = skip_white_space(text, 0); pos < text.size();
       pos = skip_white_space(text, pos)) {
    const size_t begin = pos;
    while (pos < text.size() && white_space_at(text, pos) == 0) ++pos;
    budget.spend_text(pos - begin, line);
    parts.push_back(Value{text.substr(begin, pos - begin)});
  }
  return make_list(std::move(parts), line);
}

Value string_method(const std::string& name, const Arguments& args, Budget& budget) {
  const std::string& text = *args.positional[0].text();
  budget.spend_text(text.size(), args.line);
  const size_t num_args = args.positional.size() - 1;
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    check_count(args, 1, "method", name);
    const bool by_set = num_args == 1 && !args.positional[1].as<None>();
    const std::string* set = by_set ? &text_argument(args, 1, "method", name) : nullptr;
    return Value{
        std::string(stripped(text, set, name != "rstrip", name != "lstrip", budget, args.line))};
  }
  if (name == "startswith" || name == "endswith") {
    check_count(args, 1, "method", name);
    const std::string& part = text_argument(args, 1, "method", name);
    if (part.size() > text.size()) return Value{false};
    const size_t at = name == "startswith" ? 0 : text.size() - part.size();
    return Value{text.compare(at, part.size(), part) == 0};
  }
  if (name == "split") {
    check_count(args, 2, "method", name);
    if (num_args == 0) return split_white_space(text, budget, args.line);
    const std::string& separator = text_argument(args, 1, "method", name);
    if (separator.empty()) refuse(args, "method", name, "wants a separator that is not empty");
    int64_t at_most = -1, storage = 0;
    if (num_args == 2) {
      const int64_t* count = integer_of(args.positional[2], storage);
      if (!count)
        refuse(args, "method", name,
               base::str("wants an integer, found ", describe(args.positional[2])));
      at_most = *count;
    }
    return split(text, separator, at_most, budget, args.line);
  }
  refuse(args, "method", name, "of a text is not known here");
}

Value dict_method(const std::string& name, const Arguments& args, Budget& budget) {
  const Dict& dict = *args.positional[0].dict();
  budget.spend(1 + dict.items.size(), args.line);
  if (name == "get") {
    check_count(args, 2, "method", name);
    const Value* found = dict.find(text_argument(args, 1, "method", name));
    if (found) return *found;
    return args.positional.size() > 2 ? args.positional[2] : Value{None{}};
  }
  if (name == "items") {
    check_count(args, 0, "method", name);
    std::vector<Value> pairs;
    for (const auto& [key, value] : dict.items) {
      budget.spend_text(key.size(), args.line);
      pairs.push_back(make_list({Value{key}, value}, args.line));
    }
    return make_list(std::move(pairs), args.line);
  }
  refuse(args, "method", name, "of a dict is not known here");
}

}  // namespace

Value call_method(const std::string& name, const Arguments& args, Budget& budget) {
  const Value& self = args.positional[0];
  if (self.text()) return string_method(name, args, budget);
  if (self.dict()) return dict_method(name, args, budget);
  refuse(args, "method", name, base::str("of ", describe(self), " is not known here"));
}

Value apply_filter(const std::string& name, const Arguments& args, Budget& budget) {
  const Value& value = args.positional[0];
  if (name == "trim") {
    check_count(args, 1, "filter", name);
    const std::string text = spell(value, args.line);
    budget.spend_text(text.size(), args.line);
    const std::string* set =
        args.positional.size() > 1 ? &text_argument(args, 1, "filter", name) : nullptr;
    return Value{std::string(stripped(text, set, true, true, budget, args.line))};
  }
  if (name == "length" || name == "count") {
    check_count(args, 0, "filter", name);
    if (value.is_undefined()) return Value{int64_t{0}};
    if (const List* list = value.list()) return Value{static_cast<int64_t>(list->items.size())};
    if (const Dict* dict = value.dict()) return Value{static_cast<int64_t>(dict->items.size())};
    if (const std::string* text = value.text()) {
      budget.spend_text(text->size(), args.line);
      return Value{static_cast<int64_t>(characters(*text).size())};
    }
    refuse(args, "filter", name, base::str("of ", describe(value), " has no meaning"));
  }
  if (name == "tojson") {
    check_count(args, 0, "filter", name);
    return Value{to_json(value, budget, args.line)};
  }
  if (name == "default" || name == "d") {
    check_count(args, 2, "filter", name);
    const bool also_false = args.positional.size() > 2 && truthy(args.positional[2]);
    if (!value.is_undefined() && !(also_false && !truthy(value))) return value;
    return args.positional.size() > 1 ? args.positional[1] : Value{std::string()};
  }
  if (name == "string") {
    check_count(args, 0, "filter", name);
    return Value{spell(value, args.line)};
  }
  refuse(args, "filter", name);
}

bool apply_test(const std::string& name, const Arguments& args, Budget& budget) {
  const Value& value = args.positional[0];
  if (name == "equalto" || name == "eq") {
    if (args.positional.size() != 2) refuse(args, "test", name, "wants one argument");
    return equal(value, args.positional[1], budget, args.line);
  }
  check_count(args, 0, "test", name);
  const bool* flag = value.as<bool>();
  const bool number = value.as<int64_t>() != nullptr;
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.as<None>() != nullptr;
  if (name == "string") return value.text() != nullptr;
  if (name == "boolean") return flag != nullptr;
  if (name == "true") return flag && *flag;
  if (name == "false") return flag && !*flag;
  if (name == "number") return number || flag;  // Python's bool is a number
  if (name == "integer") return number;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "sequence" || name == "iterable") {
    return value.text() || value.list() || value.dict() || value.is_undefined();
  }
  refuse(args, "test", name);
}

}  // namespace erank::text::jinja
