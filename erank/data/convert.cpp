#include "erank/data/convert.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/output_text.h"
#include "erank/data/record_reader.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::Json;
using base::OrderedJson;

// What of a query's object is its id or its text.
constexpr const char* kOwnKeys[] = {"_id",     "id",    "qid",  "query_id",   "query-id",
                                    "docid",   "query", "text", "contents",   "content",
                                    "passage", "body",  "num",  "instruction"};

bool has_exclusions(const Json& query) {
  const auto ids = query.find("excluded_ids");
  return ids != query.end() && ids->is_array() &&
         std::any_of(ids->begin(), ids->end(), [](const Json& id) { return id != "N/A"; });
}

OrderedJson document_json(const Record& record) {
  return {{"_id", record.id}, {"title", record.title}, {"text", record.text}};
}

OrderedJson query_json(const Record& record, ConvertReport& report) {
  std::string text = record.text;
  OrderedJson metadata = OrderedJson::object();
  if (record.from) {
    const auto instruction = record.from->find("instruction");
    if (instruction != record.from->end() && instruction->is_string() && *instruction != "") {
      text += (text.empty() ? "" : " ") + instruction->get<std::string>();
      ++report.with_instruction;
    }
    report.with_exclusions += has_exclusions(*record.from);
    for (const auto& [key, value] : record.from->items()) {
      const bool own =
          std::find(std::begin(kOwnKeys), std::end(kOwnKeys), key) != std::end(kOwnKeys) ||
          value == record.text;
      if (!own) metadata[key] = value;
    }
  }
  OrderedJson json = {{"_id", record.id}, {"text", text}};
  if (!metadata.empty()) json["metadata"] = std::move(metadata);
  return json;
}

// Writes each record once; gives their number.
template <typename Line>
int64_t convert_records(const std::string& from, RecordKind kind, const std::string& text_field,
                        OutputText& to, ReadNotes& notes, base::ProgressSink* progress,
                        const Line& line) {
  std::unordered_map<std::string, size_t> hash_of;
  const std::string what = kind == RecordKind::kQuery ? "convert queries" : "convert documents";
  const std::string unit = kind == RecordKind::kQuery ? "queries" : "documents";
  for_each_record(from, kind, {.text_field = text_field, .notes = &notes},
                  [&](const Record& record, const Place& place) {
                    const size_t hash = std::hash<std::string>()(record.title + "\n" + record.text);
                    const auto [it, is_new] = hash_of.try_emplace(record.id, hash);
                    if (!is_new) {
                      if (it->second != hash)
                        base::fail(ErrorKind::kInvalidInput, "convert", place.str(), ": id ",
                                   base::in_quotes(record.id),
                                   " was already there with another text; expected each id once");
                      ++notes.repeated;
                      return;
                    }
                    to.write(base::dump_json(line(record)) + "\n");
                    if (progress && hash_of.size() % 1024 == 0)
                      progress->update({what, std::ssize(hash_of), 0, unit, ""});
                  });
  if (progress) progress->finish();
  return std::ssize(hash_of);
}

int64_t convert_qrels(const std::string& from, OutputText& to, ReadNotes& notes) {
  const Qrels qrels = read_qrels(from, &notes);
  int64_t count = 0;
  to.write("query-id\tcorpus-id\tscore\n");
  const auto check = [&](const std::string& id) {
    if (id.find_first_of("\t\n\r") != id.npos)
      base::fail(ErrorKind::kInvalidInput, "convert", from, ": the id ", base::in_quotes(id),
                 " holds a tab or a line end, which judgements in TSV cannot carry");
  };
  for (const auto& qid : qrels.qids) {
    check(qid);
    std::vector<std::pair<std::string, int64_t>> grades(qrels.grades.at(qid).begin(),
                                                        qrels.grades.at(qid).end());
    std::sort(grades.begin(), grades.end());
    for (const auto& [docid, grade] : grades) {
      check(docid);
      to.write(base::str(qid, "\t", docid, "\t", grade, "\n"));
      ++count;
    }
  }
  return count;
}

}  // namespace

std::vector<std::string> beir_targets(const CollectionFiles& files, const std::string& folder) {
  std::vector<std::string> out;
  if (!files.corpus.empty()) out.push_back(folder + "/corpus.jsonl");
  if (!files.queries.empty()) out.push_back(folder + "/queries.jsonl");
  for (const auto& [split, path] : files.qrels) out.push_back(folder + "/qrels/" + split + ".tsv");
  return out;
}

ConvertReport convert_to_beir(const CollectionFiles& files, const std::string& text_field,
                              const std::string& folder, bool overwrite,
                              base::ProgressSink* progress) {
  using Existing = base::OutputFile::Existing;
  for (const auto& target : beir_targets(files, folder))
    if (!overwrite && base::file_exists(target))
      base::fail(ErrorKind::kInvalidInput, "convert", target,
                 " exists; give another folder or --overwrite");
  std::error_code error;
  std::filesystem::create_directories(folder + (files.qrels.empty() ? "" : "/qrels"), error);
  if (error)
    base::fail(ErrorKind::kInvalidInput, "convert", folder,
               ": cannot make this folder: ", error.message());
  const Existing existing = overwrite ? Existing::kReplace : Existing::kKeep;
  ConvertReport report;
  const auto notes_of = [&](const std::string& path) -> ReadNotes& {
    return report.notes.emplace_back(path, ReadNotes{}).second;
  };
  if (!files.queries.empty()) {
    OutputText to(folder + "/queries.jsonl", existing);
    report.queries =
        convert_records(files.queries, RecordKind::kQuery, "", to, notes_of(files.queries),
                        progress, [&](const Record& record) { return query_json(record, report); });
    to.commit();
  }
  for (const auto& [split, path] : files.qrels) {
    OutputText to(folder + "/qrels/" + split + ".tsv", existing);
    report.judgements += convert_qrels(path, to, notes_of(path));
    to.commit();
  }
  if (!files.corpus.empty()) {
    OutputText to(folder + "/corpus.jsonl", existing);
    report.documents = convert_records(files.corpus, RecordKind::kDocument, text_field, to,
                                       notes_of(files.corpus), progress, document_json);
    to.commit();
  }
  return report;
}

}  // namespace erank::data
