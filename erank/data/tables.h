// Tables as text: rows of CSV, and the header line that names the columns of CSV and TSV.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "erank/data/source.h"

namespace erank::data {

// Calls `take` for each row of a CSV file (RFC 4180): fields between commas; a field in double
// quotes may hold commas, line ends and, written twice, quotes. Rows end with LF or CRLF; empty
// lines are passed over. `line` is where the row begins. Throws Error{kInvalidInput} with the line
// for a quote inside an unquoted field, anything after the quote that ends a field, and a quote
// that is never closed.
void for_each_csv_row(
    ByteSource& source,
    const std::function<void(std::vector<std::string>& fields, int64_t line)>& take);

// The fields of one line: split at `separator` alone, quotes around a whole field taken off.
std::vector<std::string> split_header(std::string_view line, char separator);

// The first line of `head` that is not blank.
std::string_view first_line(std::string_view head);

// The first of `fields` whose name, in any case, is the first of `names` that is there, or -1.
int find_column(std::span<const std::string> fields, std::span<const std::string_view> names);

// Whether `names` holds `name` in any case, blanks around it left out.
bool is_named(std::string_view name, std::span<const std::string_view> names);

}  // namespace erank::data
