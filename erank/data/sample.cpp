#include "erank/data/sample.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/base/utf8.h"
#include "erank/data/record_reader.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::in_quotes;

constexpr const char* kWhere = "sample_candidates";
constexpr size_t kHard = 10, kMedium = 100;  // ranks

// A query's documents before some are drawn.
struct Pool {
  std::vector<Hit> hits;  // ranked ones, then those without a rank
  size_t num_ranked = 0;
  std::vector<int> grades;
  std::vector<char> own;
};

Pool pool_of(const std::vector<Hit>& ranked, const std::unordered_map<std::string, int64_t>& judged,
             const IdSet& present, const SampleOptions& options) {
  Pool pool;
  pool.hits = ranked;
  std::stable_sort(pool.hits.begin(), pool.hits.end(),
                   [](const Hit& a, const Hit& b) { return a.score > b.score; });
  if (std::ssize(pool.hits) > options.max_rank)
    pool.hits.resize(static_cast<size_t>(options.max_rank));
  pool.num_ranked = pool.hits.size();
  std::unordered_set<std::string_view> found;
  for (const auto& hit : pool.hits) found.insert(hit.docid);
  std::vector<std::string> others;
  for (const auto& [docid, grade] : judged)
    if (!found.contains(docid) && present.contains(docid)) others.push_back(docid);
  std::sort(others.begin(), others.end());
  for (auto& docid : others) pool.hits.push_back({std::move(docid), 0});
  for (const auto& hit : pool.hits) {
    const auto grade = judged.find(hit.docid);
    const bool is_judged = grade != judged.end();
    pool.grades.push_back(
        is_judged ? static_cast<int>(std::clamp<int64_t>(grade->second, 0, 1 << 20)) : 0);
    pool.own.push_back(is_judged && pool.grades.back() < options.positive_grade);
  }
  return pool;
}

// Those of the corpus's ids that the run or the judgements name.
IdSet present_ids(const std::string& corpus, const Qrels& qrels, const Run& run,
                  const ReadOptions& read, base::ProgressSink* progress) {
  IdSet named, present;
  for (const auto& [qid, hits] : run.hits)
    for (const auto& hit : hits) named.insert(hit.docid);
  for (const auto& [qid, grades] : qrels.grades)
    for (const auto& [docid, grade] : grades) named.insert(docid);
  int64_t done = 0;
  for_each_record(corpus, RecordKind::kDocument, {.text_field = read.text_field},
                  [&](Record record, const Place&) {
                    if (named.contains(record.id)) present.insert(std::move(record.id));
                    if (progress && ++done % 1024 == 0)
                      progress->update({"find documents", done, 0, "documents", ""});
                  });
  if (progress) progress->finish();
  return present;
}

void refuse_lost_hits(const Run& run, const IdSet& queries, const IdSet& documents) {
  IdCount lost_queries, lost_documents;
  for (const auto& qid : run.qids) {
    if (!queries.contains(qid)) lost_queries.add(qid);
    for (const auto& hit : run.hits.at(qid))
      if (!documents.contains(hit.docid)) lost_documents.add(hit.docid);
  }
  if (lost_queries.count > 0)
    fail(ErrorKind::kInvalidInput, kWhere, lost_queries.count,
         " of the run's queries are not in the queries' file, the first of them ",
         in_quotes(lost_queries.example));
  if (lost_documents.count > 0)
    fail(ErrorKind::kInvalidInput, kWhere, lost_documents.count,
         " of the run's hits are not in the corpus, the first of them ",
         in_quotes(lost_documents.example));
}

}  // namespace

const char* sample_kind_name(SampleKind kind) {
  static constexpr const char* kNames[kNumSampleKinds] = {"positive", "own",  "hard",
                                                          "medium",   "easy", "relevant"};
  return kNames[static_cast<size_t>(kind)];
}

std::vector<SampleKind> sample_kinds(std::span<const int> grades, int positive_grade,
                                     size_t num_ranked, std::span<const char> own) {
  std::vector<SampleKind> kinds(grades.size());
  for (size_t i = 0; i < grades.size(); ++i)
    kinds[i] = grades[i] >= positive_grade         ? SampleKind::kRelevant
               : i < std::min(kHard, num_ranked)   ? SampleKind::kHard
               : !own.empty() && own[i]            ? SampleKind::kOwn
               : i < std::min(kMedium, num_ranked) ? SampleKind::kMedium
                                                   : SampleKind::kEasy;
  const auto best = std::max_element(grades.begin(), grades.end());
  if (best != grades.end() && *best >= positive_grade)
    kinds[static_cast<size_t>(best - grades.begin())] = SampleKind::kPositive;
  return kinds;
}

