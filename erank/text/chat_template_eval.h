// Runs a chat template's tree. Part of chat_template.cpp's inside.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "erank/text/chat_template_parser.h"
#include "erank/text/chat_template_value.h"

namespace erank::text::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

// The template's output. Throws Fault for what is not known, wrong or too much.
std::string evaluate(const Body& body, Variables globals);

// What can be done to a value by name. `args` holds the value first. Each throws Fault for an
// unknown name.
struct Arguments {
  std::vector<Value> positional;
  Variables named;
  int line = 0;
};
Value apply_filter(const std::string& name, const Arguments& args, Budget& budget);
bool apply_test(const std::string& name, const Arguments& args, Budget& budget);
Value call_method(const std::string& name, const Arguments& args, Budget& budget);

}  // namespace erank::text::jinja
