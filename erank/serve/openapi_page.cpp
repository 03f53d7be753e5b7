#include <algorithm>

#include "erank/base/json.h"
#include "erank/serve/openapi.h"

namespace erank::serve {
namespace {

using base::OrderedJson;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string last_part(const std::string& reference) {
  return reference.substr(reference.rfind('/') + 1);
}

// A schema's type in a few words: "text", "list of Result", "direct or think".
std::string type_of(const OrderedJson& schema) {
  if (schema.contains("$ref")) {
    const std::string name = last_part(schema["$ref"].get<std::string>());
    return "<a href=\"#" + name + "\">" + name + "</a>";
  }
  std::vector<std::string> parts;
  const auto add = [&](const std::string& part) {
    if (!part.empty() && std::find(parts.begin(), parts.end(), part) == parts.end())
      parts.push_back(part);
  };
  if (schema.contains("anyOf")) {
    bool boolean = false;
    for (const OrderedJson& choice : schema["anyOf"])
      boolean |= choice.contains("type") && choice["type"] == "boolean";
    for (const OrderedJson& choice : schema["anyOf"])
      if (!(boolean && choice.contains("enum"))) add(type_of(choice));
  }
  for (const char* key : {"enum", "const"})
    if (schema.contains(key))
      for (const OrderedJson& value :
           key == std::string("enum") ? schema[key] : OrderedJson::array({schema[key]}))
        add("<code>" + escaped(base::dump_json(value)) + "</code>");
  if (schema.contains("type")) {
    const OrderedJson types =
        schema["type"].is_array() ? schema["type"] : OrderedJson::array({schema["type"]});
    for (const OrderedJson& type : types) {
      if (type == "array")
        add(schema.contains("items") ? "list of " + type_of(schema["items"]) : "list");
      else if (type == "string")
        add("text");
      else if (type == "integer")
        add("whole number");
      else if (type != "null")
        add(type.get<std::string>());
    }
  }
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : " or ") + part;
  return all.empty() && !schema.contains("type") ? "anything" : all;  // null is no word
}

std::string fields_of(const OrderedJson& schema) {
  if (!schema.contains("properties")) return "<p>" + type_of(schema) + "</p>\n";
  const OrderedJson required = schema.value("required", OrderedJson::array());
  std::string html =
      "<table><thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead><tbody>\n";
  for (const auto& [name, field] : schema["properties"].items()) {
    html += "<tr><td><code>" + escaped(name) + "</code>";
    if (std::find(required.begin(), required.end(), name) != required.end()) html += " *";
    html += "</td><td>" + type_of(field) + "</td><td>" + escaped(field.value("description", ""));
    if (field.contains("default"))
      html += " <i>Default: " + escaped(base::dump_json(field["default"])) + "</i>";
    html += "</td></tr>\n";
  }
  return html + "</tbody></table>\n";
}

std::string operation_of(const std::string& method, const std::string& path,
                         const OrderedJson& operation) {
  std::string html = "<h3><code>" + method + " " + escaped(path) + "</code></h3>\n<p>" +
                     escaped(operation.value("summary", "")) + ". " +
                     escaped(operation.value("description", "")) + "</p>\n<table><tbody>\n";
  if (operation.contains("requestBody"))
    html += "<tr><td>request</td><td>" +
            type_of(operation["requestBody"]["content"]["application/json"]["schema"]) +
            "</td></tr>\n";
  for (const auto& [status, response] : operation["responses"].items()) {
    html += "<tr><td>" + escaped(status) + "</td><td>" + escaped(response.value("description", ""));
    for (const auto& [type, content] : response["content"].items())
      html += "<br><code>" + escaped(type) + "</code> " + type_of(content["schema"]);
    html += "</td></tr>\n";
  }
  return html + "</tbody></table>\n";
}

constexpr const char* kHead =
    R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>erank: API</title><style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8886; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
</style></head><body><main>
)";

}  // namespace

std::string openapi_page() {
  const auto document = OrderedJson::parse(openapi_json());
  std::string html = kHead;
  html += "<h1>erank: API</h1>\n<p>" + escaped(document["info"]["description"].get<std::string>()) +
          " For programs: <a href=\"/openapi.json\">openapi.json</a>. A star marks what is always "
          "there.</p>\n<h2>Routes</h2>\n";
  for (const auto& [path, methods] : document["paths"].items())
    for (const auto& [method, operation] : methods.items())
      html += operation_of(method == "post" ? "POST" : "GET", path, operation);
  html += "<h2>Objects</h2>\n";
  for (const auto& [name, schema] : document["components"]["schemas"].items())
    html += "<h3 id=\"" + escaped(name) + "\">" + escaped(name) + "</h3>\n<p>" +
            escaped(schema.value("description", "")) + "</p>\n" + fields_of(schema);
  return html + "</main></body></html>\n";
}

}  // namespace erank::serve
