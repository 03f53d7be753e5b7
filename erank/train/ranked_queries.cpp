#include "erank/train/ranked_queries.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/data/records.h"
#include "erank/data/sample.h"
#include "erank/data/training_pairs.h"

namespace erank::train {
namespace {

using base::ErrorKind;

int grade_of(const data::Qrels& qrels, const std::string& qid, const std::string& docid) {
  const auto query = qrels.grades.find(qid);
  if (query == qrels.grades.end()) return 0;
  const auto grade = query->second.find(docid);
  if (grade == query->second.end()) return 0;
  return static_cast<int>(std::clamp<int64_t>(grade->second, 0, 1 << 20));
}

void read_reference(const std::string& path, text::Scale scale, const RunHooks& hooks,
                    std::vector<RankedQuery>& queries) {
  data::ReadNotes notes;
  const data::PairScores scores = data::read_pair_scores(path, &notes, text::max_answer(scale));
  hooks.tell(path, notes);
  int64_t missing = 0, total = 0;
  std::string first;
  for (RankedQuery& query : queries)
    for (const std::string& docid : query.docids) {
      ++total;
      const auto of_query = scores.find(query.qid);
      if (of_query != scores.end() && of_query->second.contains(docid))
        query.reference.push_back(of_query->second.at(docid));
      else if (++missing == 1)
        first = base::str("query '", query.qid, "' with document '", docid, "'");
    }
  if (missing > 0)
    base::fail(ErrorKind::kInvalidInput, "--reference-scores", path, " has no score of ", missing,
               " of ", total, " pairs that are learned from, the first of them ", first,
               "; expected one of each, as `erank rerank --candidates` writes them");
}

}  // namespace

RankedQueries read_ranked_queries(const std::string& candidates, const std::string& qrels,
                                  const Run& run, const RankedQueriesOptions& options) {
  data::ReadNotes notes, qrels_notes;
  const data::Qrels judged = data::read_qrels(qrels, &qrels_notes);
  run.hooks().tell(qrels, qrels_notes);
  RankedQueries result;
  const auto& format = run.format();
  const auto answer =
      std::max(std::ssize(format.direct_close()), std::ssize(format.think_close())) +
      options.answer_tokens;
  const auto lists = data::read_candidates(candidates, {.notes = &notes});
  run.hooks().tell(candidates, notes);
  for (const auto& list : lists) {
    std::vector<int> grades;
    for (const auto& candidate : list.candidates)
      grades.push_back(grade_of(judged, list.query.id, candidate.document.id));
    if (std::none_of(grades.begin(), grades.end(),
                     [&](int grade) { return grade >= options.positive_grade; })) {
      ++result.num_left_out;
      continue;
    }
    RankedQuery& query = result.queries.emplace_back();
    query.qid = list.query.id;
    const auto kinds = data::sample_kinds(grades, options.positive_grade, grades.size());
    for (const size_t i : data::sample_documents(kinds, options.documents,
                                                 base::pair_seed(options.seed, query.qid, ""))) {
      const data::Document& document = list.candidates[i].document;
      query.docids.push_back(document.id);
      query.grades.push_back(grades[i]);
      query.prompts.push_back(format.render(run.instruction(), list.query.text, document.text).ids);
      const auto size = std::ssize(query.prompts.back());
      if (size + answer > run.config().context())
        base::fail(ErrorKind::kInvalidInput, "--candidates", candidates, ": query '", query.qid,
                   "' with document '", document.id, "' has ", size, " tokens and up to ", answer,
                   " of its answer, the model reads at most ", run.config().context(),
                   "; a smaller --max-doc-tokens or --max-query-tokens cuts it");
      result.longest = std::max<int64_t>(result.longest, size + answer);
    }
  }
  if (result.queries.empty())
    base::fail(ErrorKind::kInvalidInput, "--qrels", qrels, ": no query of ", candidates,
               " has a candidate graded ", options.positive_grade, " or more; do their ids agree?");
  if (!options.reference_scores.empty())
    read_reference(options.reference_scores, format.options().scale, run.hooks(), result.queries);
  return result;
}

}  // namespace erank::train
