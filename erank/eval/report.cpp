#include "erank/eval/report.h"

#include <cstdio>

#include "erank/base/error.h"

namespace erank::eval {
namespace {

void append_value(std::string& out, const Measure& measure, const std::string& name,
                  const std::string& scope, double value) {
  // A name or an id may be of any length, so only the number goes through a fixed buffer.
  char number[400];
  if (measure.is_count()) {
    std::snprintf(number, sizeof number, "%lld", static_cast<long long>(value));
  } else {
    std::snprintf(number, sizeof number, "%6.4f", value);
  }
  out += name;
  if (name.size() < 22) out.append(22 - name.size(), ' ');
  out += "\t" + scope + "\t" + number + "\n";
}

base::OrderedJson json_value(const Measure& measure, double value) {
  if (measure.is_count()) return static_cast<int64_t>(value);
  return value;
}

// "3 (q1, q2, q3)", the first few alone when there are more.
std::string some(const std::vector<std::string>& qids) {
  std::string text = std::to_string(qids.size()) + " (";
  for (size_t i = 0; i < qids.size() && i < 3; ++i) text += (i ? ", " : "") + qids[i];
  return text + (qids.size() > 3 ? ", ...)" : ")");
}

}  // namespace

std::string format_lines(const Evaluation& evaluation, const ReportOptions& options) {
  std::string out;
  const auto& measures = evaluation.measures;
  for (size_t t = 0; options.per_topic && t < evaluation.qids.size(); ++t)
    for (size_t m = 0; m < measures.size(); ++m)
      if (measures[m].is_per_topic())
        append_value(out, measures[m], measures[m].name, evaluation.qids[t],
                     evaluation.values[t][m]);
  for (size_t m = 0; options.summary && m < measures.size(); ++m) {
    if (measures[m].kind == MeasureKind::kRunId) {
      out += measures[m].name + std::string(22 - measures[m].name.size(), ' ') + "\tall\t" +
             evaluation.run_tag + "\n";
    } else {
      append_value(out, measures[m], measures[m].name, "all", evaluation.summary[m]);
    }
  }
  return out;
}

std::string format_lines(const PMrr& p_mrr, const ReportOptions& options) {
  const Measure measure{.name = "p-MRR", .kind = MeasureKind::kRr};
  std::string out;
  for (size_t q = 0; options.per_topic && q < p_mrr.qids.size(); ++q)
    append_value(out, measure, measure.name, p_mrr.qids[q], p_mrr.values[q]);
  if (options.summary) append_value(out, measure, measure.name, "all", p_mrr.mean);
  return out;
}

base::OrderedJson to_json(const PMrr& p_mrr, const ReportOptions& options) {
  base::OrderedJson out = base::OrderedJson::object();
  if (options.summary) out["all"] = p_mrr.mean;
  base::OrderedJson queries = base::OrderedJson::object();
  for (size_t q = 0; q < p_mrr.qids.size(); ++q) queries[p_mrr.qids[q]] = p_mrr.values[q];
  out["queries"] = std::move(queries);
  return out;
}

base::OrderedJson to_json(const Evaluation& evaluation, const ReportOptions& options) {
  base::OrderedJson out = base::OrderedJson::object();
  for (size_t m = 0; m < evaluation.measures.size(); ++m) {
    const Measure& measure = evaluation.measures[m];
    base::OrderedJson entry = base::OrderedJson::object();
    if (options.summary) {
      if (measure.kind == MeasureKind::kRunId) {
        entry["all"] = evaluation.run_tag;
      } else {
        entry["all"] = json_value(measure, evaluation.summary[m]);
      }
    }
    if (measure.is_per_topic()) {
      base::OrderedJson queries = base::OrderedJson::object();
      for (size_t t = 0; t < evaluation.qids.size(); ++t)
        queries[evaluation.qids[t]] = json_value(measure, evaluation.values[t][m]);
      entry["queries"] = std::move(queries);
    }
    out[measure.name] = std::move(entry);
  }
  return out;
}

std::string missing_topics(const Evaluation& evaluation) {
  std::string text;
  if (!evaluation.not_judged.empty())
    text = "topics of the run without judgements, left out: " + some(evaluation.not_judged);
  if (evaluation.not_in_run.empty()) return text;
  if (!text.empty()) text += "; ";
  const std::string missing = some(evaluation.not_in_run);
  return text + "topics of the judgements that the run lacks, " +
         (evaluation.complete ? "counted as 0: " + missing
                              : "left out: " + missing + ", which eval -c counts as 0");
}

std::string missing_topics(const PMrr& p_mrr) {
  return p_mrr.missing.empty() ? ""
                               : "queries without both rankings, -og and -changed, left out of "
                                 "p-MRR: " +
                                     some(p_mrr.missing);
}

std::string format_ties(const TieReport& report) {
  const TieCounts& ties = report.evaluation.ties;
  const Measure count{.name = "", .kind = MeasureKind::kNumRet};
  std::string out;
  append_value(out, count, "tie_hits", "all", static_cast<double>(ties.num_tied));
  append_value(out, count, "tie_groups", "all", static_cast<double>(ties.num_groups));
  append_value(out, count, "tie_largest", "all", static_cast<double>(ties.largest_group));
  append_value(out, count, "tie_topics", "all", static_cast<double>(ties.num_topics));
  append_value(out, count, "tie_only_float", "all", static_cast<double>(ties.num_only_float));
  const auto& measures = report.evaluation.measures;
  for (size_t m = 0; m < measures.size(); ++m) {
    if (measures[m].kind == MeasureKind::kRunId || measures[m].is_count()) continue;
    append_value(out, measures[m], measures[m].name, "worst", report.worst.summary[m]);
    append_value(out, measures[m], measures[m].name, "best", report.best.summary[m]);
  }
  return out;
}

base::OrderedJson to_json(const TieReport& report) {
  const TieCounts& ties = report.evaluation.ties;
  base::OrderedJson out = {{"hits", ties.num_tied},
                           {"groups", ties.num_groups},
                           {"largest", ties.largest_group},
                           {"topics", ties.num_topics},
                           {"only_float", ties.num_only_float}};
  const auto& measures = report.evaluation.measures;
  for (size_t m = 0; m < measures.size(); ++m) {
    if (measures[m].kind == MeasureKind::kRunId || measures[m].is_count()) continue;
    out["measures"][measures[m].name] = {{"worst", report.worst.summary[m]},
                                         {"best", report.best.summary[m]}};
  }
  return out;
}

}  // namespace erank::eval
