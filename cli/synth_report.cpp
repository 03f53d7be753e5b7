#include "cli/synth_report.h"

#include <algorithm>

#include "cli/text_table.h"
#include "erank/base/error.h"
#include "erank/eval/measures.h"

namespace erank::cli {
namespace {

using synth::LabelReport;

// Mean over the queries that both have; nullopt: none.
std::optional<std::pair<double, int64_t>> ndcg(const data::Qrels& qrels, const data::Run& run) {
  if (std::none_of(run.qids.begin(), run.qids.end(),
                   [&](const std::string& qid) { return qrels.grades.count(qid); }))
    return std::nullopt;
  const auto evaluation = eval::evaluate(qrels, run, eval::parse_measures({"nDCG@10"}));
  return std::pair{evaluation.summary[0], std::ssize(evaluation.qids)};
}

std::string percent(int64_t part, int64_t whole) {
  return formatted("%.0f %%",
                   whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0);
}

std::string line(const std::string& name, const std::string& text) {
  return padded(name, 12) + text + "\n";
}

}  // namespace

std::optional<double> cost_of(const Prices& prices, int64_t prompt_tokens,
                              int64_t completion_tokens) {
  if (!prices.in && !prices.out) return std::nullopt;
  return (static_cast<double>(prompt_tokens) * prices.in.value_or(0) +
          static_cast<double>(completion_tokens) * prices.out.value_or(0)) /
         1e6;
}

std::optional<SynthReport::Quality> quality_of(const synth::Labelling& labelling,
                                               const data::Qrels& qrels) {
  using Scores = synth::Labelling::Scores;
  const data::Run labels = labelling.run(Scores::kLabel);
  const auto label = ndcg(qrels, labels);
  if (!label) return std::nullopt;
  SynthReport::Quality quality;
  quality.label = label->first;
  quality.queries = label->second;
  quality.consensus = ndcg(qrels, labelling.run(Scores::kConsensus))->first;
  const auto first_stage = ndcg(qrels, labelling.run(Scores::kFirstStage));
  if (first_stage && first_stage->second == quality.queries)
    quality.first_stage = first_stage->first;
  for (const auto& qid : labels.qids) {
    const auto judged = qrels.grades.find(qid);
    if (judged == qrels.grades.end()) continue;
    for (const data::Hit& hit : labels.hits.at(qid)) {
      const auto grade = judged->second.find(hit.docid);
      if (grade == judged->second.end()) continue;
      auto& [pairs, mean] = quality.grades[grade->second];
      ++pairs;
      mean += (hit.score - mean) / static_cast<double>(pairs);
    }
  }
  return quality;
}

std::string to_text(const SynthReport& report) {
  const LabelReport& r = report.labels;
  std::string out;
  out += line("requests", base::str(r.answered, " of ", r.requests, " answered, ", r.failed,
                                    " failed; sent now ", report.sent));
  out += line("answers", base::str(r.used, " used, ", r.too_long, " over ", report.max_tokens,
                                   " tokens, ", r.unformatted, " without a readable answer"));
  std::string models;
  for (const auto& [model, count] : r.models)
    models +=
        base::str(models.empty() ? "" : ", ", model.empty() ? "not said" : one_line(model, 60),
                  r.models.size() > 1 ? base::str(" (", count, ")") : "");
  if (!models.empty()) out += line("model", models);
  out += line("pairs", base::str(r.labelled, " of ", r.pairs, " labelled, of ", r.queries,
                                 r.queries == 1 ? " query" : " queries"));
  if (r.labelled > 0) {
    text::ScoreDistribution shares;
    for (size_t i = 0; i < shares.p.size(); ++i)
      shares.p[i] = static_cast<double>(r.histogram[i]) / static_cast<double>(r.labelled);
    out += line("labels",
                base::str("0 ", distribution_bar(shares), " 10   mean ", formatted("%.2f", r.mean),
                          ", standard deviation ", formatted("%.2f", r.deviation)));
  }
  if (r.sampled_pairs > 0)
    out += line("samples", base::str("standard deviation of a pair's scores ",
                                     formatted("%.2f", r.sample_deviation), ", all the same in ",
                                     percent(r.unanimous, r.sampled_pairs)));
  if (report.judge == synth::Judge::kPairs)
    out += line("ties", base::str(r.ties, " of ", r.used, " comparisons"));
  if (const auto& q = report.quality) {
    out += line(
        "nDCG@10",
        base::str("labels ", formatted("%.4f", q->label),
                  report.judge == synth::Judge::kPoints
                      ? ", consensus " + formatted("%.4f", q->consensus)
                      : "",
                  q->first_stage ? ", first stage " + formatted("%.4f", *q->first_stage) : "", " (",
                  q->queries, q->queries == 1 ? " query" : " queries", " with judgements)"));
    std::string grades;
    for (const auto& [grade, mean] : q->grades)
      grades += base::str(grades.empty() ? "" : ", ", grade, ": ", formatted("%.2f", mean.second),
                          " (", mean.first, ")");
    out += line("by grade", grades + (grades.empty() ? "none is judged" : " mean label (pairs)"));
  }
  out += line("tokens", base::str("prompt ", r.prompt_tokens, ", completion ", r.completion_tokens,
                                  r.without_usage > 0 ? base::str("; ", r.without_usage,
                                                                  " answers are not counted, the "
                                                                  "server does not say")
                                                      : ""));
  if (report.cost) out += line("cost", formatted("%.4f", *report.cost));
  return out;
}

base::OrderedJson to_json(const SynthReport& report) {
  const LabelReport& r = report.labels;
  base::OrderedJson json;
  json["requests"] = r.requests;
  json["answered"] = r.answered;
  json["failed"] = r.failed;
  json["sent"] = report.sent;
  json["used"] = r.used;
  json["too_long"] = r.too_long;
  json["unformatted"] = r.unformatted;
  json["models"] = r.models;
  json["queries"] = r.queries;
  json["pairs"] = r.pairs;
  json["labelled"] = r.labelled;
  json["histogram"] = r.histogram;
  json["mean"] = r.mean;
  json["deviation"] = r.deviation;
  json["sampled_pairs"] = r.sampled_pairs;
  json["sample_deviation"] = r.sample_deviation;
  json["unanimous"] = r.unanimous;
  if (report.judge == synth::Judge::kPairs) json["ties"] = r.ties;
  json["ndcg"] = nullptr;
  if (const auto& q = report.quality) {
    json["ndcg"] = {{"queries", q->queries}, {"label", q->label}, {"consensus", q->consensus}};
    json["ndcg"]["first_stage"] =
        q->first_stage ? base::OrderedJson(*q->first_stage) : base::OrderedJson();
    json["grades"] = base::OrderedJson::object();
    for (const auto& [grade, mean] : q->grades)
      json["grades"][std::to_string(grade)] = {{"pairs", mean.first}, {"mean", mean.second}};
  }
  json["prompt_tokens"] = r.prompt_tokens;
  json["completion_tokens"] = r.completion_tokens;
  json["without_usage"] = r.without_usage;
  json["cost"] = report.cost ? base::OrderedJson(*report.cost) : base::OrderedJson();
  return json;
}

}  // namespace erank::cli
