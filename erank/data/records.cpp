#include "erank/data/records.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::Json;
using base::str;

enum class Form { kJsonl, kTsv, kTxt, kSniff };
enum class Kind { kQuery, kDocument };

Form form_of(const std::string& path, const char* where) {
  if (path == "-") return Form::kSniff;
  std::string_view name = path;
  for (std::string_view ending : {".gz", ".zst"})
    if (name.ends_with(ending)) {
      name.remove_suffix(ending.size());
      break;
    }
  if (name.ends_with(".jsonl")) return Form::kJsonl;
  if (name.ends_with(".tsv")) return Form::kTsv;
  if (name.ends_with(".txt")) return Form::kTxt;
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    fail(ErrorKind::kNotFound, where, path, ": ", std::strerror(errno));
  if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) return Form::kSniff;
  fail(ErrorKind::kInvalidInput, where, path,
       ": unknown ending; expected .jsonl, .tsv or .txt, then nothing, .gz or .zst");
}

std::string list_of(std::initializer_list<const char*> keys) {
  std::string out;
  for (const char* key : keys) out += str(out.empty() ? "'" : ", '", key, "'");
  return out;
}

std::string keys_of(const Json& object) {
  std::string out;
  for (const auto& [key, value] : object.items()) {
    if (out.size() > 200) return out + ", ...";
    out += str(out.empty() ? "'" : ", '", key, "'");
  }
  return out.empty() ? "none" : out;
}

// The first of `keys` that `object` has and that is not null.
const Json* find_first(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto it = object.find(key);
    if (it != object.end() && !it->is_null()) return &*it;
  }
  return nullptr;
}

std::string read_id(const Json* value, std::string_view where) {
  if (!value) return "";
  if (value->is_string()) return value->get<std::string>();
  if (value->is_number_integer()) return base::dump_json(*value);
  fail(ErrorKind::kInvalidInput, "read_records", where, ": the id is ", value->type_name(),
       ", expected a string or a whole number");
}

std::string read_text(const Json& object, std::initializer_list<const char*> keys,
                      std::string_view where) {
  const Json* value = find_first(object, keys);
  if (!value)
    fail(ErrorKind::kInvalidInput, "read_records", where, ": no text; expected one of ",
         list_of(keys), ", found ", keys_of(object));
  if (!value->is_string())
    fail(ErrorKind::kInvalidInput, "read_records", where, ": the text is ", value->type_name(),
         ", expected a string");
  return value->get<std::string>();
}

std::string join_title(std::string title, std::string text) {
  if (title.empty()) return text;
  if (text.empty()) return title;
  return std::move(title) + " " + text;
}

std::string document_text(const Json& object, std::string_view where) {
  std::string text = read_text(object, {"text", "contents"}, where);
  return join_title(base::json_value<std::string>(object, "title", "", where), std::move(text));
}

