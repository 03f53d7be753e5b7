#include "erank/data/record_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/data/json_values.h"
#include "erank/data/output_text.h"
#include "erank/data/tables.h"
#include "erank/data/trec_topics.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::Json;
using Names = std::span<const std::string_view>;

constexpr const char* kWhere = "read_records";

enum class Form { kJson, kTsv, kCsv, kTopics, kTxt };

// In order of preference. A passage of MS MARCO's second collection has `pid` and the `docid` of
// the document that it is from.
constexpr std::array<std::string_view, 6> kQueryIds = {"_id",      "id",       "qid",
                                                       "query_id", "query-id", "docid"};
constexpr std::array<std::string_view, 8> kDocumentIds = {
    "_id", "id", "pid", "docid", "doc_id", "corpus_id", "corpus-id", "qid"};
constexpr std::array<std::string_view, 6> kQueryTexts = {"query",   "text",    "contents",
                                                         "content", "passage", "body"};
constexpr std::array<std::string_view, 5> kDocumentTexts = {"text", "contents", "content",
                                                            "passage", "body"};
constexpr std::array<std::string_view, 1> kTitles = {"title"};
constexpr std::array<std::string_view, 2> kOthers = {"url", "score"};

Names ids_of(RecordKind kind) {
  return kind == RecordKind::kQuery ? Names(kQueryIds) : Names(kDocumentIds);
}

// Where a record's text is: `named` where the user said so, else the usual names.
class TextNames {
 public:
  TextNames(RecordKind kind, const ReadOptions& options)
      : named_(options.text_field), kind_(kind) {}
  bool is_chosen() const { return kind_ == RecordKind::kDocument && !named_.empty(); }
  Names names() const {
    if (is_chosen()) return {&named_, 1};
    return kind_ == RecordKind::kQuery ? Names(kQueryTexts) : Names(kDocumentTexts);
  }

 private:
  std::string_view named_;
  RecordKind kind_;
};

std::string list_of(Names names) {
  std::string out;
  for (const auto name : names) out += (out.empty() ? "" : ", ") + base::in_quotes(name);
  return out;
}

// Whether a line's fields can only be names of columns: all of them are known, one is an id's and
// one a text's.
bool is_header(std::span<const std::string> fields, RecordKind kind, const TextNames& texts) {
  const auto known = [&](const std::string& field) {
    return is_named(field, kQueryIds) || is_named(field, kDocumentIds) ||
           is_named(field, kQueryTexts) || is_named(field, texts.names()) ||
           is_named(field, kTitles) || is_named(field, kOthers);
  };
  return std::all_of(fields.begin(), fields.end(), known) &&
         find_column(fields, ids_of(kind)) >= 0 && find_column(fields, texts.names()) >= 0;
}

Form form_of_content(const ByteSource& source, RecordKind kind, const TextNames& texts) {
  const std::string_view head = source.head();
  const size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == head.npos) return Form::kTxt;
  if (head[begin] == '{' || is_json_array(head)) return Form::kJson;
  if (kind == RecordKind::kQuery && is_trec_topics(head)) return Form::kTopics;
  const std::string_view line = first_line(head);
  if (head[begin] == '"' && Json::accept(line)) return Form::kJson;
  if (is_header(split_header(line, '\t'), kind, texts)) return Form::kTsv;
  if (is_header(split_header(line, ','), kind, texts)) return Form::kCsv;
  return Form::kTxt;
}

// By the ending before .gz and .zst, nullopt: the content decides.
std::optional<Form> form_of_name(std::string_view name) {
  name = without_packing(name);
  if (name.ends_with(".jsonl") || name.ends_with(".json")) return Form::kJson;
  if (name.ends_with(".tsv")) return Form::kTsv;
  if (name.ends_with(".csv")) return Form::kCsv;
  if (name.ends_with(".txt")) return Form::kTxt;
  return std::nullopt;
}

// Of another name's file, what plain text is cannot be known.
bool may_be_plain_text(const std::string& path) {
  struct stat info {};
  return path == "-" || ::stat(path.c_str(), &info) != 0 || S_ISFIFO(info.st_mode) ||
         S_ISCHR(info.st_mode);
}

