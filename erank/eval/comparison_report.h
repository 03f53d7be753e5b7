// A comparison as JSON, Markdown, and as one HTML page that needs nothing else.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "erank/base/json.h"
#include "erank/eval/comparison.h"

namespace erank::eval {

struct ShownDocument {
  std::string docid;
  std::optional<int64_t> grade;
  std::optional<double> score;
  std::string reasoning = {};
  std::string text = {};  // for the caller to fill in, as is ShownQuery::text
};

// A query on which a run differs from the first one, with both rankings' beginnings.
struct ShownQuery {
  std::string run;
  std::string qid, text = {};
  double before = 0, after = 0;  // values of the first measure
  std::vector<ShownDocument> first, own;
};

// Of each run but the first the `num_queries` whose values differ most from the first run's,
// largest difference first, equal ones by query; with `num_documents` documents each. Queries
// without a difference are left out.
std::vector<ShownQuery> most_changed(const Comparison& comparison, const data::Qrels& qrels,
                                     const std::vector<NamedRun>& runs, size_t num_queries = 10,
                                     size_t num_documents = 3);

base::OrderedJson to_json(const Comparison& comparison, const std::vector<ShownQuery>& changed);
std::string to_markdown(const Comparison& comparison, const std::vector<ShownQuery>& changed);
std::string to_html(const Comparison& comparison, const std::vector<ShownQuery>& changed);

}  // namespace erank::eval
