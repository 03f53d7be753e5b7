#include "erank/data/training_pairs.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <unordered_set>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/records.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::Json;

constexpr const char* kTrainingPairs = "read_training_pairs";
constexpr const char* kPairScores = "read_pair_scores";

std::string id_of(const Json& object, const char* key, const std::string& where) {
  const auto it = object.find(key);
  if (it != object.end() && it->is_number_integer()) return base::dump_json(*it);
  return base::json_require<std::string>(object, key, where);
}

std::array<double, 11> distribution_of(const Json& value, const std::string& where) {
  std::array<double, 11> p{};
  bool good = value.is_array() && value.size() == p.size();
  for (size_t i = 0; good && i < p.size(); ++i) {
    good = value[i].is_number();
    if (good) p[i] = value[i].get<double>();
    good = good && std::isfinite(p[i]) && p[i] >= 0;
  }
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  if (!good || std::abs(sum - 1) > 1e-3)
    base::fail(ErrorKind::kInvalidInput, kTrainingPairs, where,
               ": 'distribution' is not eleven probabilities that add up to 1");
  for (double& x : p) x /= sum;
  return p;
}

// Calls visit(object, line number, file:line) for each line that holds something.
void for_each_object(const std::string& path, const char* reader,
                     const std::function<void(const Json&, int64_t, const std::string&)>& visit) {
  for_each_line(path, [&](std::string_view line, int64_t number) {
    if (line.find_first_not_of(" \t") == line.npos) return;
    const std::string where = base::str(path, ":", number);
    const Json object = base::parse_json(line, where);
    if (!object.is_object())
      base::fail(ErrorKind::kInvalidInput, reader, where, ": expected an object");
    visit(object, number, where);
  });
}

// A number from 0 to 10.
double score_of(const Json& object, const char* key, const char* reader, const std::string& where) {
  const double score = base::json_require<double>(object, key, where);
  if (!(score >= 0 && score <= 10))
    base::fail(ErrorKind::kInvalidInput, reader, where, ": '", key, "' is ",
               base::dump_json(object[key]), ", expected a number from 0 to 10");
  return score;
}

TrainingPair pair_of(const Json& object, const std::string& where) {
  TrainingPair pair;
  pair.qid = id_of(object, "qid", where);
  pair.docid = id_of(object, "docid", where);
  pair.query = base::sanitize_utf8(base::json_require<std::string>(object, "query", where));
  pair.text = base::sanitize_utf8(base::json_require<std::string>(object, "text", where));
  const auto given = [&](const char* key) {
    return object.contains(key) && !object[key].is_null();
  };
  if (given("instruction"))
    pair.instruction = base::json_require<std::string>(object, "instruction", where);
  if (given("thought")) pair.thought = base::json_require<std::string>(object, "thought", where);
  if (given("distribution")) pair.distribution = distribution_of(object["distribution"], where);
  if (given("score")) {
    pair.score =
        static_cast<int>(std::floor(score_of(object, "score", kTrainingPairs, where) + 0.5));
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

std::vector<TrainingPair> read_training_pairs(const std::string& path,
                                              base::ProgressSink* progress) {
  std::vector<TrainingPair> pairs;
  std::unordered_set<std::string> seen;
  for_each_object(
      path, kTrainingPairs, [&](const Json& object, int64_t number, const std::string& where) {
        pairs.push_back(pair_of(object, where));
        pairs.back().line = number;
        const TrainingPair& pair = pairs.back();
        if (!seen.insert(base::dump_json(Json{pair.qid, pair.docid, pair.instruction.value_or("")}))
                 .second)
          base::fail(ErrorKind::kInvalidInput, kTrainingPairs, where, ": query '", pair.qid,
                     "' and document '", pair.docid,
                     "' are together twice; expected each pair once");
        if (progress && pairs.size() % 1000 == 0)
          progress->update(
              {"read training pairs", static_cast<int64_t>(pairs.size()), 0, "pairs", ""});
      });
  if (progress) progress->finish();
  if (pairs.empty())
    base::fail(ErrorKind::kInvalidInput, kTrainingPairs, path,
               ": no pair in it; expected JSON lines with qid, docid, query, text and score");
  return pairs;
}

PairScores read_pair_scores(const std::string& path) {
  PairScores scores;
  for_each_object(path, kPairScores, [&](const Json& object, int64_t, const std::string& where) {
    const std::string qid = id_of(object, "qid", where), docid = id_of(object, "docid", where);
    const auto given = [&](const char* key) {
      return object.contains(key) && !object[key].is_null();
    };
    const char* key = given("integer") ? "integer" : "score";
    if (!given(key)) return;
    if (!scores[qid].emplace(docid, score_of(object, key, kPairScores, where)).second)
      base::fail(ErrorKind::kInvalidInput, kPairScores, where, ": query '", qid, "' and document '",
                 docid, "' are together twice; expected each pair once");
  });
  return scores;
}

}  // namespace erank::data
