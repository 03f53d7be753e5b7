#include "erank/eval/comparison_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "erank/base/error.h"
#include "erank/base/svg.h"
#include "erank/eval/comparison_plots.h"

namespace erank::eval {
namespace {

using base::escaped;
using base::OrderedJson;
using base::str;

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}
std::string four(double value) { return formatted("%.4f", value); }
std::string signed_four(double value) { return formatted("%+.4f", value); }
std::string p_value(double p) { return p < 0.0001 ? "< 0.0001" : four(p); }
std::string percent(const Comparison& c) {
  return formatted("%.0f %%", 100 * c.options.confidence);
}

// The ranking of a query as the measures see it: trec_eval's order of the run.
std::vector<ShownDocument> beginning(const data::Results& results, const data::Qrels& qrels,
                                     const std::string& qid, size_t num_documents) {
  const auto list = results.results.find(qid);
  if (list == results.results.end()) return {};
  std::vector<const data::Result*> order;
  for (const data::Result& result : list->second) order.push_back(&result);
  if (!results.is_jsonl)
    std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      const float x = static_cast<float>(*a->score), y = static_cast<float>(*b->score);
      return x != y ? x > y : a->docid > b->docid;
    });
  if (order.size() > num_documents) order.resize(num_documents);
  std::vector<ShownDocument> shown;
  for (const data::Result* result : order) {
    ShownDocument& document = shown.emplace_back();
    document.docid = result->docid;
    document.score = result->score;
    document.reasoning = result->reasoning;
    const auto& grades = qrels.grades.at(qid);
    if (const auto grade = grades.find(result->docid); grade != grades.end())
      document.grade = grade->second;
  }
  return shown;
}

// A row of the table of comparisons.
struct TestRow {
  std::string name;
  const PairedTest* test;
};
std::vector<TestRow> test_rows(const Comparison& comparison) {
  std::vector<TestRow> rows;
  for (const ComparedRun& run : comparison.runs) {
    if (run.test) rows.push_back({run.name, &*run.test});
    if (run.blend)
      rows.push_back({"blend with " + run.name + ", weights " +
                          formatted("%.1f", run.blend->weights[0]) + " and " +
                          formatted("%.1f", run.blend->weights[1]),
                      &run.blend->test});
  }
  return rows;
}

using Table = std::vector<std::vector<std::string>>;  // the first row is the head

Table means_table(const Comparison& comparison) {
  Table table = {{"run"}};
  for (const std::string& measure : comparison.measures) {
    table[0].push_back(measure);
    table[0].push_back(percent(comparison) + " interval");
  }
  const auto interval = [](const Interval& i) { return four(i.low) + " to " + four(i.high); };
  for (const ComparedRun& run : comparison.runs) {
    auto& row = table.emplace_back();
    row.push_back(run.name);
    for (const Estimate& estimate : run.estimates) {
      row.push_back(four(estimate.mean));
      row.push_back(interval(estimate.interval));
    }
    if (!run.blend) continue;
    auto& blend = table.emplace_back();
    blend = {"blend with " + run.name, four(run.blend->value.mean),
             interval(run.blend->value.interval)};
    blend.resize(table[0].size());
  }
  return table;
}

Table tests_table(const Comparison& comparison) {
  Table table = {{"against " + comparison.runs.front().name, "difference",
                  percent(comparison) + " interval", "wins / ties / losses", "p randomisation",
                  "p t test", "Holm randomisation", "Holm t test"}};
  for (const TestRow& row : test_rows(comparison)) {
    const PairedTest& t = *row.test;
    table.push_back(
        {row.name, signed_four(t.difference.mean),
         signed_four(t.difference.interval.low) + " to " + signed_four(t.difference.interval.high),
         str(t.wins, " / ", t.ties, " / ", t.losses), p_value(t.p_randomization), p_value(t.p_t),
         p_value(t.holm_randomization), p_value(t.holm_t)});
  }
  return table;
}

Table ties_table(const Comparison& comparison) {
  Table table = {{"run", "hits with a score", "tied hits", "groups", "largest", "queries with ties",
                  "equal only as floats"}};
  for (const ComparedRun& run : comparison.runs)
    table.push_back({run.name, str(run.ties.num_hits), str(run.ties.num_tied),
                     str(run.ties.num_groups), str(run.ties.largest_group),
                     str(run.ties.num_topics), str(run.ties.num_only_float)});
  return table;
}

struct Spread {
  double median, p95;
};
std::optional<Spread> spread_of(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  return Spread{quantile(values, 0.5), quantile(values, 0.95)};
}

