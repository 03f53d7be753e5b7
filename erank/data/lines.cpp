#include "erank/base/error.h"
#include "erank/data/records.h"
#include "erank/data/source.h"

namespace erank::data {

std::string Place::str() const {
  return std::string(file) + (is_element ? ": element " : ":") + std::to_string(number);
}

std::string Place::in_file() const {
  return (is_element ? "element " : "line ") + std::to_string(number);
}

void for_each_line(ByteSource& source, const std::function<void(std::string_view, int64_t)>& line,
                   size_t max_line_bytes) {
  int64_t number = 0;
  const auto emit = [&](std::string_view text) {
    ++number;
    while (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    if (text.ends_with('\r')) text.remove_suffix(1);
    line(text, number);
  };
  const auto check = [&](size_t size) {
    if (size > max_line_bytes)
      base::fail(base::ErrorKind::kExhausted, "read_lines", source.name(), ":", number + 1,
                 ": a line of more than ", max_line_bytes, " bytes");
  };
  std::string rest;  // the line that the last piece did not end
  for (std::string_view piece = source.next(); !piece.empty(); piece = source.next()) {
    size_t begin = 0;
    for (size_t end; (end = piece.find('\n', begin)) != piece.npos; begin = end + 1) {
      const std::string_view part = piece.substr(begin, end - begin);
      check(rest.size() + part.size());
      if (rest.empty()) {
        emit(part);
      } else {
        rest += part;
        emit(rest);
        rest.clear();
      }
    }
    rest += piece.substr(begin);
    check(rest.size());
  }
  if (!rest.empty()) emit(rest);
}

void for_each_line(const std::string& path,
                   const std::function<void(std::string_view, int64_t)>& line,
                   size_t max_line_bytes) {
  ByteSource source(path);
  for_each_line(source, line, max_line_bytes);
}

}  // namespace erank::data
