#include "cli/first_stage.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "cli/verbs.h"
#include "erank/base/json.h"

namespace erank::cli {
namespace {

double short_decimal(double score) {
  char text[32];
  const char* end = std::to_chars(text, text + sizeof text, static_cast<float>(score)).ptr;
  double value = 0;
  std::from_chars(text, end, value);
  return value;
}

}  // namespace

void add_query_weights(CLI::App& verb, std::string& name) {
  auto* option =
      verb.add_option("--query-weights", name,
                      "what a word of the query counts: how often it is there (counts), or its "
                      "BM25\nweight, the query taken as a document (bm25), for long queries such "
                      "as BRIGHT's")
          ->check(CLI::IsMember({"counts", "bm25"}));
  if (!name.empty()) option->capture_default_str();
}

retrieve::QueryWeights query_weights(std::string_view name) {
  return name == "bm25" ? retrieve::QueryWeights::kBm25 : retrieve::QueryWeights::kCounts;
}

bool search_queries(const retrieve::Index& index, std::span<const data::Query> queries, int top,
                    retrieve::QueryWeights weights, int threads, const Dropped& dropped,
                    const std::function<void(const data::Query&, std::vector<data::Hit>)>& take,
                    base::ProgressSink& progress) {
  const size_t block = 64 * static_cast<size_t>(threads);
  for (size_t begin = 0; begin < queries.size(); begin += block) {
    if (interrupted()) return false;
    const auto some = queries.subspan(begin, std::min(block, queries.size() - begin));
    std::vector<std::vector<std::string>> out_of(some.size());
    size_t most = 0;
    for (size_t i = 0; i < some.size(); ++i) {
      if (dropped) out_of[i] = dropped(some[i]);
      most = std::max(most, out_of[i].size());
    }
    auto found = index.search_all(some, top + static_cast<int>(most), threads, weights);
    for (size_t i = 0; i < some.size(); ++i) {
      const std::unordered_set<std::string_view> ids(out_of[i].begin(), out_of[i].end());
      std::erase_if(found[i], [&](const data::Hit& hit) { return ids.count(hit.docid) > 0; });
      found[i].resize(std::min(found[i].size(), static_cast<size_t>(top)));
      take(some[i], std::move(found[i]));
    }
    progress.update({"retrieve", static_cast<int64_t>(begin + some.size()),
                     static_cast<int64_t>(queries.size()), "queries", ""});
  }
  progress.finish();
  return true;
}

data::CandidateList candidates_of(const data::Query& query, const std::vector<data::Hit>& hits,
                                  const retrieve::Index& index) {
  data::CandidateList list{query, {}};
  for (const auto& hit : hits)
    list.candidates.push_back({{hit.docid, index.text(hit.docid)}, short_decimal(hit.score)});
  return list;
}

std::string candidates_line(const data::CandidateList& list) {
  auto hits = base::OrderedJson::array();
  for (const auto& candidate : list.candidates) {
    base::OrderedJson hit = {{"docid", candidate.document.id}};
    if (candidate.score) hit["score"] = *candidate.score;
    hit["text"] = candidate.document.text;
    hits.push_back(std::move(hit));
  }
  return base::dump_json(base::OrderedJson{
             {"qid", list.query.id}, {"query", list.query.text}, {"hits", std::move(hits)}}) +
         "\n";
}

}  // namespace erank::cli
