#include "cli/rerank_jobs.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "cli/checks.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/data/records.h"

namespace erank::cli {
namespace {

using base::ErrorKind;

constexpr size_t kNamed = 3;

// The first of `count` names, for a message: "a, b, c and 7 more".
std::string list_some(const std::vector<std::string>& names, size_t count) {
  std::string out;
  for (size_t i = 0; i < std::min(names.size(), kNamed); ++i) out += (i ? ", " : "") + names[i];
  if (count > kNamed) out += base::str(" and ", count - kNamed, " more");
  return out;
}
std::string list_some(const std::vector<std::string>& names) {
  return list_some(names, names.size());
}

void cut_at_top(RerankJob& job, int top) {
  if (job.passages.size() <= static_cast<size_t>(top)) return;
  job.tail.assign(std::make_move_iterator(job.passages.begin() + top),
                  std::make_move_iterator(job.passages.end()));
  job.passages.resize(static_cast<size_t>(top));
  for (auto& passage : job.tail) passage.text.clear();
}

std::vector<RerankJob> one_query(const RerankInput& input, base::ProgressSink& progress) {
  RerankJob job{"1", *input.query, {}, {}};
  data::ReadNotes notes;
  auto documents = data::read_documents(input.docs, &progress,
                                        {.text_field = input.text_field, .notes = &notes});
  tell(input.docs, notes);
  for (auto& document : documents)
    job.passages.push_back({std::move(document.id), std::move(document.text), {}});
  if (job.passages.empty()) {
    QueriesWithoutCandidates empty;
    empty.add(job.qid);
    empty.warn();
  }
  cut_at_top(job, input.top);
  return {std::move(job)};
}

std::vector<RerankJob> from_candidates(const RerankInput& input) {
  std::vector<RerankJob> jobs;
  QueriesWithoutCandidates empty;
  data::ReadNotes notes;
  auto lists =
      data::read_candidates(input.candidates, {.text_field = input.text_field, .notes = &notes});
  tell(input.candidates, notes);
  for (auto& list : lists) {
    jobs.push_back(job_of(std::move(list), input.top));
    if (jobs.back().passages.empty()) empty.add(jobs.back().qid);
  }
  empty.warn();
  return jobs;
}

std::vector<RerankJob> from_run(RerankInput input, base::ProgressSink& progress) {
  if (!input.beir.empty()) {
    const auto folder = data::find_beir(input.beir);
    if (input.queries.empty()) input.queries = folder.queries;
    if (input.corpus.empty()) input.corpus = folder.corpus;
    if (input.queries.empty() || input.corpus.empty())
      base::fail(ErrorKind::kNotFound, "--beir", input.beir, ": no ",
                 input.queries.empty() ? "queries" : "corpus", ".jsonl in it");
  }
  data::ReadNotes run_notes, query_notes, corpus_notes;
  const data::Run run = data::read_run(input.run, &run_notes);
  const auto queries = data::read_queries(input.queries, {.notes = &query_notes});
  tell(input.run, run_notes);
  tell(input.queries, query_notes);
  std::unordered_set<std::string> known;
  for (const auto& query : queries) known.insert(query.id);
  std::vector<std::string> unknown;
  for (const auto& qid : run.qids)
    if (!known.count(qid)) unknown.push_back(qid);
  if (!unknown.empty())
    base::fail(ErrorKind::kInvalidInput, "--run", input.run, ": ", unknown.size(),
               " of its queries are not in ", input.queries, ": ", list_some(unknown));

  std::unordered_set<std::string> wanted;
  std::unordered_map<std::string, std::vector<data::Hit>> hits;
  for (const auto& qid : run.qids) {
    auto& list = hits[qid] = run.hits.at(qid);
    // The first-stage order is that of the scores; equal scores stay as the file has them.
    std::stable_sort(list.begin(), list.end(),
                     [](const auto& a, const auto& b) { return a.score > b.score; });
    for (const auto& hit : list) wanted.insert(hit.docid);
  }
  auto documents = data::read_documents(input.corpus, wanted, &progress,
                                        {.text_field = input.text_field, .notes = &corpus_notes});
  tell(input.corpus, corpus_notes);
  std::vector<std::string> lost;
  for (const auto& id : wanted)
    if (!documents.count(id)) lost.push_back(id);
  std::sort(lost.begin(), lost.end());
  if (!lost.empty())
    base::fail(ErrorKind::kInvalidInput, "--run", input.run, ": ", lost.size(),
               " of its documents are not in ", input.corpus, ": ", list_some(lost));

  std::vector<RerankJob> jobs;
  QueriesWithoutCandidates empty;
  for (const auto& query : queries) {
    const auto found = hits.find(query.id);
    if (found == hits.end()) {
      empty.add(query.id);
      continue;
    }
    RerankJob job{query.id, query.text, {}, {}};
    for (size_t i = 0; i < found->second.size(); ++i) {
      const auto& hit = found->second[i];
      auto& list = i < static_cast<size_t>(input.top) ? job.passages : job.tail;
      list.push_back(
          {hit.docid, &list == &job.tail ? "" : documents.at(hit.docid).text, hit.score});
    }
    jobs.push_back(std::move(job));
  }
  empty.warn();
  return jobs;
}

}  // namespace

RerankJob job_of(data::CandidateList list, int top) {
  RerankJob job{std::move(list.query.id), std::move(list.query.text), {}, {}};
  for (auto& c : list.candidates)
    job.passages.push_back({std::move(c.document.id), std::move(c.document.text), c.score});
  cut_at_top(job, top);
  return job;
}

void QueriesWithoutCandidates::add(const std::string& qid) {
  if (first_.size() < kNamed) first_.push_back(qid);
  ++count_;
}

void QueriesWithoutCandidates::warn() const {
  if (count_ > 0)
    cli::warn(base::str(
        count_, count_ == 1 ? " query has" : " queries have",
        " no candidates and no result: ", list_some(first_, static_cast<size_t>(count_))));
}

void add_rerank_input(CLI::App& verb, RerankInput& input) {
  auto* group = verb.add_option_group("Input", "one of the four ways");
  // As a function: an option that may be absent takes an empty text for absent.
  group->add_option_function<std::string>(
      "--query", [&input](const std::string& text) { input.query = text; },
      "the query's text, with --docs");
  group->add_option("--docs", input.docs,
                    "documents: .jsonl, .json, .csv, .tsv or .txt (.gz, .zst); - is stdin");
  group->add_option("--queries", input.queries, "queries, with --corpus and --run");
  group->add_option("--corpus", input.corpus, "documents of the run");
  group->add_option("--run", input.run, "first-stage ranking: a TREC run");
  group->add_option("--beir", input.beir, "BEIR folder (queries.jsonl, corpus.jsonl), with --run");
  group->add_option("--candidates", input.candidates,
                    "JSONL {qid, query, hits: [{docid, text, score}]}");
  group->add_option(
      "--text-field", input.text_field,
      "the field of documents that holds their text (default: text, contents, content, "
      "passage or body)");
  group->add_option("--top", input.top, "candidates of a query that are scored")
      ->check(positive_number())
      ->capture_default_str();
}

void check_rerank_input(const RerankInput& input) {
  const bool one = input.query || !input.docs.empty();
  const bool run =
      !input.run.empty() || !input.queries.empty() || !input.corpus.empty() || !input.beir.empty();
  const bool candidates = !input.candidates.empty();
  if (one + run + candidates != 1)
    base::fail(ErrorKind::kInvalidInput, input.verb,
               one + run + candidates == 0 ? base::str("nothing to ", input.work)
                                           : "more than one kind of input",
               "; give --query TEXT --docs FILE, or --queries F --corpus F --run F, or --beir DIR "
               "--run F, or --candidates F");
  if (one && (!input.query || input.docs.empty()))
    base::fail(
        ErrorKind::kInvalidInput, input.verb,
        input.query ? "--query needs --docs FILE (- for stdin)" : "--docs needs --query TEXT");
  if (one && input.query->empty())
    base::fail(ErrorKind::kInvalidInput, "--query", "is empty, expected the query's text");
  if (run && input.run.empty())
    base::fail(ErrorKind::kInvalidInput, input.verb,
               "--run F is missing; `erank index` and `erank retrieve` make a BM25 run");
  if (run && input.beir.empty() && (input.queries.empty() || input.corpus.empty()))
    base::fail(ErrorKind::kInvalidInput, input.verb,
               input.queries.empty() ? "--queries F" : "--corpus F",
               " is missing (or give --beir DIR)");
}

std::vector<RerankJob> read_rerank_jobs(const RerankInput& input, base::ProgressSink& progress) {
  check_rerank_input(input);
  if (!input.docs.empty()) return one_query(input, progress);
  if (!input.candidates.empty()) return from_candidates(input);
  return from_run(input, progress);
}

std::vector<std::string> input_files(const RerankInput& input) {
  std::vector<std::string> files;
  for (const auto& name :
       {input.docs, input.queries, input.corpus, input.run, input.beir, input.candidates})
    if (!name.empty()) files.push_back(name);
  return files;
}

}  // namespace erank::cli
