#include "erank/base/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/utf8.h"

namespace erank::base {
namespace {

// Builds a Json and refuses what nlohmann's own builder accepts: repeated keys and deep nesting.
class StrictBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
  using Dom = nlohmann::detail::json_sax_dom_parser<Json>;

 public:
  StrictBuilder(Json& root, std::string_view where, int max_depth)
      : Dom(root, true), where_(where), max_depth_(max_depth) {}

  bool start_object(std::size_t n) {
    enter();
    keys_.emplace_back();
    return Dom::start_object(n);
  }
  bool end_object() {
    --depth_;
    keys_.pop_back();
    return Dom::end_object();
  }
  bool start_array(std::size_t n) {
    enter();
    return Dom::start_array(n);
  }
  bool end_array() {
    --depth_;
    return Dom::end_array();
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second)
      fail(ErrorKind::kInvalidInput, "json", where_, ": key '", name, "' is given twice");
    return Dom::key(name);
  }

 private:
  void enter() {
    if (++depth_ > max_depth_)
      fail(ErrorKind::kInvalidInput, "json", where_, ": nested deeper than ", max_depth_);
  }
  std::string_view where_;
  int max_depth_;
  int depth_ = 0;
  std::vector<std::set<std::string>> keys_;
};

template <typename T>
struct Reader;
template <>
struct Reader<bool> {
  static constexpr const char* kName = "true or false";
  static bool read(const Json& v, bool& out) {
    return v.is_boolean() && (out = v.get<bool>(), true);
  }
};
template <>
struct Reader<double> {
  static constexpr const char* kName = "a number";
  static bool read(const Json& v, double& out) {
    return v.is_number() && (out = v.get<double>(), true);
  }
};
template <>
struct Reader<std::string> {
  static constexpr const char* kName = "a string";
  static bool read(const Json& v, std::string& out) {
    return v.is_string() && (out = v.get<std::string>(), true);
  }
};
template <>
struct Reader<int64_t> {
  static constexpr const char* kName = "a whole number";
  static bool read(const Json& v, int64_t& out) {
    if (v.is_number_unsigned()) {
      if (v.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return false;
      out = static_cast<int64_t>(v.get<uint64_t>());
      return true;
    }
    if (v.is_number_integer()) return out = v.get<int64_t>(), true;
    if (!v.is_number_float()) return false;
    const double d = v.get<double>();
    if (d != std::floor(d) || std::abs(d) > 9e15) return false;
    return out = static_cast<int64_t>(d), true;
  }
};
template <>
struct Reader<int> {
  static constexpr const char* kName = "a whole number";
  static bool read(const Json& v, int& out) {
    int64_t wide = 0;
    if (!Reader<int64_t>::read(v, wide) || wide < std::numeric_limits<int>::min() ||
        wide > std::numeric_limits<int>::max())
      return false;
    return out = static_cast<int>(wide), true;
  }
};

// The four hexadecimal digits of the escape \uXXXX at text[i], or -1 when there is none.
int escaped_unit(std::string_view text, size_t i) {
  if (i + 6 > text.size() || text[i] != '\\' || text[i + 1] != 'u') return -1;
  int unit = 0;
  const auto [end, error] = std::from_chars(text.data() + i + 2, text.data() + i + 6, unit, 16);
  return error == std::errc() && end == text.data() + i + 6 && unit >= 0 ? unit : -1;
}

bool is_high(int unit) { return unit >= 0xd800 && unit <= 0xdbff; }
bool is_low(int unit) { return unit >= 0xdc00 && unit <= 0xdfff; }

std::string shortened(const Json& value) {
  std::string text = dump_json(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where, int max_depth) {
  Json root;
  StrictBuilder builder(root, where, max_depth);
  try {
    Json::sax_parse(text, &builder);
  } catch (const Json::exception& e) {
    std::string what =
        e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 5: ..."
    if (const auto end = what.find("] "); end != std::string::npos) what = what.substr(end + 2);
    constexpr size_t kLongest = 300;  // it quotes the whole number or string that it read last
    if (what.size() > kLongest) what = what.substr(0, utf8_prefix(what, kLongest)) + "...";
    fail(ErrorKind::kInvalidInput, "json", where, ": ", what);
  }
  return root;
}

std::string replace_half_surrogates(std::string_view text) {
  std::string out;
  size_t copied = 0;
  for (size_t i = text.find('\\'); i < text.size(); i = text.find('\\', i)) {
    const int unit = escaped_unit(text, i);
    if (is_high(unit) && is_low(escaped_unit(text, i + 6))) {
      i += 12;
    } else if (is_high(unit) || is_low(unit)) {
      out.append(text.substr(copied, i - copied)).append("\\ufffd");
      copied = i += 6;
    } else {
      i += 2;  // an escaped backslash, quote or letter
    }
    if (i >= text.size()) break;
  }
  return out.append(text.substr(std::min(copied, text.size())));
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string dump_json(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

void refuse_unknown_keys(const Json& object, std::initializer_list<std::string_view> known,
                         std::string_view where) {
  for (const auto& [key, value] : object.items()) {
    bool found = false;
    for (std::string_view k : known) found = found || k == key;
    if (found) continue;
    std::string list;
    for (std::string_view k : known) list += (list.empty() ? "" : ", ") + std::string(k);
    fail(ErrorKind::kInvalidInput, "json", where, ": unknown key '", key, "'; known: ", list);
  }
}

template <typename T>
T json_value(const Json& object, std::string_view key, T fallback, std::string_view where) {
  const auto it = object.find(std::string(key));
  if (it == object.end() || it->is_null()) return fallback;
  T out{};
  if (!Reader<T>::read(*it, out))
    fail(ErrorKind::kInvalidInput, "json", where, ": '", key, "' is ", shortened(*it),
         ", expected ", Reader<T>::kName);
  return out;
}

template <typename T>
T json_require(const Json& object, std::string_view key, std::string_view where) {
  const auto it = object.is_object() ? object.find(std::string(key)) : object.end();
  if (!object.is_object() || it == object.end() || it->is_null())
    fail(ErrorKind::kInvalidInput, "json", where, ": '", key, "' is missing, expected ",
         Reader<T>::kName);
  return json_value<T>(object, key, T{}, where);
}

#define ERANK_JSON_TYPE(T)                                                      \
  template T json_value<T>(const Json&, std::string_view, T, std::string_view); \
  template T json_require<T>(const Json&, std::string_view, std::string_view);
ERANK_JSON_TYPE(bool)
ERANK_JSON_TYPE(int)
ERANK_JSON_TYPE(int64_t)
ERANK_JSON_TYPE(double)
ERANK_JSON_TYPE(std::string)
#undef ERANK_JSON_TYPE

}  // namespace erank::base
