#include "erank/rank/fusion.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "erank/base/error.h"
#include "erank/data/records.h"

namespace erank::rank {
namespace {

constexpr std::array<const char*, 4> kNames = {"zscore", "minmax", "sum", "rrf"};

std::vector<double> z_scores(std::span<const double> values) {
  const double n = static_cast<double>(values.size());
  double mean = 0, variance = 0;
  for (double x : values) mean += x / n;
  for (double x : values) variance += (x - mean) * (x - mean) / n;
  const double deviation = std::sqrt(variance);
  std::vector<double> z(values.size(), 0.0);
  // A list that is constant up to rounding carries no order.
  if (deviation > 1e-12 * (1 + std::abs(mean)))
    for (size_t i = 0; i < z.size(); ++i) z[i] = (values[i] - mean) / deviation;
  return z;
}

std::vector<double> scaled(std::span<const double> values) {
  const auto [least, greatest] = std::ranges::minmax(values);
  const double spread = greatest - least;
  std::vector<double> out(values.size(), 1.0);
  if (spread > 1e-12 * (1 + std::abs(greatest)))
    for (size_t i = 0; i < out.size(); ++i) out[i] = (values[i] - least) / spread;
  return out;
}

std::vector<double> reciprocal_ranks(std::span<const double> values, double k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater<>(), [&](size_t i) { return values[i]; });
  std::vector<double> out(values.size());
  for (size_t i = 0; i < order.size(); ++i) out[order[i]] = 1 / (k + static_cast<double>(i + 1));
  return out;
}

}  // namespace

FusionMethod parse_fusion_method(std::string_view name, const char* where) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i]) return static_cast<FusionMethod>(i);
  base::fail(base::ErrorKind::kInvalidInput, where, "'", name,
             "', expected zscore, minmax, sum or rrf");
}

Shares shares_of(FusionMethod method, std::span<const double> scores, double rrf_k) {
  if (scores.empty()) return {};
  switch (method) {
    case FusionMethod::kZScore: {
      Shares shares{z_scores(scores), 0};
      shares.missing = std::ranges::min(shares.of);
      return shares;
    }
    case FusionMethod::kMinMax:
      return {scaled(scores), 0};
    case FusionMethod::kSum:
      return {{scores.begin(), scores.end()}, 0};
    case FusionMethod::kRrf:
      break;
  }
  return {reciprocal_ranks(scores, rrf_k), 0};
}

std::vector<double> blend(FusionMethod method, std::span<const double> first_stage,
                          std::span<const double> model, double w) {
  ERANK_CHECK(first_stage.size() == model.size() && w >= 0 && w <= 1);
  const Shares a = shares_of(method, first_stage), b = shares_of(method, model);
  std::vector<double> out(a.of.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = w * a.of[i] + (1 - w) * b.of[i];
  return out;
}

data::Run fuse(FusionMethod method, std::span<const data::Run> runs,
               std::span<const double> weights, double rrf_k) {
  ERANK_CHECK(runs.size() == weights.size());
  data::Run fused;
  std::unordered_set<std::string> known;
  for (const data::Run& run : runs)
    for (const std::string& qid : run.qids)
      if (known.insert(qid).second) fused.qids.push_back(qid);
  for (const std::string& qid : fused.qids) {
    std::vector<data::Hit>& hits = fused.hits[qid];
    std::unordered_map<std::string, size_t> place;
    for (const data::Run& run : runs)
      if (const auto list = run.hits.find(qid); list != run.hits.end())
        for (const data::Hit& hit : list->second)
          if (place.try_emplace(hit.docid, hits.size()).second) hits.push_back({hit.docid, 0});
    std::vector<double> scores, added(hits.size());
    for (size_t r = 0; r < runs.size(); ++r) {
      const auto list = runs[r].hits.find(qid);
      if (list == runs[r].hits.end()) continue;
      scores.clear();
      for (const data::Hit& hit : list->second) scores.push_back(hit.score);
      const Shares shares = shares_of(method, scores, rrf_k);
      std::ranges::fill(added, shares.missing);
      for (size_t i = 0; i < scores.size(); ++i)
        added[place.at(list->second[i].docid)] = shares.of[i];
      for (size_t i = 0; i < hits.size(); ++i) hits[i].score += weights[r] * added[i];
    }
    for (const data::Hit& hit : hits)
      if (!std::isfinite(hit.score))
        base::fail(base::ErrorKind::kInvalidInput, "fuse", "query ", qid, ", document ", hit.docid,
                   ": the scores are too large to be added; divide them before");
    std::ranges::sort(hits, [](const data::Hit& a, const data::Hit& b) {
      return a.score != b.score ? a.score > b.score : a.docid < b.docid;
    });
  }
  return fused;
}

}  // namespace erank::rank
