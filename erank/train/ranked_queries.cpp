#include "erank/train/ranked_queries.h"

#include <algorithm>
#include <numeric>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/data/records.h"
#include "erank/data/training_pairs.h"
#include "erank/train/shuffle.h"

namespace erank::train {
namespace {

using base::ErrorKind;

constexpr size_t kHard = 10, kMedium = 100;  // ranks

int grade_of(const data::Qrels& qrels, const std::string& qid, const std::string& docid) {
  const auto query = qrels.grades.find(qid);
  if (query == qrels.grades.end()) return 0;
  const auto grade = query->second.find(docid);
  if (grade == query->second.end()) return 0;
  return static_cast<int>(std::clamp<int64_t>(grade->second, 0, 1 << 20));
}

void read_reference(const std::string& path, std::vector<RankedQuery>& queries) {
  const data::PairScores scores = data::read_pair_scores(path);
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

std::vector<size_t> sample_documents(std::span<const int> grades, int positive_grade, int64_t count,
                                     uint64_t seed) {
  std::vector<size_t> chosen(grades.size());
  std::iota(chosen.begin(), chosen.end(), size_t{0});
  const auto wanted = static_cast<size_t>(count);
  if (chosen.size() <= wanted) return chosen;
  chosen.clear();
  const size_t best = std::max_element(grades.begin(), grades.end()) - grades.begin();
  std::vector<size_t> hard, medium, easy, relevant;
  for (size_t i = 0; i < grades.size(); ++i) {
    if (i == best) continue;
    if (grades[i] >= positive_grade)
      relevant.push_back(i);
    else
      (i < kHard ? hard : i < kMedium ? medium : easy).push_back(i);
  }
  base::Random random(seed);
  for (auto* kind : {&hard, &medium, &easy, &relevant}) shuffle(*kind, random);
  const auto take = [&](std::vector<size_t>& from, size_t n) {
    n = std::min({n, from.size(), wanted - chosen.size()});
    chosen.insert(chosen.end(), from.end() - static_cast<int64_t>(n), from.end());
    from.resize(from.size() - n);
  };
  chosen.push_back(best);
  take(hard, wanted);
  take(medium, (wanted - chosen.size() + 1) / 2);
  for (auto* kind : {&easy, &medium, &relevant}) take(*kind, wanted);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

RankedQueries read_ranked_queries(const std::string& candidates, const std::string& qrels,
                                  const Run& run, const RankedQueriesOptions& options) {
  const data::Qrels judged = data::read_qrels(qrels);
  RankedQueries result;
  const auto& format = run.format();
  const auto answer =
      std::max(std::ssize(format.direct_close()), std::ssize(format.think_close())) +
      options.answer_tokens;
  for (const auto& list : data::read_candidates(candidates)) {
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
    for (const size_t i : sample_documents(grades, options.positive_grade, options.documents,
                                           base::pair_seed(options.seed, query.qid, ""))) {
      const data::Document& document = list.candidates[i].document;
      query.docids.push_back(document.id);
      query.grades.push_back(grades[i]);
      query.prompts.push_back(format.render(run.instruction(), list.query.text, document.text).ids);
      const auto size = std::ssize(query.prompts.back());
      if (size + answer > run.config().max_position_embeddings)
        base::fail(ErrorKind::kInvalidInput, "--candidates", candidates, ": query '", query.qid,
                   "' with document '", document.id, "' has ", size, " tokens and up to ", answer,
                   " of its answer, the model reads at most ", run.config().max_position_embeddings,
                   "; a smaller --max-doc-tokens or --max-query-tokens cuts it");
      result.longest = std::max<int64_t>(result.longest, size + answer);
    }
  }
  if (result.queries.empty())
    base::fail(ErrorKind::kInvalidInput, "--qrels", qrels, ": no query of ", candidates,
               " has a candidate graded ", options.positive_grade, " or more; do their ids agree?");
  if (!options.reference_scores.empty()) read_reference(options.reference_scores, result.queries);
  return result;
}

}  // namespace erank::train
