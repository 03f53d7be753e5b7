#include "erank/data/query_times.h"

#include <cmath>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/data/json_values.h"
#include "erank/data/source.h"

namespace erank::data {

std::string to_line(const QueryTime& t) {
  return base::dump_json(base::OrderedJson{{"qid", t.qid},
                                           {"pairs", t.pairs},
                                           {"seconds", std::round(t.seconds * 1e6) / 1e6},
                                           {"prompt_tokens", t.prompt_tokens},
                                           {"cached_tokens", t.cached_tokens},
                                           {"new_tokens", t.new_tokens}}) +
         "\n";
}

std::unordered_map<std::string, double> read_query_seconds(const std::string& path) {
  std::unordered_map<std::string, double> out;
  ByteSource source(path);
  for_each_json(source, nullptr, [&](const JsonValue& value) {
    const base::Json& object = object_of(value);
    const std::string where = value.place.str();
    const auto qid = base::json_require<std::string>(object, "qid", where);
    const auto seconds = base::json_require<double>(object, "seconds", where);
    if (!(seconds >= 0))
      base::fail(base::ErrorKind::kInvalidInput, "read_query_seconds", where, ": 'seconds' is ",
                 seconds, ", expected 0 or more");
    out[qid] += seconds;
  });
  return out;
}

}  // namespace erank::data
