#include "erank/data/records.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <span>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/json_values.h"
#include "erank/data/record_reader.h"
#include "erank/data/tables.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::in_quotes;
using base::Json;
using base::str;

[[noreturn]] void fail_duplicate(const std::string& id, const Place& first, const Place& second) {
  fail(ErrorKind::kInvalidInput, "read_records", second.str(), ": id ", in_quotes(id),
       " was already ", first.is_element ? "in " : "on ", first.in_file(),
       " with another text; expected each id once");
}

// Reads all records; the same id with the same text counts once.
template <typename Kept>
std::vector<Kept> read_all(const std::string& path, RecordKind kind, const ReadOptions& options,
                           base::ProgressSink* progress) {
  std::vector<Kept> out;
  std::vector<int64_t> numbers;
  std::unordered_map<std::string, size_t> index_of;
  const auto report = [&] {
    if (progress)
      progress->update({"read documents", static_cast<int64_t>(out.size()), 0, "documents", ""});
  };
  for_each_record(path, kind, options, [&](Record from, const Place& place) {
    Document record = std::move(from).document();
    const auto [it, is_new] = index_of.try_emplace(record.id, out.size());
    if (!is_new) {
      if (out[it->second].text != record.text)
        fail_duplicate(record.id, {place.file, numbers[it->second], place.is_element}, place);
      if (options.notes) ++options.notes->repeated;
      return;
    }
    out.push_back({std::move(record.id), std::move(record.text)});
    numbers.push_back(place.number);
    if (out.size() % 1024 == 0) report();
  });
  report();
  return out;
}

}  // namespace

std::string told(const std::string& path, const ReadNotes& notes) {
  std::string out;
  const auto add = [&](int64_t n, const char* one, const char* many) {
    if (n > 0) out += str(out.empty() ? "" : "; ", n, n == 1 ? one : many);
  };
  add(notes.comments, " line that begins with # and is no record, left out",
      " lines that begin with # and are no records, left out");
  add(notes.repeated, " record that was there already, left out",
      " records that were there already, left out");
  add(notes.repaired,
      " record with bytes that are no UTF-8 or half a surrogate pair, U+FFFD in their place",
      " records with bytes that are no UTF-8 or half a surrogate pair, U+FFFD in their place");
  return out.empty() ? "" : str(path == "-" ? "stdin" : path, ": ", out);
}

std::vector<Query> read_queries(const std::string& path, const ReadOptions& options) {
  return read_all<Query>(path, RecordKind::kQuery, options, nullptr);
}

std::vector<Document> read_documents(const std::string& path, base::ProgressSink* progress,
                                     const ReadOptions& options) {
  return read_all<Document>(path, RecordKind::kDocument, options, progress);
}

std::unordered_set<std::string> read_ids(const std::string& path, RecordKind kind) {
  std::unordered_set<std::string> ids;
  for_each_record(path, kind, {},
                  [&](Record record, const Place&) { ids.insert(std::move(record.id)); });
  return ids;
}

void for_each_document(const std::string& path, const std::function<void(Document)>& take,
                       base::ProgressSink* progress, const ReadOptions& options) {
  struct Seen {
    int64_t number;
    size_t text_hash;
  };
  std::unordered_map<std::string, Seen> seen;
  const auto report = [&] {
    if (progress)
      progress->update({"read documents", static_cast<int64_t>(seen.size()), 0, "documents", ""});
  };
  for_each_record(path, RecordKind::kDocument, options, [&](Record from, const Place& place) {
    Document record = std::move(from).document();
    const size_t text_hash = std::hash<std::string>()(record.text);
    const auto [it, is_new] = seen.try_emplace(record.id, Seen{place.number, text_hash});
    if (!is_new) {
      if (it->second.text_hash != text_hash)
        fail_duplicate(record.id, {place.file, it->second.number, place.is_element}, place);
      if (options.notes) ++options.notes->repeated;
      return;
    }
    if (seen.size() % 1024 == 0) report();
    take(std::move(record));
  });
  report();
}

