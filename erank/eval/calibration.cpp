#include "erank/eval/calibration.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::eval {
namespace {

using base::ErrorKind;

constexpr int kVersion = 1;

double sigmoid(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
// log(1 + exp(x)).
double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

struct Counts {
  double relevant = 0, other = 0;
};
Counts count(std::span<const JudgedScore> pairs) {
  Counts counts;
  for (const auto& pair : pairs) (pair.relevant ? counts.relevant : counts.other) += 1;
  return counts;
}

void fit_isotonic(std::span<const JudgedScore> pairs, Calibration& map) {
  std::map<double, Counts> by_score;
  for (const auto& pair : pairs) {
    Counts& counts = by_score[pair.score];
    (pair.relevant ? counts.relevant : counts.other) += 1;
  }
  struct Block {
    double first, last;  // scores
    Counts counts;
    double probability() const { return counts.relevant / (counts.relevant + counts.other); }
  };
  std::vector<Block> blocks;
  for (const auto& [score, counts] : by_score) {
    blocks.push_back({score, score, counts});
    while (blocks.size() > 1 &&
           blocks[blocks.size() - 2].probability() >= blocks.back().probability()) {
      Block& before = blocks[blocks.size() - 2];
      before.last = blocks.back().last;
      before.counts.relevant += blocks.back().counts.relevant;
      before.counts.other += blocks.back().counts.other;
      blocks.pop_back();
    }
  }
  for (const Block& block : blocks)
    for (const double score : {block.first, block.last})
      if (map.scores.empty() || map.scores.back() != score) {
        map.scores.push_back(score);
        map.probabilities.push_back(block.probability());
      }
}

// The loss is convex; Newton's steps on centred and scaled scores, halved until the loss falls.
void fit_platt(std::span<const JudgedScore> pairs, Calibration& map) {
  const Counts counts = count(pairs);
  const double high = (counts.relevant + 1) / (counts.relevant + 2), low = 1 / (counts.other + 2);
  const double n = static_cast<double>(pairs.size());
  double middle = 0, variance = 0;
  for (const auto& pair : pairs) middle += pair.score / n;
  for (const auto& pair : pairs) variance += (pair.score - middle) * (pair.score - middle) / n;
  const double scale = variance > 0 ? std::sqrt(variance) : 1;
  const auto target = [&](const JudgedScore& pair) { return pair.relevant ? high : low; };
  const auto at = [&](const JudgedScore& pair) { return (pair.score - middle) / scale; };
  const auto loss = [&](double a, double b) {
    double sum = 0;
    for (const auto& pair : pairs) {
      const double f = a * at(pair) + b;
      sum += softplus(f) - target(pair) * f;
    }
    return sum;
  };
  // `b` alone has a closed form: where the slope would fall, the map is flat.
  double targets = 0;
  for (const auto& pair : pairs) targets += target(pair) / n;
  const double flat = std::log(targets / (1 - targets));
  double a = 0, b = flat, now = loss(a, b);
  for (int i = 0; i < 100; ++i) {
    double ga = 0, gb = 0, haa = 1e-12, hab = 0, hbb = 1e-12;
    for (const auto& pair : pairs) {
      const double x = at(pair), p = sigmoid(a * x + b), r = p - target(pair), w = p * (1 - p);
      ga += r * x, gb += r, haa += w * x * x, hab += w * x, hbb += w;
    }
    const double determinant = haa * hbb - hab * hab;
    if (!(determinant > 0) || std::hypot(ga, gb) < 1e-10 * n) break;
    const double da = (hbb * ga - hab * gb) / determinant, db = (haa * gb - hab * ga) / determinant;
    double step = 1;
    while (step > 1e-10 && loss(a - step * da, b - step * db) >= now) step /= 2;
    if (step <= 1e-10) break;
    a -= step * da, b -= step * db;
    now = loss(a, b);
  }
  if (a <= 0) a = 0, b = flat;
  map.slope = a / scale;
  map.intercept = b - a * middle / scale;
}

base::OrderedJson reliability_json(const Reliability& r) {
  return {{"expected_calibration_error", r.expected_error}, {"brier", r.brier}};
}

constexpr std::pair<const char*, std::string ScoredBy::*> kScoredBy[] = {
    {"model", &ScoredBy::model},
    {"weights", &ScoredBy::weights},
    {"instruction", &ScoredBy::instruction},
    {"mode", &ScoredBy::mode},
    {"score", &ScoredBy::score},
    {"scale", &ScoredBy::scale}};

// Calls visit(key, member) for what may be missing.
template <typename Visit>
void for_optional(const Visit& visit) {
  visit("max_think_tokens", &ScoredBy::max_think_tokens);
  visit("samples", &ScoredBy::samples);
  visit("temperature", &ScoredBy::temperature);
  visit("max_doc_tokens", &ScoredBy::max_document_tokens);
  visit("max_query_tokens", &ScoredBy::max_query_tokens);
  visit("long_docs", &ScoredBy::long_documents);
  visit("max_windows", &ScoredBy::max_windows);
}

std::vector<double> numbers(const base::Json& object, const char* key, const std::string& path) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array() ||
      !std::all_of(it->begin(), it->end(), [](const auto& x) { return x.is_number(); }))
    base::fail(ErrorKind::kInvalidInput, "calibration", path, ": '", key,
               "' is no list of numbers");
  return it->get<std::vector<double>>();
}

}  // namespace

