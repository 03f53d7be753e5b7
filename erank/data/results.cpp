#include "erank/data/results.h"

#include <unordered_set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::Json;

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

std::string id_of(const Json& value, const char* reader, const std::string& where,
                  const char* key) {
  if (value.is_string() && !value.get_ref<const std::string&>().empty())
    return value.get<std::string>();
  if (value.is_number_integer()) return base::dump_json(value);
  fail(ErrorKind::kInvalidInput, reader, where, ": '", key,
       "' is missing or no id, expected a text or a whole number");
}

Json at(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? Json(nullptr) : *it;
}

Json parse_object(std::string_view line, const char* reader, const std::string& where) {
  Json object = base::parse_json(base::sanitize_utf8(line), where);
  if (!object.is_object()) fail(ErrorKind::kInvalidInput, reader, where, ": expected an object");
  return object;
}

std::optional<int64_t> count_of(const Json& object, const char* key, const std::string& where) {
  if (at(object, key).is_null()) return std::nullopt;
  return base::json_require<int64_t>(object, key, where);
}

// A distribution is over the answers from 0 to the highest one. Another program's may be something
// else, and says nothing.
void note_scale(const Json& distribution, const std::string& where, std::optional<int>& highest) {
  const int answers = distribution.is_array() ? static_cast<int>(distribution.size()) : 0;
  if (answers != 2 && answers != 4 && answers != 11) return;
  if (highest.value_or(answers - 1) != answers - 1)
    fail(ErrorKind::kInvalidInput, "read_results", where, ": 'distribution' has ", answers,
         " answers, of the lines before it ", *highest + 1, "; expected one scale in a run");
  highest = answers - 1;
}

}  // namespace

Run Results::run() const {
  Run run{qids, {}, ""};
  for (const auto& [qid, list] : results) {
    auto& hits = run.hits[qid];
    for (size_t i = 0; i < list.size(); ++i)
      hits.push_back({list[i].docid,
                      is_jsonl ? static_cast<double>(list.size() - 1 - i) : list[i].score.value()});
  }
  return run;
}

Results read_results(const std::string& path) {
  constexpr const char* kReader = "read_results";
  Results out;
  bool first = true;
  std::unordered_map<std::string, std::unordered_set<std::string>> seen;
  for_each_line(path, [&](std::string_view line, int64_t number) {
    if (is_blank(line)) return;
    if (first) out.is_jsonl = line[line.find_first_not_of(" \t")] == '{';
    first = false;
    if (!out.is_jsonl) return;  // read again below, by the reader of runs
    const std::string where = base::str(path, ":", number);
    const Json object = parse_object(line, kReader, where);
    const std::string qid = id_of(at(object, "qid"), kReader, where, "qid");
    Result result{id_of(at(object, "docid"), kReader, where, "docid"), std::nullopt};
    if (!at(object, "score").is_null())
      result.score = base::json_require<double>(object, "score", where);
    note_scale(at(object, "distribution"), where, out.highest_answer);
    result.reasoning = base::json_value<std::string>(object, "reasoning", "", where);
    result.prompt_tokens = count_of(object, "prompt_tokens", where);
    result.new_tokens = count_of(object, "new_tokens", where);
    if (!seen[qid].insert(result.docid).second)
      fail(ErrorKind::kInvalidInput, kReader, where, ": document '", result.docid, "' of query '",
           qid, "' comes twice; expected each once");
    const auto [it, is_new] = out.results.try_emplace(qid);
    if (is_new) out.qids.push_back(qid);
    it->second.push_back(std::move(result));
  });
  if (out.is_jsonl || first) return out;
  if (!base::file_exists(path))
    fail(ErrorKind::kInvalidInput, kReader, path,
         ": a TREC run is read twice, expected a file, not a stream");
  Run run = read_run(path);
  out.qids = std::move(run.qids);
  for (auto& [qid, hits] : run.hits)
    for (Hit& hit : hits) out.results[qid].push_back({std::move(hit.docid), hit.score});
  return out;
}

}  // namespace erank::data
