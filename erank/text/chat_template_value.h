// The values that a chat template computes with, and the work that it may do. Part of
// chat_template.cpp's inside.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "erank/text/chat_template_lexer.h"

namespace erank::text::jinja {

// Counts a rendering's work and stops it: a unit a step of evaluation, and one for each 16 bytes or
// each item made.
class Budget {
 public:
  static constexpr size_t kUnits = size_t{1}
                                   << 18;  // some 200 are enough for one turn of a known template

  void spend(size_t units, int line) {
    if (units > left_) throw Fault{line, "the template does too much work"};
    left_ -= units;
  }
  void spend_text(size_t bytes, int line) { spend(1 + bytes / 16, line); }

 private:
  size_t left_ = kUnits;
};

struct Value;
struct List;
struct Dict;
struct Namespace;

struct Undefined {
  std::string name;  // what was looked up, for messages
};
struct None {};

// Lists and dicts are immutable and shared; a namespace can be written, but not be put into another
// value, so that no value holds itself.
struct Value {
  std::variant<Undefined, None, bool, int64_t, std::string, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>>
      v;

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&v);
  }
  const std::string* text() const { return as<std::string>(); }
  const List* list() const;
  const Dict* dict() const;
  bool is_undefined() const { return as<Undefined>() != nullptr; }
};

struct List {
  std::vector<Value> items;
  int depth = 1;
};
struct Dict {
  std::vector<std::pair<std::string, Value>> items;  // in the order written
  int depth = 1;
  const Value* find(std::string_view key) const;
};
struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

// Throws Fault when an item is a namespace or nested too deep.
Value make_list(std::vector<Value> items, int line);
Value make_dict(std::vector<std::pair<std::string, Value>> items, int line);

// "text", "list", ... for messages; of something undefined its name too.
std::string describe(const Value& value);
bool truthy(const Value& value);
bool equal(const Value& a, const Value& b, Budget& budget, int line);
// A bool counts as 0 or 1, as in Python.
const int64_t* integer_of(const Value& value, int64_t& storage);
// What {{ value }} and ~ write. Throws Fault for what only Python can spell (lists, dicts,
// namespaces).
std::string spell(const Value& value, int line);
// As json.dumps(value, ensure_ascii=False). Throws Fault for what is undefined.
std::string to_json(const Value& value, Budget& budget, int line);

// The characters of `text`, each as its bytes. A broken byte is a character.
std::vector<std::string_view> characters(std::string_view text);

}  // namespace erank::text::jinja
