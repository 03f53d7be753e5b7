#include "erank/rank/ranking.h"

#include <algorithm>
#include <cmath>

#include "erank/base/error.h"

namespace erank::rank {

using base::ErrorKind;

namespace {

bool are_constant(const std::vector<PassageResult>& scored) {
  if (scored.size() < 3) return false;
  const auto [least, most] = std::minmax_element(
      scored.begin(), scored.end(), [](const PassageResult& a, const PassageResult& b) {
        return a.distribution.expected() < b.distribution.expected();
      });
  return most->distribution.expected() - least->distribution.expected() < kConstantScores;
}

}  // namespace

PassageResult mean_of_samples(std::vector<PassageResult> samples) {
  ERANK_CHECK(!samples.empty());
  if (samples.size() == 1) return std::move(samples.front());
  const auto n = static_cast<double>(samples.size());
  double score = 0;
  int64_t new_tokens = 0;
  text::ScoreDistribution distribution = samples.front().distribution;
  distribution.p.fill(0);
  distribution.p_other = 0;
  for (const auto& sample : samples) {
    score += sample.score / n;
    new_tokens += sample.new_tokens;
    distribution.p_other += sample.distribution.p_other / n;
    for (size_t i = 0; i < distribution.p.size(); ++i)
      distribution.p[i] += sample.distribution.p[i] / n;
  }
  const auto nearest = std::min_element(
      samples.begin(), samples.end(), [&](const PassageResult& a, const PassageResult& b) {
        return std::abs(a.score - score) < std::abs(b.score - score);
      });
  PassageResult mean = std::move(*nearest);
  distribution.ten_follows_one = mean.distribution.ten_follows_one;
  mean.distribution = distribution;
  mean.score = score;
  mean.new_tokens = new_tokens;
  return mean;
}

Ranking make_ranking(const std::string& qid, std::vector<PassageResult> results,
                     const ScoreOptions& options) {
  Ranking ranking{qid, std::move(results), {}};
  auto& scored = ranking.results;
  std::sort(scored.begin(), scored.end(),
            [](const PassageResult& a, const PassageResult& b) { return a.index < b.index; });
  const auto first_failed = std::stable_partition(scored.begin(), scored.end(),
                                                  [](const PassageResult& r) { return !r.error; });
  ranking.failed.assign(std::make_move_iterator(first_failed),
                        std::make_move_iterator(scored.end()));
  scored.erase(first_failed, scored.end());
  if (are_constant(scored))
    for (auto& r : scored) r.flags.push_back("constant_scores");
  if (options.hybrid_weight && !scored.empty()) {
    if (!(*options.hybrid_weight >= 0 && *options.hybrid_weight <= 1))
      base::fail(ErrorKind::kInvalidInput, "hybrid", "weight ", *options.hybrid_weight,
                 ", expected 0 to 1");
    std::vector<double> first, own;
    for (const auto& r : scored) {
      if (!r.first_stage_score)
        base::fail(
            ErrorKind::kInvalidInput, "hybrid", "query ", qid, ", document ", r.docid,
            ": no first-stage score to blend with; leave the blend away or give a run with scores");
      first.push_back(*r.first_stage_score);
      own.push_back(r.score);
    }
    const auto blended = blend(options.hybrid_method, first, own, *options.hybrid_weight);
    for (size_t i = 0; i < scored.size(); ++i) scored[i].score = blended[i];
  }
  std::stable_sort(
      scored.begin(), scored.end(),
      [](const PassageResult& a, const PassageResult& b) { return a.score > b.score; });
  return ranking;
}

}  // namespace erank::rank