class RecordReader {
 public:
  RecordReader(ByteSource& source, RecordKind kind, const ReadOptions& options,
               const std::function<void(Record, const Place&)>& take)
      : source_(source), kind_(kind), options_(options), texts_(kind, options), take_(take) {}

  void read(Form form) {
    switch (form) {
      case Form::kJson:
        return for_each_json(source_, options_.notes,
                             [&](const JsonValue& value) { take_json(value); });
      case Form::kCsv:
        return read_csv();
      case Form::kTsv:
        return read_tsv();
      case Form::kTopics:
        return for_each_topic(source_, options_.notes, [&](const Json& topic, const Place& place) {
          give({.id = topic.value("num", ""), .text = topic_text(topic), .from = &topic}, place);
        });
      case Form::kTxt:
        return read_txt();
    }
  }

 private:
  // Which column holds what, -1: none.
  struct Columns {
    int id = -1, title = -1, text = -1;
    int count = 0;
  };

  static std::string topic_text(const Json& topic) {
    for (const char* part : {"title", "desc", "narr"})
      if (const std::string text = topic.value(part, ""); !text.empty()) return text;
    return "";
  }

  // A record that has fields.
  void give(Record record, const Place& place) {
    if (record.id.empty() && options_.notes) ++options_.notes->numbered;
    give_text(std::move(record), place);
  }
  void give_text(Record record, const Place& place) {
    if (record.id.empty()) record.id = std::to_string(place.number);
    take_(std::move(record), place);
  }

  void take_json(const JsonValue& value) {
    if (value.value.is_string() && !texts_.is_chosen())
      return give_text({.text = value.value.get<std::string>()}, value.place);
    const Json& object = object_of(value);
    const std::string where = value.place.str();
    Record out{.id = id_of(object, ids_of(kind_), value), .from = &object};
    out.text = text_of(object, texts_.names(), where);
    if (kind_ == RecordKind::kDocument)
      out.title = base::json_value<std::string>(object, "title", "", where);
    give(std::move(out), value.place);
  }

  Columns columns_of(std::span<const std::string> header, const Place& place) const {
    Columns out;
    out.count = static_cast<int>(header.size());
    out.id = find_column(header, ids_of(kind_));
    if (kind_ == RecordKind::kDocument) out.title = find_column(header, kTitles);
    out.text = find_column(header, texts_.names());
    if (out.text < 0) {
      std::string found;
      for (const auto& name : header)
        found += (found.empty() ? "" : ", ") + base::in_quotes(name, 40);
      fail(ErrorKind::kInvalidInput, kWhere, place.str(),
           ": no column of texts; expected a header line that names ",
           texts_.is_chosen() ? "" : "one of ", list_of(texts_.names()), ", found ",
           found.size() > 300 ? base::in_quotes(found, 300) : found);
    }
    return out;
  }

  void take_row(std::span<const std::string_view> fields, const Columns& columns,
                const Place& place) {
    const auto field = [&](int column) {
      return column < 0 ? std::string_view() : fields[static_cast<size_t>(column)];
    };
    check_id(field(columns.id), place);
    ReadNotes notes;
    Record out{.id = std::string(field(columns.id)),
               .title = repaired_text(field(columns.title), &notes),
               .text = repaired_text(field(columns.text), &notes)};
    if (options_.notes) options_.notes->repaired += notes.repaired > 0;
    give(std::move(out), place);
  }

  void read_csv() {
    Columns columns;
    std::vector<std::string_view> views;
    for_each_csv_row(source_, [&](std::vector<std::string>& fields, int64_t line) {
      const Place place{source_.name(), line};
      if (columns.count == 0) {
        columns = columns_of(fields, place);
        return;
      }
      if (std::ssize(fields) != columns.count)
        fail(ErrorKind::kInvalidInput, kWhere, place.str(), ": ", fields.size(),
             " fields, expected ", columns.count, " as in the header line");
      views.assign(fields.begin(), fields.end());
      take_row(views, columns, place);
    });
  }

