#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/records.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;

constexpr std::string_view kBlanks = " \t\v\f\r";

bool is_blank(char c) { return kBlanks.find(c) != kBlanks.npos; }

// The first columns of a line, split at runs of blanks.
struct Columns {
  static constexpr size_t kMax = 7;
  std::array<std::string_view, kMax> at;
  size_t num = 0;  // kMax means that many or more
};

Columns split_blanks(std::string_view line) {
  Columns columns;
  const char* p = line.data();
  const char* end = p + line.size();
  while (columns.num < Columns::kMax) {
    while (p < end && is_blank(*p)) ++p;
    if (p == end) break;
    const char* begin = p;
    while (p < end && !is_blank(*p)) ++p;
    columns.at[columns.num++] = {begin, static_cast<size_t>(p - begin)};
  }
  return columns;
}

Columns split_tabs(std::string_view line) {
  Columns columns;
  size_t begin = 0;
  while (columns.num < Columns::kMax) {
    const size_t end = line.find('\t', begin);
    columns.at[columns.num++] = line.substr(begin, end - begin);
    if (end == line.npos) break;
    begin = end + 1;
  }
  return columns;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool parse_number(std::string_view text, double& out) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (end != text.data() + text.size() || text.empty()) return false;
  if (error == std::errc::result_out_of_range)
    out = std::strtod(std::string(text).c_str(), nullptr);
  else if (error != std::errc())
    return false;
  return std::isfinite(out);
}

bool parse_whole(std::string_view text, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error == std::errc() && end == text.data() + text.size()) return true;
  double wide = 0;
  if (!parse_number(text, wide) || wide != std::floor(wide) || std::abs(wide) > 9e15) return false;
  out = static_cast<int64_t>(wide);
  return true;
}

// Names the first docid that `hits` holds twice. `lines` are their line numbers.
void refuse_duplicates(const std::string& path, const std::string& qid,
                       const std::vector<Hit>& hits, const std::vector<int64_t>& lines,
                       std::vector<uint32_t>& table) {
  size_t size = 16;
  while (size < 2 * hits.size()) size *= 2;
  table.assign(size, 0);  // 0: free, else index + 1
  for (size_t i = 0; i < hits.size(); ++i) {
    size_t slot = std::hash<std::string_view>()(hits[i].docid) & (size - 1);
    for (; table[slot] != 0; slot = (slot + 1) & (size - 1)) {
      if (hits[table[slot] - 1].docid == hits[i].docid)
        fail(ErrorKind::kInvalidInput, "read_run", path, ":", lines[i], ": document '",
             hits[i].docid, "' of query '", qid, "' was already on line ", lines[table[slot] - 1],
             "; expected each once");
    }
    table[slot] = static_cast<uint32_t>(i + 1);
  }
}

// Both ids of a line that `reader` has read.
void check_ids(const char* reader, const std::string& path, int64_t number, std::string_view qid,
               std::string_view docid) {
  if (qid.empty() || docid.empty())
    fail(ErrorKind::kInvalidInput, reader, path, ":", number, ": an id is empty");
  if (qid.starts_with("\xef\xbb\xbf"))
    fail(ErrorKind::kInvalidInput, reader, path, ":", number,
         ": the query id begins with a byte order mark (bytes EF BB BF); remove these bytes");
}

}  // namespace

Run read_run(const std::string& path) {
  Run run;
  struct Group {
    std::vector<Hit>* hits;
    std::vector<int64_t> lines;
  };
  std::vector<Group> groups;
  std::unordered_map<std::string, size_t> group_of;
  size_t current = 0;
  for_each_line(path, [&](std::string_view line, int64_t number) {
    Columns columns = split_blanks(line);
    if (columns.num == 0 || columns.at[0].starts_with('#')) return;
    if (columns.num < 6)
      fail(ErrorKind::kInvalidInput, "read_run", path, ":", number, ": ", columns.num,
           " columns, expected six: qid Q0 docid rank score tag");
    double score = 0;
    bool score_ok = false;
    if (columns.num == Columns::kMax) {
      const Columns tabs = split_tabs(line);
      double unused = 0;
      int64_t rank = 0;
      if (tabs.num == 6) {
        columns = tabs;
        for (auto& column : columns.at) column = trimmed(column);
      } else if (!parse_whole(columns.at[3], rank) ||
                 (parse_number(columns.at[5], unused) && parse_whole(columns.at[4], rank))) {
        fail(ErrorKind::kInvalidInput, "read_run", path, ":", number,
             ": more than six columns; an id seems to hold a blank, which a TREC run cannot carry: "
             "replace the blanks in the ids, or separate the six columns by tabs");
      }
    }
    score_ok = parse_number(columns.at[4], score);
    if (!score_ok)
      fail(ErrorKind::kInvalidInput, "read_run", path, ":", number, ": score '", columns.at[4],
           "' is not a finite number");
    const std::string_view qid = columns.at[0], docid = columns.at[2];
    check_ids("read_run", path, number, qid, docid);
    if (groups.empty() || run.qids[current] != qid) {
      const auto [it, is_new] = group_of.try_emplace(std::string(qid), groups.size());
      current = it->second;
      if (is_new) {
        run.qids.emplace_back(qid);
        groups.push_back({&run.hits[run.qids.back()], {}});
      }
    }
    groups[current].hits->push_back({std::string(docid), score});
    groups[current].lines.push_back(number);
    if (run.tag != columns.at[5]) run.tag = columns.at[5];
  });
  std::vector<uint32_t> table;
  for (size_t i = 0; i < groups.size(); ++i)
    refuse_duplicates(path, run.qids[i], *groups[i].hits, groups[i].lines, table);
  return run;
}