// Lengths and times: the median, and what 95 % stay below. Only the head where no run has any.
Table amounts_table(const Comparison& comparison) {
  Table table = {{"run, median (95th percentile)", "tokens of a prompt", "tokens written",
                  "seconds of a query"}};
  const auto cell = [](const std::vector<double>& values, const char* format) {
    const auto spread = spread_of(values);
    return spread ? formatted(format, spread->median) + " (" + formatted(format, spread->p95) + ")"
                  : "-";
  };
  for (const ComparedRun& run : comparison.runs)
    if (!run.prompt_tokens.empty() || !run.new_tokens.empty() || !run.seconds.empty())
      table.push_back({run.name, cell(run.prompt_tokens, "%.0f"), cell(run.new_tokens, "%.0f"),
                       cell(run.seconds, "%.3g")});
  return table;
}

// The caption of that table, "" where no run has times.
std::string times_text(const Comparison& comparison) {
  const bool timed = std::any_of(comparison.runs.begin(), comparison.runs.end(),
                                 [](const ComparedRun& run) { return !run.seconds.empty(); });
  return timed ? "Seconds of a query are from when it was handed to the model until its last pair "
                 "had a score. Many queries are under way at once, so they are not what it would "
                 "take alone."
               : "";
}

OrderedJson json_spread(const std::vector<double>& values) {
  const auto spread = spread_of(values);
  if (!spread) return nullptr;
  return {{"mean", mean(values)}, {"median", spread->median}, {"p95", spread->p95}};
}

std::string method_text(const Comparison& c) {
  return str(
      "Intervals: percentile bootstrap over queries, ", c.num_resamples,
      " resamples. Tests: two-sided, paired over queries: randomisation of signs (exact up to 16 "
      "queries, else ",
      c.num_signs, " draws) and Student's t; Holm's correction over all rows. Random draws: seed ",
      c.options.seed,
      ". Blend: z-scores as rerank --hybrid; each half of the queries is blended with the weight "
      "of ",
      c.runs.front().name, " that is best on the other half.");
}

std::string markdown(const Table& table) {
  std::string out;
  for (size_t i = 0; i < table.size(); ++i) {
    for (std::string cell : table[i]) {
      for (size_t at = 0; (at = cell.find('|', at)) != cell.npos; at += 2) cell.insert(at, "\\");
      out += "| " + cell + " ";
    }
    out += "|\n";
    if (i > 0) continue;
    for (size_t c = 0; c < table[0].size(); ++c) out += c == 0 ? "|---" : "|---:";
    out += "|\n";
  }
  return out + "\n";
}