  void read_tsv() {
    Columns columns;
    std::vector<std::string_view> fields;
    bool first = true;
    for_each_line(source_, [&](std::string_view line, int64_t number) {
      if (line.find_first_not_of(" \t\r") == line.npos) return;
      const Place place{source_.name(), number};
      if (std::exchange(first, false)) {
        const auto header = split_header(line, '\t');
        if (is_header(header, kind_, texts_)) {
          columns = columns_of(header, place);
          return;
        }
        if (texts_.is_chosen())
          fail(ErrorKind::kInvalidInput, kWhere, place.str(), ": expected a header line with ",
               list_of(texts_.names()), " for --text-field");
        if (kind_ == RecordKind::kDocument && is_marco_document(header)) columns = {0, 2, 3, 4};
      }
      split(line,
            columns.count > 0                ? columns.count
            : kind_ == RecordKind::kDocument ? 3
                                             : 2,
            fields);
      if (columns.count > 0) {
        if (std::ssize(fields) != columns.count)
          fail(ErrorKind::kInvalidInput, kWhere, place.str(), ": ", fields.size(),
               " columns, expected ", columns.count, " as in the first line");
        return take_row(fields, columns, place);
      }
      if (fields.size() < 2)
        fail(ErrorKind::kInvalidInput, kWhere, place.str(), ": no tab, expected id TAB text");
      const int last = static_cast<int>(fields.size()) - 1;
      take_row(fields, {0, last == 2 ? 1 : -1, last, last + 1}, place);
    });
  }

  // MS MARCO's documents, without a header: docid TAB url TAB title TAB body, which may hold tabs.
  static bool is_marco_document(std::span<const std::string> fields) {
    return fields.size() >= 4 &&
           (fields[1].starts_with("http://") || fields[1].starts_with("https://"));
  }

  // At most `count` fields; the last one keeps the tabs that are left.
  static void split(std::string_view line, int count, std::vector<std::string_view>& fields) {
    fields.clear();
    size_t begin = 0;
    while (std::ssize(fields) + 1 < count) {
      const size_t tab = line.find('\t', begin);
      if (tab == line.npos) break;
      fields.push_back(line.substr(begin, tab - begin));
      begin = tab + 1;
    }
    fields.push_back(line.substr(begin));
  }

  void read_txt() {
    if (texts_.is_chosen())
      fail(ErrorKind::kInvalidInput, kWhere, source_.name(),
           ": plain text has no fields; --text-field is for JSON, CSV and TSV");
    for_each_line(source_, [&](std::string_view line, int64_t number) {
      give_text({.text = repaired_text(line, options_.notes)}, {source_.name(), number});
    });
  }

  ByteSource& source_;
  RecordKind kind_;
  const ReadOptions& options_;
  TextNames texts_;
  const std::function<void(Record, const Place&)>& take_;
};

}  // namespace

Document Record::document() && {
  if (title.empty() || text.empty()) return {std::move(id), std::move(title) + std::move(text)};
  return {std::move(id), std::move(title) + " " + std::move(text)};
}

std::string record_text(const Json& object, RecordKind kind, const ReadOptions& options,
                        const std::string& where) {
  std::string text = text_of(object, TextNames(kind, options).names(), where);
  if (kind == RecordKind::kQuery) return text;
  Record record{.title = base::json_value<std::string>(object, "title", "", where),
                .text = std::move(text)};
  return std::move(record).document().text;
}

void for_each_record(const std::string& path, RecordKind kind, const ReadOptions& options,
                     const std::function<void(Record, const Place&)>& take) {
  ByteSource source(path);
  const TextNames texts(kind, options);
  std::optional<Form> form = path == "-" ? std::nullopt : form_of_name(path);
  if (form == Form::kTxt && kind == RecordKind::kQuery && is_trec_topics(source.head()))
    form = Form::kTopics;
  if (!form) {
    form = form_of_content(source, kind, texts);
    if (form == Form::kTxt && !may_be_plain_text(path))
      fail(ErrorKind::kInvalidInput, kWhere, path,
           ": unknown ending, and the content does not say what it is; expected .jsonl, .json, "
           ".csv, .tsv or .txt, then nothing, .gz or .zst");
  }
  RecordReader(source, kind, options, take).read(*form);
}

}  // namespace erank::data
