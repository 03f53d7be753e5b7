#include "erank/eval/p_mrr.h"

#include <algorithm>

#include "erank/base/error.h"

namespace erank::eval {
namespace {

// The rank of `docid` among `hits`, one after the last when it is not there.
double rank_of(const std::string& docid, const std::vector<data::Hit>& hits) {
  const auto own = std::find_if(hits.begin(), hits.end(),
                                [&](const data::Hit& hit) { return hit.docid == docid; });
  if (own == hits.end()) return static_cast<double>(hits.size() + 1);
  return static_cast<double>(1 + std::count_if(hits.begin(), hits.end(), [&](const auto& hit) {
                               return hit.score > own->score ||
                                      (hit.score == own->score && hit.docid > docid);
                             }));
}

}  // namespace

PMrr p_mrr(const data::Run& run,
           const std::unordered_map<std::string, std::vector<std::string>>& changed) {
  PMrr result;
  std::vector<std::string> qids;
  for (const auto& [qid, documents] : changed)
    if (!documents.empty()) qids.push_back(qid);
  std::sort(qids.begin(), qids.end());
  for (const std::string& qid : qids) {
    const auto before = run.hits.find(qid + "-og"), after = run.hits.find(qid + "-changed");
    if (before == run.hits.end() || after == run.hits.end()) {
      result.missing.push_back(qid);
      continue;
    }
    double sum = 0;
    for (const std::string& docid : changed.at(qid)) {
      const double r = rank_of(docid, before->second), s = rank_of(docid, after->second);
      sum += r >= s ? s / r - 1 : 1 - r / s;
    }
    result.qids.push_back(qid);
    result.values.push_back(sum / static_cast<double>(changed.at(qid).size()));
    result.mean += result.values.back();
  }
  if (result.qids.empty())
    base::fail(base::ErrorKind::kInvalidInput, "p_mrr",
               "the run holds both rankings of none of the ", qids.size(),
               " queries with changed documents; expected topics QUERY-og and QUERY-changed",
               qids.empty() ? "" : ", as " + qids[0] + "-og");
  result.mean /= static_cast<double>(result.qids.size());
  return result;
}

}  // namespace erank::eval
