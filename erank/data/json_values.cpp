#include "erank/data/json_values.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/utf8.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::in_quotes;
using base::Json;

constexpr const char* kWhere = "read_records";
constexpr std::string_view kBlanks = " \t\r\n";

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlanks) == text.npos; }

JsonValue parse(std::string_view text, const Place& place, ReadNotes* notes) {
  JsonValue out{{}, place};
  std::string repaired;
  if (!base::is_valid_utf8(text)) {
    text = repaired = base::sanitize_utf8(text);
    out.repaired = true;
  }
  if (text.find("\\ud") != text.npos || text.find("\\uD") != text.npos) {
    std::string whole = base::replace_half_surrogates(text);
    out.repaired |= whole != text;
    repaired = std::move(whole);
    text = repaired;
  }
  out.value = base::parse_json(text, place.str());
  if (out.repaired && notes) ++notes->repaired;
  return out;
}

// Cuts a file that is one JSON array into the texts of its elements.
class ArrayCutter {
 public:
  ArrayCutter(const ByteSource& source, ReadNotes* notes,
              const std::function<void(const JsonValue&)>& take)
      : source_(source), notes_(notes), take_(take) {}

  void add(std::string_view piece) {
    size_t begin = depth_ > 0 ? 0 : piece.size();  // of the element in this piece
    for (size_t i = 0; i < piece.size(); ++i) {
      const char c = piece[i];
      if (in_string_) {
        if (escaped_)
          escaped_ = false;
        else if (c == '\\')
          escaped_ = true;
        else if (c == '"')
          in_string_ = false;
        continue;
      }
      if (depth_ == 0) {
        if (kBlanks.find(c) != kBlanks.npos) continue;
        if (ended_ || c != '[')
          fail(ErrorKind::kInvalidInput, kWhere, source_.name(),
               ": more after the end of its JSON array; expected one array alone");
        depth_ = 1;
        begin = i + 1;
      } else if (c == '"') {
        in_string_ = true;
      } else if (c == '[' || c == '{') {
        ++depth_;
      } else if (c == ']' || c == '}') {
        if (c == '}' && depth_ == 1) continue;  // no JSON, which parsing the element says
        if (--depth_ > 0) continue;
        keep(piece.substr(begin, i - begin));
        if (number_ > 0 || !is_blank(element_)) emit();
        ended_ = true;
        begin = piece.size();
      } else if (c == ',' && depth_ == 1) {
        keep(piece.substr(begin, i - begin));
        emit();
        begin = i + 1;
      }
    }
    if (begin < piece.size()) keep(piece.substr(begin));
  }

  void finish() const {
    if (!ended_)
      fail(ErrorKind::kInvalidInput, kWhere, source_.name(), ": its JSON array has no end; after ",
           "element ", number_, " the file stops");
  }

 private:
  void keep(std::string_view part) {
    element_ += part;
    if (element_.size() > kMaxLineBytes)
      fail(ErrorKind::kExhausted, kWhere, source_.name(), ": element ", number_ + 1,
           " has more than ", kMaxLineBytes, " bytes");
  }
  void emit() {
    take_(parse(element_, {source_.name(), ++number_, true}, notes_));
    element_.clear();
  }

  const ByteSource& source_;
  ReadNotes* notes_;
  const std::function<void(const JsonValue&)>& take_;
  std::string element_;
  int64_t number_ = 0, depth_ = 0;
  bool in_string_ = false, escaped_ = false, ended_ = false;
};

std::string list_of(std::span<const std::string_view> keys) {
  std::string out;
  for (const auto key : keys) out += (out.empty() ? "'" : ", '") + std::string(key) + "'";
  return out;
}

}  // namespace

bool is_json_array(std::string_view head) {
  const size_t open = head.find_first_not_of(kBlanks);
  if (open == head.npos || head[open] != '[') return false;
  const size_t next = head.find_first_not_of(kBlanks, open + 1);
  return next != head.npos && std::string_view("{\"]").find(head[next]) != std::string_view::npos;
}

void for_each_json(ByteSource& source, ReadNotes* notes,
                   const std::function<void(const JsonValue&)>& take) {
  if (is_json_array(source.head())) {
    ArrayCutter cutter(source, notes, take);
    for (auto piece = source.next(); !piece.empty(); piece = source.next()) cutter.add(piece);
    return cutter.finish();
  }
  for_each_line(source, [&](std::string_view line, int64_t number) {
    if (!is_blank(line)) take(parse(line, {source.name(), number}, notes));
  });
}

const Json& object_of(const JsonValue& value) {
  if (!value.value.is_object())
    fail(ErrorKind::kInvalidInput, kWhere, value.place.str(), ": a JSON ", value.value.type_name(),
         ", expected an object");
  return value.value;
}

const Json* find_first(const Json& object, std::span<const std::string_view> keys) {
  for (const auto key : keys) {
    const auto it = object.find(key);
    if (it != object.end() && !it->is_null()) return &*it;
  }
  return nullptr;
}

std::string id_of(const Json& object, std::span<const std::string_view> keys,
                  const JsonValue& from) {
  const Json* value = find_first(object, keys);
  if (!value) return "";
  if (value->is_number_integer()) return base::dump_json(*value);
  if (!value->is_string()) {
    const auto key = std::find_if(keys.begin(), keys.end(), [&](std::string_view name) {
      return object.contains(name) && &object.at(name) == value;
    });
    fail(ErrorKind::kInvalidInput, kWhere, from.place.str(), ": the id is ", value->type_name(),
         ", expected a string or a whole number under '", *key, "'");
  }
  std::string id = value->get<std::string>();
  // The bytes that were there are gone; two ids could have become one.
  if (from.repaired && id.find("\xef\xbf\xbd") != id.npos)
    fail(ErrorKind::kInvalidInput, kWhere, from.place.str(), ": the id ", in_quotes(id),
         " holds bytes that are no UTF-8, or half a surrogate pair; expected UTF-8 in ids");
  return id;
}

std::string text_of(const Json& object, std::span<const std::string_view> keys,
                    const std::string& where) {
  const Json* value = find_first(object, keys);
  if (!value) {
    for (const auto key : keys)
      if (object.contains(key))
        fail(ErrorKind::kInvalidInput, kWhere, where, ": '", key, "' is null, expected a string");
    fail(ErrorKind::kInvalidInput, kWhere, where, ": no text; expected ",
         keys.size() == 1 ? "" : "one of ", list_of(keys), ", found ", keys_of(object));
  }
  if (!value->is_string())
    fail(ErrorKind::kInvalidInput, kWhere, where, ": the text is ", value->type_name(),
         ", expected a string");
  return value->get<std::string>();
}

std::string keys_of(const Json& object) {
  std::string out;
  for (const auto& [key, value] : object.items()) {
    if (out.size() > 200) return out + ", ...";
    out += (out.empty() ? "" : ", ") + in_quotes(key);
  }
  return out.empty() ? "none" : out;
}

void check_id(std::string_view id, const Place& place) {
  if (!base::is_valid_utf8(id))
    fail(ErrorKind::kInvalidInput, kWhere, place.str(), ": the id ", in_quotes(id),
         " is no UTF-8; convert the file, e.g. iconv -f LATIN1 -t UTF-8");
}

std::string repaired_text(std::string_view text, ReadNotes* notes) {
  if (base::is_valid_utf8(text)) return std::string(text);
  if (notes) ++notes->repaired;
  return base::sanitize_utf8(text);
}

}  // namespace erank::data