std::vector<size_t> sample_documents(std::span<const SampleKind> kinds, int64_t count,
                                     uint64_t seed) {
  std::vector<size_t> chosen(kinds.size());
  std::iota(chosen.begin(), chosen.end(), size_t{0});
  const auto wanted = static_cast<size_t>(count);
  if (chosen.size() <= wanted) return chosen;
  chosen.clear();
  std::array<std::vector<size_t>, kNumSampleKinds> of_kind;
  for (size_t i = 0; i < kinds.size(); ++i) of_kind[static_cast<size_t>(kinds[i])].push_back(i);
  const auto all = [&](SampleKind kind) -> std::vector<size_t>& {
    return of_kind[static_cast<size_t>(kind)];
  };
  using enum SampleKind;
  base::Random random(seed);
  for (const auto kind : {kHard, kMedium, kEasy, kRelevant, kOwn}) base::shuffle(all(kind), random);
  const auto take = [&](SampleKind kind, size_t n) {
    auto& from = all(kind);
    n = std::min({n, from.size(), wanted - chosen.size()});
    chosen.insert(chosen.end(), from.end() - static_cast<int64_t>(n), from.end());
    from.resize(from.size() - n);
  };
  for (const auto kind : {kPositive, kHard, kOwn}) take(kind, wanted);
  take(kMedium, (wanted - chosen.size() + 1) / 2);
  for (const auto kind : {kEasy, kMedium, kRelevant}) take(kind, wanted);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

CandidateSample sample_candidates(const std::string& queries_path, const std::string& corpus,
                                  const Qrels& qrels, const Run& run, const SampleOptions& options,
                                  const ReadOptions& read, base::ProgressSink* progress) {
  std::error_code ignored;
  if (corpus == "-" || (std::filesystem::exists(corpus, ignored) && !base::file_exists(corpus)))
    fail(ErrorKind::kInvalidInput, kWhere, corpus,
         ": the corpus is read twice, expected a file, not a stream");
  const auto queries = read_queries(queries_path);
  IdSet query_ids, wanted;
  for (const auto& query : queries) query_ids.insert(query.id);
  const IdSet present = present_ids(corpus, qrels, run, read, progress);
  refuse_lost_hits(run, query_ids, present);

  CandidateSample out;
  SampleReport& report = out.report;
  report.lost = find_lost(qrels, &query_ids, &present);
  for (const auto& qid : qrels.qids)
    report.without_hits += query_ids.contains(qid) && !run.hits.contains(qid);
  const std::unordered_map<std::string, int64_t> none;
  for (const auto& query : queries) {
    const auto ranked = run.hits.find(query.id);
    if (ranked == run.hits.end()) continue;
    const auto judged = qrels.grades.find(query.id);
    Pool pool = pool_of(ranked->second, judged == qrels.grades.end() ? none : judged->second,
                        present, options);
    const auto kinds = sample_kinds(pool.grades, options.positive_grade, pool.num_ranked, pool.own);
    if (std::find(kinds.begin(), kinds.end(), SampleKind::kPositive) == kinds.end()) {
      ++report.without_positive;
      continue;
    }
    CandidateList& list = out.lists.emplace_back();
    list.query = query;
    for (const size_t i :
         sample_documents(kinds, options.documents, base::pair_seed(options.seed, query.id, ""))) {
      Candidate& candidate = list.candidates.emplace_back();
      candidate.document.id = pool.hits[i].docid;
      if (i < pool.num_ranked) candidate.score = pool.hits[i].score;
      wanted.insert(candidate.document.id);
      ++report.of_kind[static_cast<size_t>(kinds[i])];
    }
    report.short_lists += std::ssize(list.candidates) < options.documents;
  }
  report.queries = std::ssize(out.lists);
  if (out.lists.empty())
    fail(ErrorKind::kInvalidInput, kWhere, "no query of the run has a document graded ",
         options.positive_grade, " or more in the corpus; do the ids agree?");
  const auto documents = read_documents(corpus, wanted, progress, read);
  if (progress) progress->finish();
  for (auto& list : out.lists)
    for (auto& candidate : list.candidates) {
      const auto found = documents.find(candidate.document.id);
      if (found == documents.end())
        fail(ErrorKind::kCorrupt, kWhere, corpus, ": document ", candidate.document.id,
             " is gone since the file was first read; start again");
      candidate.document.text = found->second.text;
    }
  return out;
}

}  // namespace erank::data