base::OrderedJson to_json(const ScoredBy& by) {
  base::OrderedJson json;
  for (const auto& [key, member] : kScoredBy) json[key] = by.*member;
  for_optional([&](const char* key, auto member) {
    if (by.*member) json[key] = *(by.*member);
  });
  return json;
}

ScoredBy scored_by_from_json(const base::Json& json, const std::string& where) {
  ScoredBy by;
  for (const auto& [key, member] : kScoredBy)
    by.*member = base::json_require<std::string>(json, key, where + ", scored_by");
  for_optional([&](const char* key, auto member) {
    using Value = typename std::remove_reference_t<decltype(by.*member)>::value_type;
    if (json.contains(key))
      by.*member = base::json_require<Value>(json, key, where + ", scored_by");
  });
  return by;
}

std::string difference(const ScoredBy& before, const ScoredBy& now) {
  if (before.weights != now.weights)
    return before.model != now.model
               ? base::str("the model was ", before.model, ", now it is ", now.model)
               : base::str("the files of the model ", now.model,
                           ", its adapters or its prompt format have changed");
  for (const auto& [key, member] : kScoredBy)
    if (member != &ScoredBy::model && before.*member != now.*member)
      return base::str("'", key, "' was '", before.*member, "', now it is '", now.*member, "'");
  std::string what;
  for_optional([&](const char* key, auto member) {
    const auto &was = before.*member, &is = now.*member;
    if (what.empty() && was && is && *was != *is)
      what = base::str("'", key, "' was ", *was, ", now it is ", *is);
  });
  return what;
}

double Calibration::probability(double score) const {
  if (method == Method::kPlatt) return sigmoid(slope * score + intercept);
  const auto above = std::lower_bound(scores.begin(), scores.end(), score);
  if (above == scores.end()) return probabilities.back();
  const size_t i = static_cast<size_t>(above - scores.begin());
  if (i == 0 || *above == score) return probabilities[i];
  const double part = (score - scores[i - 1]) / (scores[i] - scores[i - 1]);
  // Between the two, whatever rounding says.
  return std::clamp(probabilities[i - 1] + part * (probabilities[i] - probabilities[i - 1]),
                    probabilities[i - 1], probabilities[i]);
}

