// An evaluation as text: trec_eval's lines, JSON, the warning about missing topics, ties.
#pragma once

#include <string>

#include "erank/base/json.h"
#include "erank/eval/measures.h"
#include "erank/eval/p_mrr.h"

namespace erank::eval {

struct ReportOptions {
  bool per_topic = false;  // -q: the topics' lines before the summary
  bool summary = true;     // false: -n
};

// trec_eval's output: "%-22s\t%s\t%6.4f" a measure, counts as integers, the summary under "all".
std::string format_lines(const Evaluation& evaluation, const ReportOptions& options = {});

// {measure: {"all": value, "queries": {qid: value}}}; "all" only with options.summary. Values are
// not rounded; runid is a string; a measure without values per topic has no "queries".
base::OrderedJson to_json(const Evaluation& evaluation, const ReportOptions& options = {});

// The same of p-MRR, which is called that.
std::string format_lines(const PMrr& p_mrr, const ReportOptions& options = {});
base::OrderedJson to_json(const PMrr& p_mrr, const ReportOptions& options = {});

// One line that says which topics were left out, or counted as 0, or "" when all took part.
std::string missing_topics(const Evaluation& evaluation);
std::string missing_topics(const PMrr& p_mrr);

// What equal scores leave open: the counts, and what every measure's summary would be with the
// worst and with the best order inside the ties. The evaluations differ in EvalOptions::ties alone.
struct TieReport {
  const Evaluation& evaluation;
  const Evaluation& worst;
  const Evaluation& best;
};

// Lines of the same form as format_lines: tie_hits, tie_groups, tie_largest, tie_topics,
// tie_only_float under "all", then each measure under "worst" and "best".
std::string format_ties(const TieReport& report);
base::OrderedJson to_json(const TieReport& report);

}  // namespace erank::eval