Qrels read_qrels(const std::string& path) {
  Qrels qrels;
  enum class Form { kUnknown, kTrec, kTsv } form = Form::kUnknown;
  std::unordered_map<std::string, int64_t>* current = nullptr;
  std::string current_qid;
  for_each_line(path, [&](std::string_view line, int64_t number) {
    Columns columns = split_blanks(line);
    if (columns.num == 0 || (form != Form::kTsv && columns.at[0].starts_with('#'))) return;
    int64_t grade = 0;
    if (form == Form::kUnknown) {
      const Columns tabs = split_tabs(line);
      form = tabs.num == 3 && columns.num != 4 ? Form::kTsv : Form::kTrec;
      if (form == Form::kTsv && !parse_whole(trimmed(tabs.at[2]), grade) && columns.num == 3 &&
          tabs.at[2].find_first_of("0123456789") == tabs.at[2].npos)
        return;  // the header line
    }
    if (form == Form::kTsv || columns.num > 4) {
      const Columns tabs = split_tabs(line);
      if (tabs.num == (form == Form::kTsv ? 3u : 4u)) {
        columns = tabs;
        for (auto& column : columns.at) column = trimmed(column);
      }
    }
    const size_t expected = form == Form::kTsv ? 3 : 4;
    if (columns.num != expected)
      fail(ErrorKind::kInvalidInput, "read_qrels", path, ":", number, ": ",
           columns.num == Columns::kMax ? "too many" : std::to_string(columns.num),
           " columns, expected ",
           form == Form::kTsv ? "three, separated by tabs: query-id corpus-id score"
                              : "four: qid 0 docid grade (ids without blanks)");
    const std::string_view qid = columns.at[0], docid = columns.at[expected - 2];
    check_ids("read_qrels", path, number, qid, docid);
    if (!parse_whole(columns.at[expected - 1], grade))
      fail(ErrorKind::kInvalidInput, "read_qrels", path, ":", number, ": grade '",
           columns.at[expected - 1], "' is not a whole number");
    if (!current || current_qid != qid) {
      current_qid = qid;
      const auto [it, is_new] = qrels.grades.try_emplace(current_qid);
      current = &it->second;
      if (is_new) qrels.qids.push_back(current_qid);
    }
    const auto [it, is_new] = current->try_emplace(std::string(docid), grade);
    if (!is_new && it->second != grade)
      fail(ErrorKind::kInvalidInput, "read_qrels", path, ":", number, ": document '", docid,
           "' of query '", qid, "' has grade ", grade, " here and ", it->second, " before");
  });
  return qrels;
}

namespace {

// The largest normal float under `value`: subnormal numbers are stepped over, since some readers
// flush them to zero.
float float_below(float value) {
  const float smallest = std::numeric_limits<float>::min();
  if (value == smallest) return 0;
  if (value == 0) return -smallest;
  return std::nextafterf(value, -std::numeric_limits<float>::infinity());
}

float to_run_score(double value) {
  constexpr double kMax = std::numeric_limits<float>::max();
  const float score = static_cast<float>(std::min(std::max(value, -kMax), kMax));
  return std::abs(score) < std::numeric_limits<float>::min() ? 0 : score;
}

void check_column(std::string_view what, std::string_view text) {
  if (text.empty() || text.find_first_of(" \t\n\v\f\r") != text.npos)
    fail(ErrorKind::kInvalidInput, "write_run", what, " '", text, "' ",
         text.empty() ? "is empty" : "holds a blank",
         ", which a TREC run cannot carry; write JSONL instead");
}

}  // namespace

void append_trec_lines(std::string& out, std::string_view qid, const std::vector<Hit>& hits,
                       std::string_view tag) {
  check_column("query id", qid);
  check_column("tag", tag);
  float last = 0;
  char number[64];
  for (size_t i = 0; i < hits.size(); ++i) {
    check_column("document id", hits[i].docid);
    ERANK_CHECK(std::isfinite(hits[i].score), hits[i].docid);
    float score = to_run_score(hits[i].score);
    if (i > 0 && score >= last) score = float_below(last);
    last = score;
    out.append(qid).append(" Q0 ").append(hits[i].docid).append(" ");
    out.append(number, std::to_chars(number, number + sizeof number, i + 1).ptr).append(" ");
    out.append(number, std::to_chars(number, number + sizeof number, score).ptr).append(" ");
    out.append(tag).append("\n");
  }
}

void write_run(const std::string& path, const Run& run) {
  base::OutputFile file(path);
  std::string lines;
  for (const std::string& qid : run.qids) {
    lines.clear();
    append_trec_lines(lines, qid, run.hits.at(qid), run.tag.empty() ? "erank" : run.tag);
    file.write(lines);
  }
  file.commit();
}

}  // namespace erank::data
