#include "erank/text/chat_template_value.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/json.h"

namespace erank::text::jinja {
namespace {

constexpr int kMaxDepth = 32;  // of lists and dicts inside each other

int depth_of(const Value& value, int line) {
  if (value.as<std::shared_ptr<Namespace>>()) {
    throw Fault{line, "a namespace inside another value is not known here"};
  }
  if (const List* list = value.list()) return list->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  return 0;
}

int depth_around(int inner, int line) {
  if (inner >= kMaxDepth)
    throw Fault{line, base::str("more than ", kMaxDepth, " values inside each other")};
  return inner + 1;
}

void write_json(const Value& value, Budget& budget, int line, std::string& out) {
  budget.spend(1, line);
  if (const std::string* text = value.text()) {
    budget.spend_text(text->size(), line);
    out += base::dump_json(base::Json(*text));
  } else if (const bool* flag = value.as<bool>()) {
    out += *flag ? "true" : "false";
  } else if (value.as<None>()) {
    out += "null";
  } else if (const int64_t* number = value.as<int64_t>()) {
    out += std::to_string(*number);
  } else if (const List* list = value.list()) {
    out += '[';
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out += ", ";
      write_json(list->items[i], budget, line, out);
    }
    out += ']';
  } else if (const Dict* dict = value.dict()) {
    out += '{';
    for (size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) out += ", ";
      write_json(Value{dict->items[i].first}, budget, line, out);
      out += ": ";
      write_json(dict->items[i].second, budget, line, out);
    }
    out += '}';
  } else {
    throw Fault{line, base::str("tojson of ", describe(value))};
  }
}

}  // namespace

const List* Value::list() const {
  const auto* pointer = as<std::shared_ptr<const List>>();
  return pointer ? pointer->get() : nullptr;
}

const Dict* Value::dict() const {
  const auto* pointer = as<std::shared_ptr<const Dict>>();
  return pointer ? pointer->get() : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name == key) return &value;
  }
  return nullptr;
}

Value make_list(std::vector<Value> items, int line) {
  int inner = 0;
  for (const Value& item : items) inner = std::max(inner, depth_of(item, line));
  const int depth = depth_around(inner, line);
  return Value{std::shared_ptr<const List>(new List{std::move(items), depth})};
}

Value make_dict(std::vector<std::pair<std::string, Value>> items, int line) {
  int inner = 0;
  for (const auto& [key, value] : items) inner = std::max(inner, depth_of(value, line));
  const int depth = depth_around(inner, line);
  return Value{std::shared_ptr<const Dict>(new Dict{std::move(items), depth})};
}

std::string describe(const Value& value) {
  if (const auto* undefined = value.as<Undefined>())
    return base::str("the undefined '", undefined->name, "'");
  if (value.as<None>()) return "none";
  if (value.as<bool>()) return "a boolean";
  if (value.as<int64_t>()) return "an integer";
  if (value.text()) return "a text";
  if (value.list()) return "a list";
  if (value.dict()) return "a dict";
  return "a namespace";
}

bool truthy(const Value& value) {
  if (value.is_undefined() || value.as<None>()) return false;
  if (const bool* flag = value.as<bool>()) return *flag;
  if (const int64_t* number = value.as<int64_t>()) return *number != 0;
  if (const std::string* text = value.text()) return !text->empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  return true;
}

const int64_t* integer_of(const Value& value, int64_t& storage) {
  if (const bool* flag = value.as<bool>()) {
    storage = *flag;
    return &storage;
  }
  return value.as<int64_t>();
}

bool equal(const Value& a, const Value& b, Budget& budget, int line) {
  budget.spend(1, line);
  int64_t store_a = 0, store_b = 0;
  const int64_t* number_a = integer_of(a, store_a);
  const int64_t* number_b = integer_of(b, store_b);
  if (number_a && number_b) return *number_a == *number_b;
  if (a.v.index() != b.v.index()) return false;
  if (const std::string* text = a.text()) {
    budget.spend_text(text->size(), line);
    return *text == *b.text();
  }
  if (const List* list = a.list()) {
    const List& other = *b.list();
    if (list->items.size() != other.items.size()) return false;
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (!equal(list->items[i], other.items[i], budget, line)) return false;
    }
    return true;
  }
  if (const Dict* dict = a.dict()) {
    const Dict& other = *b.dict();
    if (dict->items.size() != other.items.size()) return false;
    for (const auto& [key, value] : dict->items) {
      budget.spend(1 + other.items.size() / 16, line);
      const Value* found = other.find(key);
      if (!found || !equal(value, *found, budget, line)) return false;
    }
    return true;
  }
  if (const auto* space = a.as<std::shared_ptr<Namespace>>()) {
    return *space == *b.as<std::shared_ptr<Namespace>>();
  }
  return true;  // both undefined, or both none
}

std::string spell(const Value& value, int line) {
  if (value.is_undefined()) return "";
  if (value.as<None>()) return "None";
  if (const bool* flag = value.as<bool>()) return *flag ? "True" : "False";
  if (const int64_t* number = value.as<int64_t>()) return std::to_string(*number);
  if (const std::string* text = value.text()) return *text;
  throw Fault{line, base::str("writing ", describe(value), " as text is not known here")};
}

std::string to_json(const Value& value, Budget& budget, int line) {
  std::string out;
  write_json(value, budget, line, out);
  return out;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
    out.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

}  // namespace erank::text::jinja
