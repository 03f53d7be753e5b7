#include "cli/benchmark_candidates.h"

#include <algorithm>
#include <filesystem>
#include <unordered_set>

#include "cli/corpus_index.h"
#include "cli/first_stage.h"
#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::cli {
namespace {

using Lists = std::unordered_map<std::string, data::CandidateList>;

// The lists of the data folder by query, in first-stage order, of a run and of ranked ids without
// texts.
Lists read_lists(const TaskFiles& files, int top) {
  Lists out;
  data::ReadNotes notes;
  if (!files.candidates.empty()) {
    bool have_scores = true;
    for (auto& list : data::read_candidates(files.candidates, {.notes = &notes})) {
      for (const auto& candidate : list.candidates) have_scores &= candidate.score.has_value();
      out[list.query.id] = std::move(list);
    }
    tell(files.candidates, notes);
    size_t most = 0;
    for (auto& [qid, list] : out) {
      most = std::max(most, list.candidates.size());
      if (have_scores)
        std::stable_sort(list.candidates.begin(), list.candidates.end(),
                         [](const auto& a, const auto& b) { return *a.score > *b.score; });
    }
    if (!have_scores && std::ssize(out) > 0 && static_cast<int64_t>(most) > top)
      warn(base::str(files.candidates,
                     ": candidates without scores are taken in the file's order, "
                     "of which the first ",
                     top, " count; if they are not ranked, give a run"));
  } else if (!files.run.empty()) {
    data::Run run = data::read_run(files.run, &notes);
    tell(files.run, notes);
    for (auto& [qid, hits] : run.hits) {
      std::stable_sort(hits.begin(), hits.end(),
                       [](const auto& a, const auto& b) { return a.score > b.score; });
      for (auto& hit : hits) out[qid].candidates.push_back({{hit.docid, ""}, hit.score});
    }
  } else {
    for (const auto& [qid, documents] : data::read_document_lists(files.top_ranked))
      for (const auto& docid : documents) out[qid].candidates.push_back({{docid, ""}, {}});
  }
  return out;
}

void fill_texts(const std::string& corpus, std::vector<data::CandidateList>& lists,
                base::ProgressSink& progress) {
  std::unordered_set<std::string> wanted;
  for (const auto& list : lists)
    for (const auto& candidate : list.candidates) wanted.insert(candidate.document.id);
  data::ReadNotes notes;
  const auto documents = data::read_documents(corpus, wanted, &progress, {.notes = &notes});
  progress.finish();
  tell(corpus, notes);
  int64_t lost = 0;
  std::string first;
  for (auto& list : lists)
    for (auto& candidate : list.candidates) {
      const auto found = documents.find(candidate.document.id);
      if (found != documents.end())
        candidate.document.text = found->second.text;
      else if (lost++ == 0)
        first = base::str("'", candidate.document.id, "' of query ", list.query.id);
    }
  if (lost > 0)
    base::fail(base::ErrorKind::kInvalidInput, "benchmark", corpus, " lacks ", lost,
               " of the candidates, first ", first,
               "; give the corpus that the run or the list was made of");
}

}  // namespace

bool write_candidates(const eval::Benchmark& benchmark, const TaskFiles& files,
                      const TaskQueries& task, const CandidateOptions& options,
                      const std::string& out, base::ProgressSink& progress) {
  const Dropped dropped = [&](const data::Query& query) {
    std::vector<std::string> ids;
    if (const auto list = task.excluded.find(query.id); list != task.excluded.end())
      ids = list->second;
    if (benchmark.drops_identical_ids) ids.push_back(query.id);
    return ids;
  };
  Output output(out, true, files.all());
  if (files.candidates.empty() && files.run.empty() && files.top_ranked.empty()) {
    if (!base::file_exists(options.index) ||
        index_difference(options.index, files.corpus, "") != "") {
      Output file(options.index, true, files.all());
      retrieve::IndexOptions index;
      index.num_threads = options.threads;
      index.spill_folder = std::filesystem::path(options.index).parent_path().string();
      const base::Json made_of = index_made_of(files.corpus, "", index.analyzer);
      const auto write = [&](std::string_view bytes) { file.write(bytes); };
      if (!write_index(files.corpus, "", index, write, progress)) return false;
      file.commit();
      write_made_of(options.index, "index", made_of);
    }
    const auto index = retrieve::Index::open(options.index);
    const auto take = [&](const data::Query& query, const std::vector<data::Hit>& hits) {
      output.write(candidates_line(candidates_of(query, hits, index)));
    };
    if (!search_queries(index, task.queries, options.top, options.weights, options.threads, dropped,
                        take, progress))
      return false;
  } else {
    Lists known = read_lists(files, options.top);
    std::vector<data::CandidateList> lists;
    for (const auto& query : task.queries) {
      auto found = known.find(query.id);
      // FollowIR's lists may be of the query, whatever its instruction.
      if (found == known.end() && benchmark.has_pairs)
        found = known.find(std::string(without_instruction(query.id)));
      auto& list = lists.emplace_back(data::CandidateList{query, {}});
      if (found == known.end()) continue;
      const auto ids = dropped(query);
      const std::unordered_set<std::string_view> gone(ids.begin(), ids.end());
      for (const auto& candidate : found->second.candidates)
        if (!gone.count(candidate.document.id) && std::ssize(list.candidates) < options.top)
          list.candidates.push_back(candidate);
    }
    if (files.candidates.empty()) fill_texts(files.corpus, lists, progress);
    for (const auto& list : lists) output.write(candidates_line(list));
  }
  output.commit();
  return true;
}

}  // namespace erank::cli
