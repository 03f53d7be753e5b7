#include "erank/data/tables.h"

#include <algorithm>
#include <cctype>

#include "erank/base/error.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;

constexpr const char* kWhere = "read_csv";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == text.npos) return "";
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

class CsvRows {
 public:
  CsvRows(const ByteSource& source,
          const std::function<void(std::vector<std::string>&, int64_t)>& take)
      : source_(source), take_(take) {}

  void add(std::string_view piece) {
    for (const char c : piece) {
      add(c);
      if (c == '\n') ++line_;
    }
  }

  void finish() {
    if (state_ == State::kQuoted)
      fail(ErrorKind::kInvalidInput, kWhere, source_.name(), ":", quote_line_,
           ": a quote that begins here is never closed");
    if (state_ == State::kStart && fields_.empty()) return;
    end_row();
  }

 private:
  enum class State {
    kStart,   // of a field
    kPlain,   // inside a field without quotes
    kQuoted,  // inside a field with quotes
    kQuote,   // after a quote in it: the field's end, or the first half of a quote
  };

  void add(char c) {
    if (state_ == State::kStart && fields_.empty() && field_.empty()) row_line_ = line_;
    if (state_ == State::kQuoted) {
      if (c == '"')
        state_ = State::kQuote;
      else
        put(c);
      return;
    }
    if (c == ',') return end_field();
    if (c == '\n') return end_row();
    if (state_ == State::kQuote) {
      if (c == '"' && !carriage_return_) {
        put(c);
        state_ = State::kQuoted;
      } else if (c == '\r' && !carriage_return_) {
        carriage_return_ = true;
      } else {
        fail(ErrorKind::kInvalidInput, kWhere, source_.name(), ":", line_,
             ": more after the quote that ends a field; expected a comma or the line's end, and "
             "quotes "
             "inside a quoted field twice");
      }
      return;
    }
    if (c != '"') {
      put(c);
      state_ = State::kPlain;
    } else if (state_ == State::kStart) {
      state_ = State::kQuoted;
      quoted_ = true;
      quote_line_ = line_;
    } else {
      fail(ErrorKind::kInvalidInput, kWhere, source_.name(), ":", line_,
           ": a quote inside a field without quotes; expected the field in quotes and its own "
           "quotes twice");
    }
  }

  void put(char c) {
    field_ += c;
    if (field_.size() > kMaxLineBytes)
      fail(ErrorKind::kExhausted, kWhere, source_.name(), ":", row_line_, ": a field of more than ",
           kMaxLineBytes, " bytes");
  }

  void end_field() {
    fields_.push_back(std::move(field_));
    field_.clear();
    state_ = State::kStart;
    quoted_ = carriage_return_ = false;
  }

  void end_row() {
    if (state_ == State::kPlain && field_.ends_with('\r')) field_.pop_back();
    const bool empty = fields_.empty() && field_.empty() && !quoted_;
    end_field();
    if (!empty) take_(fields_, row_line_);
    fields_.clear();
  }

  const ByteSource& source_;
  const std::function<void(std::vector<std::string>&, int64_t)>& take_;
  std::vector<std::string> fields_;
  std::string field_;
  State state_ = State::kStart;
  bool quoted_ = false, carriage_return_ = false;
  int64_t line_ = 1, row_line_ = 1, quote_line_ = 1;
};

}  // namespace

void for_each_csv_row(ByteSource& source,
                      const std::function<void(std::vector<std::string>&, int64_t)>& take) {
  CsvRows rows(source, take);
  for (auto piece = source.next(); !piece.empty(); piece = source.next()) rows.add(piece);
  rows.finish();
}

std::vector<std::string> split_header(std::string_view line, char separator) {
  std::vector<std::string> fields;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find(separator, begin), line.size());
    std::string_view field = trimmed(line.substr(begin, end - begin));
    if (field.size() >= 2 && field.front() == '"' && field.back() == '"')
      field = field.substr(1, field.size() - 2);
    fields.emplace_back(field);
    begin = end + 1;
  }
  return fields;
}

std::string_view first_line(std::string_view head) {
  while (!head.empty()) {
    const size_t end = std::min(head.find('\n'), head.size());
    const std::string_view line = head.substr(0, end);
    if (!trimmed(line).empty()) return line;
    head.remove_prefix(std::min(end + 1, head.size()));
  }
  return "";
}

bool is_named(std::string_view name, std::span<const std::string_view> names) {
  const std::string_view bare = trimmed(name);
  const auto lower = [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  };
  return std::any_of(names.begin(), names.end(), [&](std::string_view known) {
    return std::equal(bare.begin(), bare.end(), known.begin(), known.end(),
                      [&](char a, char b) { return lower(a) == lower(b); });
  });
}

int find_column(std::span<const std::string> fields, std::span<const std::string_view> names) {
  for (const auto& name : names)
    for (size_t i = 0; i < fields.size(); ++i)
      if (is_named(fields[i], {&name, 1})) return static_cast<int>(i);
  return -1;
}

}  // namespace erank::data