Json parse_record(std::string_view line, const std::string& where) {
  Json object = base::parse_json(base::sanitize_utf8(line), where);
  if (!object.is_object())
    fail(ErrorKind::kInvalidInput, "read_records", where, ": a JSON ", object.type_name(),
         ", expected an object");
  return object;
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

Document parse_jsonl(Kind kind, std::string_view line, const std::string& where) {
  const Json object = parse_record(line, where);
  Document out;
  out.id = read_id(find_first(object, {"_id", "id", kind == Kind::kQuery ? "qid" : "docid",
                                       kind == Kind::kQuery ? "docid" : "qid"}),
                   where);
  out.text = kind == Kind::kQuery ? read_text(object, {"query", "text", "contents"}, where)
                                  : document_text(object, where);
  return out;
}

Document parse_tsv(Kind kind, std::string_view line, const std::string& where) {
  const size_t tab = line.find('\t');
  if (tab == line.npos)
    fail(ErrorKind::kInvalidInput, "read_records", where, ": no tab, expected id TAB text");
  Document out{base::sanitize_utf8(line.substr(0, tab)), base::sanitize_utf8(line.substr(tab + 1))};
  if (kind == Kind::kDocument) {
    if (const size_t title = out.text.find('\t'); title != out.text.npos)
      out.text = join_title(out.text.substr(0, title), out.text.substr(title + 1));
  }
  return out;
}

// Calls `take(record, line number)` for each record, duplicates included.
template <typename Take>
void for_each_record(const std::string& path, Kind kind, const Take& take) {
  const char* what = kind == Kind::kQuery ? "read_queries" : "read_documents";
  Form form = form_of(path, what);
  for_each_line(path, [&](std::string_view line, int64_t number) {
    if (form == Form::kSniff) form = line.starts_with('{') ? Form::kJsonl : Form::kTxt;
    if (form != Form::kTxt && is_blank(line)) return;
    const std::string where = str(path == "-" ? "stdin" : path, ":", number);
    Document record;
    if (form == Form::kJsonl) record = parse_jsonl(kind, line, where);
    if (form == Form::kTsv) record = parse_tsv(kind, line, where);
    if (form == Form::kTxt) record.text = base::sanitize_utf8(line);
    if (record.id.empty()) record.id = std::to_string(number);
    take(std::move(record), number);
  });
}

[[noreturn]] void fail_duplicate(const std::string& path, const std::string& id, int64_t first,
                                 int64_t second) {
  fail(ErrorKind::kInvalidInput, "read_records", path, ":", second, ": id '", id,
       "' was already on line ", first, " with another text; expected each id once");
}

// Reads all records; the same id with the same text counts once.
template <typename Record>
std::vector<Record> read_all(const std::string& path, Kind kind, base::ProgressSink* progress) {
  std::vector<Record> out;
  std::vector<int64_t> lines;
  std::unordered_map<std::string, size_t> index_of;
  const auto report = [&] {
    if (progress)
      progress->update({"read documents", static_cast<int64_t>(out.size()), 0, "documents", ""});
  };
  for_each_record(path, kind, [&](Document record, int64_t number) {
    const auto [it, is_new] = index_of.try_emplace(record.id, out.size());
    if (!is_new) {
      if (out[it->second].text != record.text)
        fail_duplicate(path, record.id, lines[it->second], number);
      return;
    }
    out.push_back({std::move(record.id), std::move(record.text)});
    lines.push_back(number);
    if (out.size() % 1024 == 0) report();
  });
  report();
  return out;
}

}  // namespace

std::vector<Query> read_queries(const std::string& path) {
  return read_all<Query>(path, Kind::kQuery, nullptr);
}

std::vector<Document> read_documents(const std::string& path, base::ProgressSink* progress) {
  return read_all<Document>(path, Kind::kDocument, progress);
}

void for_each_document(const std::string& path, const std::function<void(Document)>& take,
                       base::ProgressSink* progress) {
  struct Seen {
    int64_t line;
    size_t text_hash;
  };
  std::unordered_map<std::string, Seen> seen;
  const auto report = [&] {
    if (progress)
      progress->update({"read documents", static_cast<int64_t>(seen.size()), 0, "documents", ""});
  };
  for_each_record(path, Kind::kDocument, [&](Document record, int64_t number) {
    const size_t text_hash = std::hash<std::string>()(record.text);
    const auto [it, is_new] = seen.try_emplace(record.id, Seen{number, text_hash});
    if (!is_new) {
      if (it->second.text_hash != text_hash)
        fail_duplicate(path, record.id, it->second.line, number);
      return;
    }
    if (seen.size() % 1024 == 0) report();
    take(std::move(record));
  });
  report();
}

std::unordered_map<std::string, Document> read_documents(
    const std::string& path, const std::unordered_set<std::string>& wanted,
    base::ProgressSink* progress) {
  std::unordered_map<std::string, Document> out;
  for_each_document(
      path,
      [&](Document record) {
        if (!wanted.contains(record.id)) return;
        std::string id = record.id;
        out.emplace(std::move(id), std::move(record));
      },
      progress);
  return out;
}