std::string html(const Table& table) {
  std::string out = "<div class=\"wide\"><table>\n";
  for (size_t i = 0; i < table.size(); ++i) {
    out += "<tr>";
    for (const std::string& cell : table[i])
      out += (i == 0 ? "<th>" : "<td>") + escaped(cell) + (i == 0 ? "</th>" : "</td>");
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

// The beginning of a text on one line; at most `width` bytes, whole characters.
std::string start_of(std::string_view text, size_t width) {
  std::string out;
  for (const char c : text.substr(0, 4 * width)) {
    const bool blank = static_cast<unsigned char>(c) <= ' ';
    if (!blank || (!out.empty() && out.back() != ' ')) out += blank ? ' ' : c;
  }
  if (out.size() <= width) return out;
  while (width > 0 && (static_cast<unsigned char>(out[width]) & 0xc0) == 0x80) --width;
  return out.substr(0, width) + "\xe2\x80\xa6";
}

std::string grade_text(const ShownDocument& document) {
  return document.grade ? str("grade ", *document.grade) : "not judged";
}

OrderedJson json(const Estimate& e) {
  return {{"mean", e.mean}, {"low", e.interval.low}, {"high", e.interval.high}};
}

OrderedJson json(const PairedTest& t) {
  return {{"difference", json(t.difference)},
          {"wins", t.wins},
          {"ties", t.ties},
          {"losses", t.losses},
          {"p_randomization", t.p_randomization},
          {"p_t", t.p_t},
          {"holm_randomization", t.holm_randomization},
          {"holm_t", t.holm_t},
          {"queries_needed", t.queries_needed}};
}

std::string_view from_name(ScoreScale::From from) {
  switch (from) {
    case ScoreScale::From::kDistributions:
      return "distributions";
    case ScoreScale::From::kRecord:
      return "record";
    case ScoreScale::From::kOption:
      return "option";
    case ScoreScale::From::kGuess:
      break;
  }
  return "guess";
}

// A sentence for each run: on which scale its scores are read as probabilities.
std::string reliability_text(const Comparison& comparison) {
  std::string out;
  for (const ComparedRun& run : comparison.runs)
    if (run.reliability)
      out += str(out.empty() ? "" : " ", "As probabilities the scores of ", run.name,
                 " are read on the scale 0 to ", run.scale.highest, " (", why(run.scale.from),
                 "): expected calibration error ", four(run.reliability->expected_error), ".");
  return out;
}

OrderedJson by_query(const Comparison& comparison, const std::vector<double>& values) {
  OrderedJson out = OrderedJson::object();
  for (size_t q = 0; q < values.size(); ++q) out[comparison.qids[q]] = values[q];
  return out;
}

OrderedJson json(const std::vector<ShownDocument>& documents) {
  OrderedJson out = OrderedJson::array();
  for (const ShownDocument& d : documents)
    out.push_back({{"docid", d.docid},
                   {"grade", d.grade ? OrderedJson(*d.grade) : OrderedJson(nullptr)},
                   {"score", d.score ? OrderedJson(*d.score) : OrderedJson(nullptr)},
                   {"reasoning", d.reasoning}});
  return out;
}

// A page's colours and forms: light and dark, narrow and wide, on paper.
constexpr std::string_view kPageStyle = R"(
:root{color-scheme:light dark;--bg:#fff;--fg:#1c1e21;--muted:#555b62;--line:#dfe2e5;--card:#f6f7f8;
--yes:#1b7a47;--no:#b3261e;--open:#7a5a00}
@media (prefers-color-scheme:dark){:root{--bg:#15171a;--fg:#e7e9eb;--muted:#a9afb6;--line:#33383e;
--card:#1e2125;--yes:#6fd39b;--no:#ff9a90;--open:#e8c56b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:20px 16px 48px;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,'Segoe UI','DejaVu Sans',sans-serif;overflow-wrap:break-word}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .6em}
h3{font-size:1rem;margin:0 0 .3em}p{margin:.4em 0;max-width:75ch}.note{color:var(--muted);font-size:.87rem}
.answer{border-left:5px solid var(--open);background:var(--card);padding:10px 14px;margin:14px 0;
border-radius:0 6px 6px 0}.answer b{font-size:1.1rem;color:var(--open)}
.answer.yes{border-color:var(--yes)}.answer.yes b{color:var(--yes)}
.answer.no{border-color:var(--no)}.answer.no b{color:var(--no)}
.wide{overflow-x:auto;margin:8px 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;white-space:normal;vertical-align:bottom;min-width:5em}
th:first-child,td:first-child{text-align:left;padding-left:2px}
td:first-child{white-space:normal;min-width:8em}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,370px),1fr));gap:18px}
.plots svg{width:100%;max-width:480px;height:auto;display:block}
svg text{fill:var(--muted)}svg .title{fill:var(--fg)}svg .grid{stroke:var(--line)}svg .axis{stroke:var(--muted)}
.query{background:var(--card);border-radius:6px;padding:12px 14px;margin:12px 0}
.lists{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:6px 26px}
ol{margin:.2em 0;padding-left:1.4em}li{margin:.35em 0}.why{color:var(--muted);font-style:italic}
@media print{:root{font-size:13px;--bg:#fff;--fg:#000;--muted:#333;--line:#bbb;--card:#fff;--yes:#000;--no:#000;--open:#000}
body{max-width:none;padding:0;font-size:10pt}.wide{overflow:visible}table{font-size:7.5pt}
th,td{padding:2px 5px;white-space:normal}.plots{grid-template-columns:1fr 1fr}
.plots svg,.query,.answer,tr{break-inside:avoid}h2{break-after:avoid}.query{border:1px solid var(--line)}}
)";

std::string html_list(const std::string& name, const std::vector<ShownDocument>& documents) {
  std::string out = "<div><div class=\"note\">" + escaped(name) + "</div>\n<ol>\n";
  for (const ShownDocument& d : documents) {
    out += "<li><b>" + escaped(d.docid) + "</b> <span class=\"note\">" + grade_text(d) +
           (d.score ? ", score " + formatted("%.4g", *d.score) : "") + "</span>";
    if (!d.text.empty()) out += "<br>" + escaped(start_of(d.text, 240));
    if (!d.reasoning.empty())
      out += "<br><span class=\"why\">" + escaped(start_of(d.reasoning, 400)) + "</span>";
    out += "</li>\n";
  }
  return out + "</ol></div>\n";
}

}  // namespace

