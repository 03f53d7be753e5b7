#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <span>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/data/json_values.h"
#include "erank/data/output_text.h"
#include "erank/data/records.h"
#include "erank/data/source.h"
#include "erank/data/tables.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::in_quotes;

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
        fail(ErrorKind::kInvalidInput, "read_run", path, ":", lines[i], ": document ",
             in_quotes(hits[i].docid), " of query ", in_quotes(qid), " was already on line ",
             lines[table[slot] - 1], "; expected each once");
    }
    table[slot] = static_cast<uint32_t>(i + 1);
  }
}

// Both ids of a line that `reader` has read.
void check_ids(const char* reader, const Place& place, std::string_view qid,
               std::string_view docid) {
  if (qid.empty() || docid.empty())
    fail(ErrorKind::kInvalidInput, reader, place.str(), ": an id is empty");
  if (qid.starts_with("\xef\xbb\xbf"))
    fail(ErrorKind::kInvalidInput, reader, place.str(),
         ": the query id begins with a byte order mark (bytes EF BB BF); remove these bytes");
  for (const auto id : {qid, docid})
    if (!base::is_valid_utf8(id))
      fail(ErrorKind::kInvalidInput, reader, place.str(), ": the id ", in_quotes(id),
           " is no UTF-8; convert the file, e.g. iconv -f LATIN1 -t UTF-8");
}

// Whether a line that begins with # is a run's all the same: an id may begin so.
bool is_run_line(const Columns& columns) {
  int64_t rank = 0;
  double score = 0;
  return columns.num == 6 && parse_whole(columns.at[3], rank) && parse_number(columns.at[4], score);
}

Columns split_trimmed_tabs(std::string_view line) {
  Columns columns = split_tabs(line);
  for (auto& column : columns.at) column = trimmed(column);
  return columns;
}

}  // namespace

