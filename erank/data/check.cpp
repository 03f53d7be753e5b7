#include "erank/data/check.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/data/record_reader.h"

namespace erank::data {
namespace {

using base::in_quotes;
using base::str;

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

// Of every id what is asked for of each record.
struct Collected {
  IdSet ids;
  RecordsReport report;
};

Collected check_records(const std::string& path, RecordKind kind, const std::string& text_field,
                        base::ProgressSink* progress) {
  Collected out;
  RecordsReport& report = out.report;
  report.path = path;
  ReadNotes notes;
  const std::hash<std::string_view> hash_of;
  std::unordered_map<std::string, size_t> text_of;
  std::unordered_set<size_t> texts;
  std::vector<int64_t> lengths;
  const char* what = kind == RecordKind::kQuery ? "check queries" : "check documents";
  const char* unit = kind == RecordKind::kQuery ? "queries" : "documents";
  for_each_record(path, kind, {.text_field = text_field, .notes = &notes},
                  [&](Record from, const Place&) {
                    const Document record = std::move(from).document();
                    const size_t hash = hash_of(record.text);
                    const auto [it, is_new] = text_of.try_emplace(record.id, hash);
                    if (!is_new) {
                      if (it->second == hash)
                        ++report.repeated;
                      else
                        report.conflicting.add(record.id);
                      return;
                    }
                    ++report.records;
                    report.odd.add(record.id);
                    if (record.text.empty())
                      report.empty.add(record.id);
                    else if (!texts.insert(hash).second)
                      report.same_text.add(record.id);
                    lengths.push_back(characters(record.text));
                    if (progress && report.records % 1024 == 0)
                      progress->update({what, report.records, 0, unit, ""});
                  });
  report.repaired = notes.repaired;
  report.numbered = notes.numbered;
  report.lengths = lengths_of(std::move(lengths));
  if (progress) progress->finish();
  for (auto& [id, hash] : text_of) out.ids.insert(id);
  return out;
}

QrelsReport check_qrels(const std::string& split, const std::string& path, const IdSet* queries,
                        const IdSet* documents) {
  QrelsReport report;
  report.path = path;
  report.split = split;
  ReadNotes notes;
  const Qrels qrels = read_qrels(path, &notes);
  report.comments = notes.comments;
  report.repeated = notes.repeated;
  report.queries = std::ssize(qrels.qids);
  for (const auto& qid : qrels.qids) {
    report.odd.add(qid);
    const auto& grades = qrels.grades.at(qid);
    bool positive = false;
    for (const auto& [docid, grade] : grades) {
      ++report.grades[grade];
      positive |= grade > 0;
    }
    report.judgements += std::ssize(grades);
    if (!positive) report.without_positive.add(qid);
  }
  report.lost = find_lost(qrels, queries, documents);
  if (queries)
    report.unjudged = std::count_if(queries->begin(), queries->end(),
                                    [&](const auto& id) { return !qrels.grades.contains(id); });
  return report;
}

RunReport check_run(const std::string& path, const IdSet* queries, const IdSet* documents) {
  RunReport report;
  report.path = path;
  ReadNotes notes;
  const Run run = read_run(path, &notes);
  report.comments = notes.comments;
  report.queries = std::ssize(run.qids);
  std::vector<int64_t> depths;
  for (const auto& qid : run.qids) {
    const auto& hits = run.hits.at(qid);
    depths.push_back(std::ssize(hits));
    report.hits += std::ssize(hits);
    report.odd.add(qid);
    if (queries && !queries->contains(qid)) report.unknown_queries.add(qid);
    std::unordered_map<double, int64_t> of_score;
    for (const auto& hit : hits) {
      ++of_score[hit.score];
      if (documents && !documents->contains(hit.docid)) report.unknown_hits.add(hit.docid);
    }
    for (const auto& [score, count] : of_score) report.tied += count > 1 ? count : 0;
  }
  report.depth = lengths_of(std::move(depths));
  if (queries) {
    std::vector<std::string> missing;
    for (const auto& id : *queries)
      if (!run.hits.contains(id)) missing.push_back(id);
    std::sort(missing.begin(), missing.end());
    for (const auto& id : missing) report.missing_queries.add(id);
  }
  return report;
}

}  // namespace

LostJudgements find_lost(const Qrels& qrels, const IdSet* queries, const IdSet* documents) {
  LostJudgements lost;
  for (const auto& qid : qrels.qids) {
    const auto& grades = qrels.grades.at(qid);
    if (queries && !queries->contains(qid)) {
      lost.of_no_query.add(qid);
      lost.of_no_query.count += std::ssize(grades) - 1;
    }
    if (!documents) continue;
    IdCount here;  // the grades have no order
    for (const auto& [docid, grade] : grades) {
      if (documents->contains(docid)) continue;
      if (here.count++ == 0 || docid < here.example) here.example = docid;
    }
    if (lost.of_no_document.count == 0) lost.of_no_document.example = here.example;
    lost.of_no_document.count += here.count;
  }
  return lost;
}

std::vector<std::string> told(const std::string& path, const LostJudgements& lost) {
  std::vector<std::string> lines;
  const auto add = [&](const IdCount& ids, const char* what) {
    if (ids.count > 0)
      lines.push_back(str(path, ": ", ids.count, ids.count == 1 ? " judgement" : " judgements",
                          " of a ", what, " that is not there, e.g. ", in_quotes(ids.example)));
  };
  add(lost.of_no_query, "query");
  add(lost.of_no_document, "document");
  return lines;
}

void OddIds::add(const std::string& id) {
  constexpr size_t kLong = 128;
  const auto any = [&](auto test) {
    return std::any_of(id.begin(), id.end(),
                       [&](char c) { return test(static_cast<unsigned char>(c)); });
  };
  if (id.find_first_of(" \t\n\v\f\r") != id.npos) blank.add(id);
  if (id.starts_with('#')) hash.add(id);
  if (any([](unsigned char c) { return c >= 0x80; })) non_ascii.add(id);
  if (any([](unsigned char c) { return c < 0x20 || c == 0x7f; })) control.add(id);
  if (id.size() > kLong) very_long.add(id);
}

Lengths lengths_of(std::vector<int64_t> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  // The smallest value that at least this share of the values is not above.
  const auto quantile = [&](int64_t percent) {
    const int64_t rank = (std::ssize(values) * percent + 99) / 100;
    return values[static_cast<size_t>(std::max<int64_t>(rank, 1) - 1)];
  };
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {values.front(), quantile(50), quantile(95), values.back(),
          sum / static_cast<double>(values.size())};
}

CollectionReport check_collection(const CollectionFiles& files, const std::string& text_field,
                                  base::ProgressSink* progress) {
  CollectionReport report;
  IdSet queries, documents;
  if (!files.queries.empty()) {
    auto read = check_records(files.queries, RecordKind::kQuery, "", progress);
    report.queries.push_back(std::move(read.report));
    queries = std::move(read.ids);
  }
  if (!files.corpus.empty()) {
    auto read = check_records(files.corpus, RecordKind::kDocument, text_field, progress);
    report.corpus.push_back(std::move(read.report));
    documents = std::move(read.ids);
  }
  const IdSet* known_queries = files.queries.empty() ? nullptr : &queries;
  const IdSet* known_documents = files.corpus.empty() ? nullptr : &documents;
  for (const auto& [split, path] : files.qrels)
    report.qrels.push_back(check_qrels(split, path, known_queries, known_documents));
  if (!files.run.empty())
    report.run.push_back(check_run(files.run, known_queries, known_documents));
  return report;
}

}  // namespace erank::data