Calibration fit_calibration(std::span<const JudgedScore> pairs) {
  const Counts counts = count(pairs);
  if (counts.relevant == 0 || counts.other == 0)
    base::fail(ErrorKind::kInvalidInput, "calibrate", counts.relevant, " relevant and ",
               counts.other,
               " other judged pairs to learn from; expected some of both (judgements with grade 0 "
               "too)");
  Calibration map;
  fit_isotonic(pairs, map);
  fit_platt(pairs, map);
  return map;
}

ScoreScale find_scale(const data::Results& results, std::span<const JudgedScore> judged,
                      const std::optional<ScoreScale>& said) {
  ScoreScale scale;
  if (said) {
    scale = *said;
  } else if (results.highest_answer) {
    scale = {static_cast<double>(*results.highest_answer), ScoreScale::From::kDistributions};
  } else {
    double most = 0;
    for (const auto& [qid, list] : results.results)
      for (const data::Result& result : list) most = std::max(most, result.score.value_or(0));
    scale.highest = most <= 1 ? 1 : 10;
  }
  for (const JudgedScore& pair : judged) {
    if (pair.score >= 0 && pair.score <= scale.highest) continue;
    if (scale.from == ScoreScale::From::kOption)
      base::fail(ErrorKind::kInvalidInput, "--scale", "a judged pair has the score ", pair.score,
                 ", expected 0 to ", scale.highest, "; give the scale that the run was made with");
    return {0, scale.from};
  }
  return scale;
}

std::string_view why(ScoreScale::From from) {
  switch (from) {
    case ScoreScale::From::kDistributions:
      return "as its distributions say";
    case ScoreScale::From::kRecord:
      return "as its .made.json says";
    case ScoreScale::From::kOption:
      return "as --scale says";
    case ScoreScale::From::kGuess:
      break;
  }
  return "guessed";
}

Reliability reliability(std::span<const double> probabilities, std::span<const JudgedScore> pairs) {
  ERANK_CHECK(probabilities.size() == pairs.size());
  Reliability out;
  out.bins.resize(kReliabilityBins);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const double p = probabilities[i], y = pairs[i].relevant ? 1 : 0;
    ERANK_CHECK(p >= 0 && p <= 1, p);
    ReliabilityBin& bin =
        out.bins[std::min<size_t>(static_cast<size_t>(p * kReliabilityBins), kReliabilityBins - 1)];
    ++bin.num_pairs;
    bin.mean_probability += p;
    bin.share_relevant += y;
    out.brier += (p - y) * (p - y) / static_cast<double>(pairs.size());
  }
  for (ReliabilityBin& bin : out.bins) {
    if (bin.num_pairs == 0) continue;
    const double n = static_cast<double>(bin.num_pairs);
    bin.mean_probability /= n, bin.share_relevant /= n;
    out.expected_error +=
        n / static_cast<double>(pairs.size()) * std::abs(bin.mean_probability - bin.share_relevant);
  }
  return out;
}

CrossValidation cross_validate(std::span<const JudgedScore> pairs, double highest) {
  constexpr size_t kFolds = 5;
  std::set<int64_t> groups;
  for (const auto& pair : pairs) groups.insert(pair.group);
  if (groups.size() < 2)
    base::fail(ErrorKind::kInvalidInput, "calibrate", groups.size(),
               " queries with judged pairs; expected at least two, to test on other queries than "
               "those learned from");
  const size_t folds = std::min(kFolds, groups.size());
  std::map<int64_t, size_t> fold_of;
  for (const int64_t group : groups) fold_of.emplace(group, fold_of.size() % folds);
  std::vector<double> isotonic(pairs.size()), platt(pairs.size());
  for (size_t fold = 0; fold < folds; ++fold) {
    std::vector<JudgedScore> others;
    for (const auto& pair : pairs)
      if (fold_of[pair.group] != fold) others.push_back(pair);
    Calibration map = fit_calibration(others);
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (fold_of[pairs[i].group] != fold) continue;
      map.method = Calibration::Method::kIsotonic;
      isotonic[i] = map.probability(pairs[i].score);
      map.method = Calibration::Method::kPlatt;
      platt[i] = map.probability(pairs[i].score);
    }
  }
  CrossValidation out{static_cast<int>(folds), std::nullopt, reliability(isotonic, pairs),
                      reliability(platt, pairs)};
  if (highest > 0) {
    std::vector<double> raw;
    for (const auto& pair : pairs) raw.push_back(pair.score / highest);
    out.before = reliability(raw, pairs);
  }
  return out;
}