Run read_run(const std::string& path, ReadNotes* notes) {
  Run run;
  struct Group {
    std::vector<Hit>* hits;
    std::vector<int64_t> lines;
  };
  std::vector<Group> groups;
  std::unordered_map<std::string, size_t> group_of;
  size_t current = 0;
  ByteSource source(path);
  const std::string& name = source.name();
  for_each_line(source, [&](std::string_view line, int64_t number) {
    Columns columns = split_blanks(line);
    if (columns.num == 0) return;
    if (columns.at[0].starts_with('#')) {
      if (columns.num == Columns::kMax) columns = split_trimmed_tabs(line);
      if (!is_run_line(columns)) {
        if (notes) ++notes->comments;
        return;
      }
    }
    if (columns.num < 6)
      fail(ErrorKind::kInvalidInput, "read_run", name, ":", number, ": ", columns.num,
           " columns, expected six: qid Q0 docid rank score tag");
    double score = 0;
    if (columns.num == Columns::kMax) {
      const Columns tabs = split_trimmed_tabs(line);
      double unused = 0;
      int64_t rank = 0;
      if (tabs.num == 6) {
        columns = tabs;
      } else if (!parse_whole(columns.at[3], rank) ||
                 (parse_number(columns.at[5], unused) && parse_whole(columns.at[4], rank))) {
        fail(ErrorKind::kInvalidInput, "read_run", name, ":", number,
             ": more than six columns; an id seems to hold a blank, which a TREC run cannot carry: "
             "replace the blanks in the ids, or separate the six columns by tabs");
      }
    }
    if (!parse_number(columns.at[4], score))
      fail(ErrorKind::kInvalidInput, "read_run", name, ":", number, ": score ",
           in_quotes(columns.at[4], 40), " is not a finite number");
    const std::string_view qid = columns.at[0], docid = columns.at[2];
    check_ids("read_run", {name, number}, qid, docid);
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
    refuse_duplicates(name, run.qids[i], *groups[i].hits, groups[i].lines, table);
  return run;
}

namespace {

constexpr std::array<std::string_view, 5> kQueryColumns = {"query-id", "query_id", "qid", "query",
                                                           "topic"};
constexpr std::array<std::string_view, 8> kDocumentColumns = {
    "corpus-id", "corpus_id", "docid", "doc-id", "doc_id", "pid", "document", "passage"};
constexpr std::array<std::string_view, 6> kGradeColumns = {"score", "grade", "relevance",
                                                           "rel",   "label", "judgement"};
constexpr std::array<std::string_view, 4> kUnusedColumns = {"iteration", "iter", "q0", "0"};

// Where a header line names what; `query` is -1 when the fields are no header.
struct QrelsColumns {
  int query = -1, document = -1, grade = -1;
};

QrelsColumns qrels_header(std::span<const std::string> fields) {
  for (const auto& field : fields)
    if (!is_named(field, kQueryColumns) && !is_named(field, kDocumentColumns) &&
        !is_named(field, kGradeColumns) && !is_named(field, kUnusedColumns))
      return {};
  const QrelsColumns out{find_column(fields, kQueryColumns), find_column(fields, kDocumentColumns),
                         find_column(fields, kGradeColumns)};
  return out.query < 0 || out.document < 0 || out.grade < 0 ? QrelsColumns{} : out;
}

class QrelsReader {
 public:
  QrelsReader(const std::string& path, ReadNotes* notes) : source_(path), notes_(notes) {}

  Qrels read() {
    if (is_json(source_.head())) {
      for_each_json(source_, nullptr, [&](const JsonValue& value) { take_json(value); });
      return std::move(qrels_);
    }
    const auto header = split_header(first_line(source_.head()), ',');
    const QrelsColumns columns = qrels_header(header);
    if (columns.query < 0) {
      for_each_line(source_,
                    [&](std::string_view line, int64_t number) { take_line(line, number); });
    } else {
      bool first = true;
      for_each_csv_row(source_, [&](std::vector<std::string>& fields, int64_t line) {
        if (std::exchange(first, false)) return;
        if (fields.size() != header.size())
          refuse({source_.name(), line}, base::str(fields.size(), " fields, expected ",
                                                   header.size(), " as in the header line"));
        const auto at = [&](int column) { return trimmed(fields[static_cast<size_t>(column)]); };
        take(at(columns.query), at(columns.document), at(columns.grade), {source_.name(), line});
      });
    }
    return std::move(qrels_);
  }

 private:
  enum class Form { kUnknown, kTrec, kTsv };

  [[noreturn]] static void refuse(const Place& place, const std::string& what) {
    fail(ErrorKind::kInvalidInput, "read_qrels", place.str(), ": ", what);
  }

  // A query's id may begin like JSON.
  static bool is_json(std::string_view head) {
    const std::string_view line = trimmed(first_line(head));
    if (!line.starts_with('{') && !is_json_array(head)) return false;
    const Columns columns = split_blanks(line), tabs = split_trimmed_tabs(line);
    int64_t grade = 0;
    const bool trec = columns.num == 4 && parse_whole(columns.at[3], grade);
    const bool tsv = (tabs.num == 3 || tabs.num == 4) && parse_whole(tabs.at[tabs.num - 1], grade);
    return !trec && !tsv;
  }

  void take_json(const JsonValue& value) {
    static constexpr std::array<std::string_view, 1> kGold = {"gold_ids"};
    static constexpr std::array<std::string_view, 2> kIds = {"id", "_id"};
    const base::Json& object = object_of(value);
    const base::Json* gold = find_first(object, kGold);
    if (!gold) {
      const base::Json* grade = find_first(object, kGradeColumns);
      const std::string text = !grade               ? ""
                               : grade->is_string() ? grade->get<std::string>()
                                                    : base::dump_json(*grade);
      return take(id_of(object, kQueryColumns, value), id_of(object, kDocumentColumns, value), text,
                  value.place);
    }
    if (!gold->is_array())
      refuse(value.place, base::str("'gold_ids' is ", gold->type_name(), ", expected an array"));
    for (const auto& docid : *gold) {
      if (!docid.is_string())
        refuse(value.place,
               base::str("'gold_ids' holds ", docid.type_name(), ", expected strings"));
      take(id_of(object, kIds, value), docid.get<std::string>(), "1", value.place);
    }
  }

  void take_line(std::string_view line, int64_t number) {
    Columns columns = split_blanks(line);
    if (columns.num == 0) return;
    const bool is_comment_like = columns.at[0].starts_with('#');
    Columns tabs;
    if (is_comment_like || form_ != Form::kTrec || columns.num > 4) tabs = split_trimmed_tabs(line);
    int64_t grade = 0;
    // With blanks around them columns are separated by tabs, else by either.
    const auto as_trec = [&] { return columns.num > 4 && tabs.num == 4 ? tabs : columns; };
    if (is_comment_like) {
      const Columns trec = as_trec();
      const bool tsv = form_ != Form::kTrec && tabs.num == 3 && parse_whole(tabs.at[2], grade);
      int64_t iteration = 0;  // "# topics 301 450" is no judgement
      if (!tsv && (form_ == Form::kTsv || trec.num != 4 || !parse_whole(trec.at[1], iteration) ||
                   !parse_whole(trec.at[3], grade))) {
        if (notes_) ++notes_->comments;
        return;
      }
    }
    if (form_ == Form::kUnknown) {
      form_ = tabs.num == 3 && columns.num != 4 ? Form::kTsv : Form::kTrec;
      const bool names = form_ == Form::kTsv && !parse_whole(tabs.at[2], grade) &&
                         columns.num == 3 &&
                         tabs.at[2].find_first_of("0123456789") == tabs.at[2].npos;
      if (names || qrels_header(split_header(line, '\t')).query >= 0) return;  // the header line
    }
    if (form_ == Form::kTrec) columns = as_trec();
    if (form_ == Form::kTsv && tabs.num == 3) columns = tabs;
    const size_t expected = form_ == Form::kTsv ? 3 : 4;
    if (columns.num != expected)
      refuse({source_.name(), number},
             base::str(columns.num == Columns::kMax ? "too many" : std::to_string(columns.num),
                       " columns, expected ",
                       form_ == Form::kTsv ? "three, separated by tabs: query-id corpus-id score"
                                           : "four: qid 0 docid grade (ids without blanks)"));
    take(columns.at[0], columns.at[expected - 2], columns.at[expected - 1],
         {source_.name(), number});
  }

  void take(std::string_view qid, std::string_view docid, std::string_view grade_text,
            const Place& place) {
    check_ids("read_qrels", place, qid, docid);
    int64_t grade = 0;
    if (!parse_whole(grade_text, grade))
      refuse(place, base::str("grade ", in_quotes(grade_text, 40), " is not a whole number"));
    if (!current_ || current_qid_ != qid) {
      current_qid_ = qid;
      const auto [it, is_new] = qrels_.grades.try_emplace(current_qid_);
      current_ = &it->second;
      if (is_new) qrels_.qids.push_back(current_qid_);
    }
    const auto [it, is_new] = current_->try_emplace(std::string(docid), grade);
    if (is_new) return;
    if (it->second != grade)
      refuse(place, base::str("document ", in_quotes(docid), " of query ", in_quotes(qid),
                              " has grade ", grade, " here and ", it->second, " before"));
    if (notes_) ++notes_->repeated;
  }

  ByteSource source_;
  ReadNotes* notes_;
  Qrels qrels_;
  Form form_ = Form::kUnknown;
  std::unordered_map<std::string, int64_t>* current_ = nullptr;
  std::string current_qid_;
};

}  // namespace

Qrels read_qrels(const std::string& path, ReadNotes* notes) {
  return QrelsReader(path, notes).read();
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
  const bool blank = text.find_first_of(" \t\n\v\f\r") != text.npos;
  // A file's reader drops a mark where a line begins.
  const bool mark = text.starts_with("\xef\xbb\xbf");
  if (text.empty() || blank || mark || !base::is_valid_utf8(text))
    fail(ErrorKind::kInvalidInput, "write_run", what, " ", in_quotes(text), " ",
         text.empty() ? "is empty"
         : blank      ? "holds a blank"
         : mark       ? "begins with a byte order mark"
                      : "is no UTF-8",
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
  OutputText file(path);
  std::string lines;
  for (const std::string& qid : run.qids) {
    lines.clear();
    append_trec_lines(lines, qid, run.hits.at(qid), run.tag.empty() ? "erank" : run.tag);
    file.write(lines);
  }
  file.commit();
}

}  // namespace erank::data
