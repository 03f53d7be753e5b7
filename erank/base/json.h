// JSON: nlohmann's value type behind one parser that turns every fault into an Error.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace erank::base {

using Json = nlohmann::json;                 // object keys sorted
using OrderedJson = nlohmann::ordered_json;  // object keys as written: for output that people read

// The value in `text`. `where` names the source in the message ("config.json", "docs.jsonl:12").
// Throws Error{kInvalidInput} for bad syntax, invalid UTF-8, a key given twice in one object, or
// more than `max_depth` nested arrays and objects. Thread-safe.
Json parse_json(std::string_view text, std::string_view where, int max_depth = 64);

// `text`, JSON, with each \u escape of half a surrogate pair made \ufffd: JSON's grammar allows
// such escapes, no text can hold them, and parse_json refuses them. Unchanged when there is none.
std::string replace_half_surrogates(std::string_view text);

// One line, no spaces, UTF-8 as it is; invalid UTF-8 is written as U+FFFD.
std::string dump_json(const Json& value);
std::string dump_json(const OrderedJson& value);

// Throws Error{kInvalidInput} naming the first key of `object` that is not in `known`.
void refuse_unknown_keys(const Json& object, std::initializer_list<std::string_view> known,
                         std::string_view where);

// object[key] as T, or `fallback` when the key is missing or null. Throws Error{kInvalidInput} that
// names the key when its type is wrong. T: bool, int64_t, int, double, std::string.
template <typename T>
T json_value(const Json& object, std::string_view key, T fallback, std::string_view where);

// object[key] as T; throws Error{kInvalidInput} when it is missing too.
template <typename T>
T json_require(const Json& object, std::string_view key, std::string_view where);

}  // namespace erank::base