std::vector<ShownQuery> most_changed(const Comparison& comparison, const data::Qrels& qrels,
                                     const std::vector<NamedRun>& runs, size_t num_queries,
                                     size_t num_documents) {
  std::vector<ShownQuery> shown;
  const auto& first = comparison.runs.front();
  for (size_t r = 1; r < comparison.runs.size(); ++r) {
    const auto& own = comparison.runs[r];
    const auto change = [&](size_t q) { return std::abs(own.values[q] - first.values[q]); };
    std::vector<size_t> order;
    for (size_t q = 0; q < comparison.qids.size(); ++q)
      if (change(q) > 1e-12) order.push_back(q);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return change(a) > change(b); });
    if (order.size() > num_queries) order.resize(num_queries);
    for (const size_t q : order) {
      const std::string& qid = comparison.qids[q];
      ShownQuery& query = shown.emplace_back();
      query.run = own.name, query.qid = qid;
      query.before = first.values[q], query.after = own.values[q];
      query.first = beginning(runs.front().results, qrels, qid, num_documents);
      query.own = beginning(runs[r].results, qrels, qid, num_documents);
    }
  }
  return shown;
}

OrderedJson to_json(const Comparison& comparison, const std::vector<ShownQuery>& changed) {
  OrderedJson out;
  out["measures"] = comparison.measures;
  out["num_queries"] = comparison.qids.size();
  out["confidence"] = comparison.options.confidence;
  out["seed"] = comparison.options.seed;
  out["resamples"] = comparison.num_resamples;
  out["sign_draws"] = comparison.num_signs;
  out["warnings"] = comparison.warnings;
  out["runs"] = OrderedJson::array();
  for (const ComparedRun& run : comparison.runs) {
    OrderedJson entry = {{"name", run.name}};
    for (size_t m = 0; m < comparison.measures.size(); ++m)
      entry["means"][comparison.measures[m]] = json(run.estimates[m]);
    entry["queries"] = by_query(comparison, run.values);
    entry["ties"] = {{"hits", run.ties.num_hits},     {"tied", run.ties.num_tied},
                     {"groups", run.ties.num_groups}, {"largest", run.ties.largest_group},
                     {"topics", run.ties.num_topics}, {"only_float", run.ties.num_only_float}};
    entry["prompt_tokens"] = json_spread(run.prompt_tokens);
    entry["new_tokens"] = json_spread(run.new_tokens);
    entry["seconds"] = json_spread(run.seconds);
    entry["reliability"] = nullptr;
    if (run.reliability) {
      OrderedJson& reliability =
          entry["reliability"] = {{"scale", run.scale.highest},
                                  {"scale_from", from_name(run.scale.from)},
                                  {"expected_calibration_error", run.reliability->expected_error},
                                  {"brier", run.reliability->brier}};
      reliability["bins"] = OrderedJson::array();
      for (const ReliabilityBin& bin : run.reliability->bins)
        reliability["bins"].push_back({{"pairs", bin.num_pairs},
                                       {"mean_probability", bin.mean_probability},
                                       {"share_relevant", bin.share_relevant}});
    }
    if (run.test) {
      entry["answer"] = answer_name(run.answer);
      entry["answer_text"] = answer_text(comparison, run);
      entry["test"] = json(*run.test);
    }
    if (run.blend) {
      entry["blend"] = {{"weights", {run.blend->weights[0], run.blend->weights[1]}},
                        {"weight_of_all", run.blend->weight_of_all},
                        {"mean", json(run.blend->value)},
                        {"test", json(run.blend->test)},
                        {"queries", by_query(comparison, run.blend->values)}};
    }
    out["runs"].push_back(std::move(entry));
  }
  out["most_changed"] = OrderedJson::array();
  for (const ShownQuery& query : changed)
    out["most_changed"].push_back({{"run", query.run},
                                   {"qid", query.qid},
                                   {"query", query.text},
                                   {"before", query.before},
                                   {"after", query.after},
                                   {"first", json(query.first)},
                                   {"own", json(query.own)}});
  return out;
}