std::unordered_map<std::string, Document> read_documents(
    const std::string& path, const std::unordered_set<std::string>& wanted,
    base::ProgressSink* progress, const ReadOptions& options) {
  std::unordered_map<std::string, Document> out;
  for_each_document(
      path,
      [&](Document record) {
        if (!wanted.contains(record.id)) return;
        std::string id = record.id;
        out.emplace(std::move(id), std::move(record));
      },
      progress, options);
  return out;
}

namespace {

constexpr std::array<std::string_view, 3> kQueryIds = {"qid", "_id", "id"};
constexpr std::array<std::string_view, 3> kHitIds = {"docid", "_id", "id"};
constexpr std::array<std::string_view, 1> kScore = {"score"};

// The list under 'hits', or rank_llm's 'candidates'.
const Json& hits_of(const Json& object, const std::string& where) {
  for (const char* key : {"hits", "candidates"}) {
    const auto hits = object.find(key);
    if (hits == object.end()) continue;
    if (hits->is_array()) return *hits;
    fail(ErrorKind::kInvalidInput, "read_candidates", where, ": '", key, "' is ", hits->type_name(),
         ", expected an array");
  }
  fail(ErrorKind::kInvalidInput, "read_candidates", where,
       ": expected an array 'hits', or 'candidates' as rank_llm writes it; found the keys ",
       keys_of(object));
}

Candidate candidate_of(const Json& hit, const JsonValue& from, const std::string& where,
                       const ReadOptions& options) {
  if (!hit.is_object())
    fail(ErrorKind::kInvalidInput, "read_candidates", where, ": a JSON ", hit.type_name(),
         ", expected an object {docid, text}");
  Candidate out;
  out.document.id = id_of(hit, kHitIds, from);
  if (out.document.id.empty())
    fail(ErrorKind::kInvalidInput, "read_candidates", where, ": no 'docid', found the keys ",
         keys_of(hit));
  const auto document = hit.find("doc");
  const bool inside = document != hit.end() && document->is_object();
  out.document.text = record_text(inside ? *document : hit, RecordKind::kDocument, options,
                                  inside ? where + ".doc" : where);
  if (find_first(hit, kScore)) out.score = base::json_require<double>(hit, "score", where);
  return out;
}

CandidateList list_of(const JsonValue& value, const ReadOptions& options) {
  const Json& object = object_of(value);
  const std::string where = value.place.str();
  CandidateList list;
  const auto query = object.find("query");
  const bool inside = query != object.end() && query->is_object();
  const Json& asked = inside ? *query : object;
  list.query.id = id_of(asked, kQueryIds, value);
  if (list.query.id.empty()) list.query.id = std::to_string(value.place.number);
  list.query.text = record_text(asked, RecordKind::kQuery, {}, inside ? where + ": query" : where);
  const Json& hits = hits_of(object, where);
  std::unordered_map<std::string, size_t> index_of;
  for (size_t i = 0; i < hits.size(); ++i) {
    const std::string at = str(where, ": hits[", i, "]");
    Candidate candidate = candidate_of(hits[i], value, at, options);
    const auto [it, is_new] = index_of.try_emplace(candidate.document.id, list.candidates.size());
    if (is_new) {
      list.candidates.push_back(std::move(candidate));
      continue;
    }
    if (list.candidates[it->second].document.text != candidate.document.text)
      fail(ErrorKind::kInvalidInput, "read_candidates", at, ": document ",
           in_quotes(candidate.document.id), " comes twice with different texts");
    if (options.notes) ++options.notes->repeated;
  }
  return list;
}

// MS MARCO's top1000 files: qid TAB docid TAB query TAB passage, in any order of the lines.
bool is_marco_candidates(const ByteSource& source) {
  const std::string_view line = first_line(source.head());
  return !line.starts_with('{') && !line.starts_with('[') &&
         std::count(line.begin(), line.end(), '\t') == 3;
}

std::vector<CandidateList> read_marco_candidates(ByteSource& source, const ReadOptions& options) {
  std::vector<CandidateList> out;
  std::unordered_map<std::string, size_t> list_of;
  std::vector<std::unordered_map<std::string, size_t>> hit_of;
  for_each_line(source, [&](std::string_view line, int64_t number) {
    if (line.empty()) return;
    const Place place{source.name(), number};
    std::array<std::string_view, 4> field;  // the last one keeps further tabs
    size_t begin = 0;
    for (size_t i = 0; i < field.size(); ++i) {
      const size_t end = i + 1 < field.size() ? line.find('\t', begin) : line.size();
      if (end == line.npos)
        fail(ErrorKind::kInvalidInput, "read_candidates", place.str(), ": ", i + 1,
             " columns, expected four: qid, docid, query and passage");
      field[i] = line.substr(begin, end - begin);
      begin = std::min(end + 1, line.size());
    }
    for (const auto id : {field[0], field[1]}) check_id(id, place);
    ReadNotes notes;
    const std::string query = repaired_text(field[2], &notes);
    const std::string text = repaired_text(field[3], &notes);
    if (options.notes) options.notes->repaired += notes.repaired > 0;
    const auto [it, is_new] = list_of.try_emplace(std::string(field[0]), out.size());
    if (is_new) {
      out.push_back({{it->first, query}, {}});
      hit_of.emplace_back();
    }
    CandidateList& list = out[it->second];
    const auto [hit, is_new_hit] =
        hit_of[it->second].try_emplace(std::string(field[1]), list.candidates.size());
    if (list.query.text != query ||
        (!is_new_hit && list.candidates[hit->second].document.text != text))
      fail(ErrorKind::kInvalidInput, "read_candidates", place.str(), ": query ",
           in_quotes(it->first),
           is_new_hit ? " has another text here than before"
                      : " has a document here for the second time, with another text");
    if (is_new_hit)
      list.candidates.push_back({{hit->first, text}, std::nullopt});
    else if (options.notes)
      ++options.notes->repeated;
  });
  return out;
}

}  // namespace

