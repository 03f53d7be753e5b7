#include "erank/rank/result_json.h"

#include <algorithm>
#include <iterator>

#include "erank/base/error.h"

namespace erank::rank {
namespace {

using base::ErrorKind;
using base::Json;
using base::OrderedJson;

constexpr Finish kFinishes[] = {Finish::kAnswered, Finish::kForced, Finish::kClipped};

OrderedJson number_or_null(const std::optional<double>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

}  // namespace

std::string finish_name(Finish finish) {
  switch (finish) {
    case Finish::kAnswered:
      return "answered";
    case Finish::kForced:
      return "forced";
    case Finish::kClipped:
      break;
  }
  return "clipped";
}

std::string error_name(PassageError::Kind kind) {
  switch (kind) {
    case PassageError::Kind::kTooLong:
      return "too_long";
    case PassageError::Kind::kNoRoom:
      return "no_room";
    case PassageError::Kind::kNotFinite:
      return "not_finite";
    case PassageError::Kind::kCancelled:
      return "cancelled";
    case PassageError::Kind::kFailed:
      break;
  }
  return "failed";
}

OrderedJson to_json(const std::string& qid, int64_t rank, const PassageResult& r) {
  if (r.error) {
    OrderedJson json = unscored_json(qid, rank, r.docid, r.first_stage_score);
    json["flags"] = r.flags;
    json["error"] = {{"kind", error_name(r.error->kind)}, {"message", r.error->message}};
    return json;
  }
  OrderedJson json;
  json["qid"] = qid;
  json["docid"] = r.docid;
  json["rank"] = rank;
  json["score"] = r.score;
  json["integer"] = r.integer;
  json["probability"] = r.probability;
  json["distribution"] = r.distribution.answers();
  if (r.relevance) json["relevance"] = *r.relevance;
  json["first_stage_score"] = number_or_null(r.first_stage_score);
  json["reasoning"] = r.reasoning;
  json["finish"] = finish_name(r.finish);
  json["flags"] = r.flags;
  if (r.window)
    json["window"] = {{"number", r.window->number},
                      {"of", r.window->of},
                      {"begin", r.window->begin},
                      {"end", r.window->end}};
  json["prompt_tokens"] = r.prompt_tokens;
  json["new_tokens"] = r.new_tokens;
  return json;
}

OrderedJson unscored_json(const std::string& qid, int64_t rank, const std::string& docid,
                          std::optional<double> first_stage_score) {
  OrderedJson json;
  json["qid"] = qid;
  json["docid"] = docid;
  json["rank"] = rank;
  for (const char* key : {"score", "integer", "probability", "distribution"}) json[key] = nullptr;
  json["first_stage_score"] = number_or_null(first_stage_score);
  json["reasoning"] = "";
  json["finish"] = nullptr;
  json["flags"] = {"not_reranked"};
  json["prompt_tokens"] = 0;
  json["new_tokens"] = 0;
  return json;
}

PassageResult result_from_json(const Json& json, const std::string& where) {
  if (!json.is_object())
    base::fail(ErrorKind::kInvalidInput, "result", where, ": expected an object");
  PassageResult r;
  r.docid = base::json_require<std::string>(json, "docid", where);
  r.score = base::json_require<double>(json, "score", where);
  r.probability = base::json_require<double>(json, "probability", where);
  const size_t size = json.contains("distribution") && json["distribution"].is_array()
                          ? json["distribution"].size()
                          : 0;
  bool known = false;
  for (const auto scale : {text::Scale::kYesNo, text::Scale::kZeroToThree, text::Scale::kZeroToTen})
    if (size == static_cast<size_t>(text::max_answer(scale)) + 1) {
      r.distribution.scale = scale;
      known = true;
    }
  if (!known)
    base::fail(ErrorKind::kInvalidInput, "result", where,
               ": 'distribution' is not a list of 11, 4 or 2 numbers");
  r.integer = base::json_require<int>(json, "integer", where);
  if (const int most = text::max_answer(r.distribution.scale); r.integer < 0 || r.integer > most)
    base::fail(ErrorKind::kInvalidInput, "result", where, ": 'integer' is ", r.integer,
               ", expected 0 to ", most);
  double sum = 0;
  for (size_t i = 0; i < size; ++i) {
    const Json& p = json["distribution"][i];
    if (!p.is_number())
      base::fail(ErrorKind::kInvalidInput, "result", where, ": 'distribution' holds no number at ",
                 i);
    sum += r.distribution.p[i] = p.get<double>();
  }
  r.distribution.p_other = 1 - sum;
  r.distribution.ten_follows_one = r.integer == 10;
  if (json.contains("first_stage_score") && !json["first_stage_score"].is_null())
    r.first_stage_score = base::json_require<double>(json, "first_stage_score", where);
  r.reasoning = base::json_require<std::string>(json, "reasoning", where);
  const std::string finish = base::json_require<std::string>(json, "finish", where);
  const auto same = std::find_if(std::begin(kFinishes), std::end(kFinishes), [&](Finish candidate) {
    return finish_name(candidate) == finish;
  });
  if (same == std::end(kFinishes))
    base::fail(ErrorKind::kInvalidInput, "result", where, ": 'finish' is '", finish,
               "', expected answered, forced or clipped");
  r.finish = *same;
  const Json flags = json.contains("flags") ? json["flags"] : Json::array();
  if (!flags.is_array() ||
      !std::all_of(flags.begin(), flags.end(), [](const Json& flag) { return flag.is_string(); }))
    base::fail(ErrorKind::kInvalidInput, "result", where, ": 'flags' is no list of names");
  r.flags = flags.get<std::vector<std::string>>();
  if (const auto window = json.find("window"); window != json.end()) {
    const std::string here = where + ": window";
    r.window = {base::json_require<int>(*window, "number", here),
                base::json_require<int>(*window, "of", here),
                base::json_require<int64_t>(*window, "begin", here),
                base::json_require<int64_t>(*window, "end", here)};
  }
  r.prompt_tokens = base::json_require<int64_t>(json, "prompt_tokens", where);
  r.new_tokens = base::json_require<int64_t>(json, "new_tokens", where);
  return r;
}

}  // namespace erank::rank
