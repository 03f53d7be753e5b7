#include "erank/data/training_pairs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/json_values.h"
#include "erank/data/source.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::in_quotes;
using base::Json;

constexpr const char* kTrainingPairs = "read_training_pairs";
constexpr const char* kPairScores = "read_pair_scores";

std::string required_id(const JsonValue& from, std::string_view key) {
  const std::string id = id_of(from.value, {&key, 1}, from);
  if (id.empty()) base::json_require<std::string>(from.value, key, from.place.str());
  return id;
}

std::array<double, 11> distribution_of(const Json& value, int max_score, const std::string& where) {
  std::array<double, 11> p{};
  bool good = value.is_array() && value.size() == static_cast<size_t>(max_score) + 1;
  for (size_t i = 0; good && i < value.size(); ++i) {
    good = value[i].is_number();
    if (good) p[i] = value[i].get<double>();
    good = good && std::isfinite(p[i]) && p[i] >= 0;
  }
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  if (!good || std::abs(sum - 1) > 1e-3)
    base::fail(ErrorKind::kInvalidInput, kTrainingPairs, where, ": 'distribution' is not ",
               max_score + 1, " probabilities that add up to 1");
  for (double& x : p) x /= sum;
  return p;
}

// A number from 0 to `most`.
double score_of(const Json& object, const char* key, int most, const char* reader,
                const std::string& where) {
  const double score = base::json_require<double>(object, key, where);
  if (!(score >= 0 && score <= most))
    base::fail(ErrorKind::kInvalidInput, reader, where, ": '", key, "' is ",
               base::dump_json(object[key]), ", expected a number from 0 to ", most);
  return score;
}

TrainingPair pair_of(const JsonValue& value, int max_score) {
  const Json& object = object_of(value);
  const std::string where = value.place.str();
  TrainingPair pair;
  pair.line = value.place.number;
  pair.qid = required_id(value, "qid");
  pair.docid = required_id(value, "docid");
  pair.query = base::json_require<std::string>(object, "query", where);
  pair.text = base::json_require<std::string>(object, "text", where);
  const auto given = [&](const char* key) {
    return object.contains(key) && !object[key].is_null();
  };
  if (given("instruction"))
    pair.instruction = base::json_require<std::string>(object, "instruction", where);
  if (given("thought")) pair.thought = base::json_require<std::string>(object, "thought", where);
  if (given("distribution"))
    pair.distribution = distribution_of(object["distribution"], max_score, where);
  if (given("score")) {
    pair.score = static_cast<int>(
        std::floor(score_of(object, "score", max_score, kTrainingPairs, where) + 0.5));
  } else if (pair.distribution) {
    pair.score =
        static_cast<int>(std::max_element(pair.distribution->begin(), pair.distribution->end()) -
                         pair.distribution->begin());
  } else {
    base::fail(ErrorKind::kInvalidInput, kTrainingPairs, where,
               ": neither 'score' nor 'distribution'; expected one of them");
  }
  return pair;
}

}  // namespace

std::vector<TrainingPair> read_training_pairs(const std::string& path, base::ProgressSink* progress,
                                              ReadNotes* notes, int max_score) {
  std::vector<TrainingPair> pairs;
  std::unordered_set<std::string> seen;
  ByteSource source(path);
  for_each_json(source, notes, [&](const JsonValue& value) {
    pairs.push_back(pair_of(value, max_score));
    const TrainingPair& pair = pairs.back();
    if (!seen.insert(base::dump_json(Json{pair.qid, pair.docid, pair.instruction.value_or("")}))
             .second)
      base::fail(ErrorKind::kInvalidInput, kTrainingPairs, value.place.str(), ": query ",
                 in_quotes(pair.qid), " and document ", in_quotes(pair.docid),
                 " are together twice; expected each pair once");
    if (progress && pairs.size() % 1000 == 0)
      progress->update({"read training pairs", static_cast<int64_t>(pairs.size()), 0, "pairs", ""});
  });
  if (progress) progress->finish();
  if (pairs.empty())
    base::fail(ErrorKind::kInvalidInput, kTrainingPairs, path,
               ": no pair in it; expected JSON lines with qid, docid, query, text and score");
  return pairs;
}

PairScores read_pair_scores(const std::string& path, ReadNotes* notes, int max_score) {
  PairScores scores;
  ByteSource source(path);
  for_each_json(source, notes, [&](const JsonValue& value) {
    const Json& object = object_of(value);
    const std::string where = value.place.str();
    const std::string qid = required_id(value, "qid"), docid = required_id(value, "docid");
    const auto given = [&](const char* key) {
      return object.contains(key) && !object[key].is_null();
    };
    const char* key = given("integer") ? "integer" : "score";
    if (!given(key)) return;
    if (!scores[qid].emplace(docid, score_of(object, key, max_score, kPairScores, where)).second)
      base::fail(ErrorKind::kInvalidInput, kPairScores, where, ": query ", in_quotes(qid),
                 " and document ", in_quotes(docid),
                 " are together twice; expected each pair once");
  });
  return scores;
}

}  // namespace erank::data