std::vector<CandidateList> read_candidates(const std::string& path) {
  std::vector<CandidateList> out;
  std::unordered_map<std::string, int64_t> line_of;
  for_each_line(path, [&](std::string_view line, int64_t number) {
    if (is_blank(line)) return;
    const std::string where = str(path == "-" ? "stdin" : path, ":", number);
    const Json object = parse_record(line, where);
    CandidateList list;
    list.query.id = read_id(find_first(object, {"qid", "_id", "id"}), where);
    if (list.query.id.empty()) list.query.id = std::to_string(number);
    list.query.text = read_text(object, {"query", "text", "contents"}, where);
    if (const auto [it, is_new] = line_of.try_emplace(list.query.id, number); !is_new)
      fail(ErrorKind::kInvalidInput, "read_candidates", where, ": query '", list.query.id,
           "' was already on line ", it->second, "; expected each query once");
    const auto hits = object.find("hits");
    if (hits == object.end() || !hits->is_array())
      fail(ErrorKind::kInvalidInput, "read_candidates", where,
           ": expected an array 'hits', found the keys ", keys_of(object));
    std::unordered_map<std::string, size_t> index_of;
    for (size_t i = 0; i < hits->size(); ++i) {
      const Json& hit = (*hits)[i];
      const std::string at = str(where, ": hits[", i, "]");
      if (!hit.is_object())
        fail(ErrorKind::kInvalidInput, "read_candidates", at, ": a JSON ", hit.type_name(),
             ", expected an object {docid, text}");
      Candidate candidate;
      candidate.document.id = read_id(find_first(hit, {"docid", "_id", "id"}), at);
      if (candidate.document.id.empty())
        fail(ErrorKind::kInvalidInput, "read_candidates", at, ": no 'docid', found the keys ",
             keys_of(hit));
      candidate.document.text = document_text(hit, at);
      if (find_first(hit, {"score"}))
        candidate.score = base::json_require<double>(hit, "score", at);
      const auto [it, is_new] = index_of.try_emplace(candidate.document.id, list.candidates.size());
      if (is_new) {
        list.candidates.push_back(std::move(candidate));
      } else if (list.candidates[it->second].document.text != candidate.document.text) {
        fail(ErrorKind::kInvalidInput, "read_candidates", at, ": document '", candidate.document.id,
             "' comes twice with different texts");
      }
    }
    out.push_back(std::move(list));
  });
  return out;
}

BeirFolder find_beir(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!base::folder_exists(folder))
    fail(ErrorKind::kNotFound, "find_beir", folder, ": no such folder");
  BeirFolder out;
  const auto find = [&](const std::string& stem) -> std::string {
    for (const char* ending : {".jsonl", ".jsonl.gz", ".jsonl.zst"}) {
      const std::string path = (fs::path(folder) / (stem + ending)).string();
      if (base::file_exists(path)) return path;
    }
    return "";
  };
  out.corpus = find("corpus");
  out.queries = find("queries");
  if (out.corpus.empty() && out.queries.empty())
    fail(ErrorKind::kNotFound, "find_beir", folder,
         ": neither corpus.jsonl nor queries.jsonl (.gz, .zst); expected a BEIR folder");
  const auto add = [&](const fs::path& path, std::string split) {
    if (base::file_exists(path.string())) out.qrels.try_emplace(std::move(split), path.string());
  };
  const fs::path qrels = fs::path(folder) / "qrels";
  if (base::folder_exists(qrels.string())) {
    for (const char* ending : {".tsv", ".txt"})
      for (const auto& entry : fs::directory_iterator(qrels))
        if (entry.path().extension() == ending) add(entry.path(), entry.path().stem().string());
  }
  add(fs::path(folder) / "qrels.tsv", "test");
  add(fs::path(folder) / "qrels.txt", "test");
  return out;
}

}  // namespace erank::data