std::string to_markdown(const Comparison& comparison, const std::vector<ShownQuery>& changed) {
  std::string out = str("# Comparison of ", comparison.runs.size(),
                        comparison.runs.size() == 1 ? " run" : " runs", " over ",
                        comparison.qids.size(), " queries\n\n");
  for (const ComparedRun& run : comparison.runs)
    if (run.test) out += "**" + answer_text(comparison, run) + "**\n\n";
  for (const std::string& warning : comparison.warnings) out += "Note: " + warning + ".\n\n";
  out += "## Means\n\n" + markdown(means_table(comparison));
  if (comparison.runs.size() > 1)
    out += "## Against " + comparison.runs.front().name + ": " + comparison.measures.front() +
           "\n\n" + markdown(tests_table(comparison));
  out += method_text(comparison) + "\n\n## Ties\n\n" + markdown(ties_table(comparison));
  if (const std::string text = reliability_text(comparison); !text.empty())
    out += "## Reliability\n\n" + text + "\n\n";
  if (const Table amounts = amounts_table(comparison); amounts.size() > 1)
    out += "## Lengths and times\n\n" + markdown(amounts);
  if (const std::string text = times_text(comparison); !text.empty()) out += text + "\n\n";
  if (changed.empty()) return out;
  Table table = {{"query", "run", "before", "after", "first now", "text"}};
  for (const ShownQuery& query : changed)
    table.push_back(
        {query.qid, query.run, four(query.before), four(query.after),
         query.own.empty() ? "" : query.own[0].docid + " (" + grade_text(query.own[0]) + ")",
         start_of(query.text, 80)});
  return out + "## Most changed queries\n\n" + markdown(table);
}

std::string to_html(const Comparison& comparison, const std::vector<ShownQuery>& changed) {
  const auto& runs = comparison.runs;
  std::string out =
      str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>Comparison of runs</title>\n<style>\n",
          base::kPlotStyle, kPageStyle, "</style>\n</head>\n<body>\n<h1>",
          runs.size() > 1 ? "Does reranking help on these data?" : "A run and its judgements",
          "</h1>\n<p class=\"note\">", runs.size(), runs.size() == 1 ? " run, " : " runs, ",
          comparison.qids.size(), " judged queries, ", escaped(comparison.measures.front()),
          runs.size() > 1 ? ", compared with " + escaped(runs.front().name) : "", "</p>\n");
  for (const ComparedRun& run : runs) {
    if (!run.test) continue;
    const std::string text = answer_text(comparison, run);
    const size_t verdict = std::min(text.find_first_of(",:"), text.size());
    out += str("<div class=\"answer ",
               run.answer == Answer::kYes  ? "yes"
               : run.answer == Answer::kNo ? "no"
                                           : "open",
               "\"><b>", escaped(text.substr(0, verdict)), "</b>", escaped(text.substr(verdict)),
               "</div>\n");
  }
  for (const std::string& warning : comparison.warnings)
    out += "<p class=\"note\">Note: " + escaped(warning) + ".</p>\n";
  out += "<h2>Means</h2>\n" + html(means_table(comparison));
  out += "<div class=\"plots\">\n" + plot_means(comparison);
  for (size_t r = 1; r < runs.size(); ++r) out += plot_scatter(comparison, r);
  out += "</div>\n";
  if (runs.size() > 1)
    out += "<h2>Against " + escaped(runs.front().name) + ": " +
           escaped(comparison.measures.front()) + "</h2>\n" + html(tests_table(comparison));
  out += "<p class=\"note\">" + escaped(method_text(comparison)) + "</p>\n";
  out += "<h2>Scores</h2>\n" + html(ties_table(comparison)) + "<p class=\"note\">" +
         escaped(reliability_text(comparison)) + "</p>\n<div class=\"plots\">\n";
  for (size_t r = 0; r < runs.size(); ++r)
    out += plot_scores(comparison, r) + plot_reliability(comparison, r);
  out += "</div>\n";
  if (const Table amounts = amounts_table(comparison); amounts.size() > 1) {
    out += "<h2>Lengths and times</h2>\n" + html(amounts) + "<p class=\"note\">" +
           times_text(comparison) + "</p>\n<div class=\"plots\">\n";
    for (size_t r = 0; r < runs.size(); ++r)
      for (const Amount amount : {Amount::kPromptTokens, Amount::kNewTokens, Amount::kSeconds})
        out += plot_amounts(comparison, r, amount);
    out += "</div>\n";
  }
  if (!changed.empty()) out += "<h2>Most changed queries</h2>\n";
  for (const ShownQuery& query : changed)
    out += str("<div class=\"query\">\n<h3>", escaped(query.qid),
               query.text.empty() ? "" : ": " + escaped(start_of(query.text, 300)),
               "</h3>\n<p class=\"note\">", escaped(comparison.measures.front()), " ",
               four(query.before), " before, ", four(query.after),
               " after</p>\n<div class=\"lists\">\n", html_list(runs.front().name, query.first),
               html_list(query.run, query.own), "</div>\n</div>\n");
  return out + "</body>\n</html>\n";
}

}  // namespace erank::eval