void for_each_candidates(
    const std::string& path, const ReadOptions& options,
    const std::function<void(CandidateList list, const std::string& where)>& take) {
  ByteSource source(path);
  if (is_marco_candidates(source)) {
    for (auto& list : read_marco_candidates(source, options)) take(std::move(list), source.name());
    return;
  }
  for_each_json(source, options.notes,
                [&](const JsonValue& value) { take(list_of(value, options), value.place.str()); });
}

std::vector<CandidateList> read_candidates(const std::string& path, const ReadOptions& options) {
  std::vector<CandidateList> out;
  std::unordered_map<std::string, Place> place_of;
  ByteSource source(path);
  if (is_marco_candidates(source)) return read_marco_candidates(source, options);
  for_each_json(source, options.notes, [&](const JsonValue& value) {
    CandidateList list = list_of(value, options);
    if (const auto [it, is_new] = place_of.try_emplace(list.query.id, value.place); !is_new)
      fail(ErrorKind::kInvalidInput, "read_candidates", value.place.str(), ": query ",
           in_quotes(list.query.id), " was already ", it->second.is_element ? "in " : "on ",
           it->second.in_file(), "; expected each query once");
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
    for (const char* ending : {".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"}) {
      const std::string path = (fs::path(folder) / (stem + ending)).string();
      if (base::file_exists(path)) return path;
    }
    return "";
  };
  out.corpus = find("corpus");
  out.queries = find("queries");
  if (out.corpus.empty() && out.queries.empty())
    fail(ErrorKind::kNotFound, "find_beir", folder,
         ": neither corpus.jsonl nor queries.jsonl (.gz, .zst, .parquet); expected a BEIR folder");
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