base::OrderedJson to_json(const Calibration& calibration, const CrossValidation& measured,
                          std::span<const JudgedScore> pairs) {
  std::set<int64_t> groups;
  for (const auto& pair : pairs) groups.insert(pair.group);
  base::OrderedJson json;
  json["erank_calibration"] = kVersion;
  json["method"] = calibration.method == Calibration::Method::kPlatt ? "platt" : "isotonic";
  json["isotonic"] = {{"scores", calibration.scores}, {"probabilities", calibration.probabilities}};
  json["platt"] = {{"slope", calibration.slope}, {"intercept", calibration.intercept}};
  if (calibration.scored_by) json["scored_by"] = to_json(*calibration.scored_by);
  base::OrderedJson& m = json["measured"];
  m["queries"] = groups.size();
  m["pairs"] = pairs.size();
  m["relevant"] = static_cast<int64_t>(count(pairs).relevant);
  m["folds"] = measured.folds;
  m["before"] = measured.before ? reliability_json(*measured.before) : base::OrderedJson(nullptr);
  m["isotonic"] = reliability_json(measured.isotonic);
  m["platt"] = reliability_json(measured.platt);
  return json;
}

Calibration read_calibration(const std::string& path) {
  const base::Json json = base::parse_json(base::read_file(path, size_t{1} << 28), path);
  const auto refuse = [&](const auto&... why) {
    base::fail(ErrorKind::kInvalidInput, "calibration", path, ": ", why...);
  };
  if (!json.is_object() || !json.contains("erank_calibration"))
    refuse("no calibration; expected a file that `erank calibrate` wrote");
  base::refuse_unknown_keys(
      json, {"erank_calibration", "method", "isotonic", "platt", "scored_by", "measured"}, path);
  if (base::json_require<int64_t>(json, "erank_calibration", path) != kVersion)
    refuse("version ", json["erank_calibration"].dump(), ", this program reads ", kVersion);
  for (const char* key : {"isotonic", "platt"})
    if (!json.contains(key) || !json[key].is_object()) refuse("expected an object '", key, "'");
  Calibration map;
  const std::string method = base::json_require<std::string>(json, "method", path);
  if (method != "isotonic" && method != "platt")
    refuse("method '", method, "', expected isotonic or platt");
  if (method == "platt") map.method = Calibration::Method::kPlatt;
  if (json.contains("scored_by")) map.scored_by = scored_by_from_json(json["scored_by"], path);
  map.scores = numbers(json["isotonic"], "scores", path);
  map.probabilities = numbers(json["isotonic"], "probabilities", path);
  map.slope = base::json_require<double>(json["platt"], "slope", path);
  map.intercept = base::json_require<double>(json["platt"], "intercept", path);
  if (map.scores.empty() || map.scores.size() != map.probabilities.size())
    refuse("'scores' and 'probabilities' differ in length or are empty");
  if (map.slope < 0) refuse("'slope' is below 0");
  for (size_t i = 0; i < map.scores.size(); ++i)
    if (map.probabilities[i] < 0 || map.probabilities[i] > 1 ||
        (i > 0 &&
         (map.scores[i] <= map.scores[i - 1] || map.probabilities[i] < map.probabilities[i - 1])))
      refuse("'scores' must rise and 'probabilities' not fall, within 0 and 1; number ", i,
             " does not");
  return map;
}

}  // namespace erank::eval
