#include "erank/eval/comparison_plots.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "erank/base/error.h"
#include "erank/base/svg.h"

namespace erank::eval {
namespace {

using base::Axis;
using base::escaped;
using base::pixel;
using base::str;
using base::svg_text;

constexpr double kWidth = 420, kHeight = 300;
constexpr base::PlotBox kBox = {58, kWidth - 16, 36, kHeight - 46};

// The sixth is the last one that is seen on a light and on a dark page.
std::string colour_of(size_t run) { return std::string(base::kPlotColours[run % 6]); }

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string svg(double height, const std::string& label, const std::string& body,
                double width = kWidth) {
  return str("<svg viewBox=\"0 0 ", width, " ", height, "\" role=\"img\" aria-label=\"",
             escaped(label), "\">\n", body, "</svg>\n");
}

std::string shortened(const std::string& name, size_t longest) {
  if (name.size() <= longest) return name;
  size_t from = name.size() - longest;  // the end tells names apart
  while (from < name.size() && (static_cast<unsigned char>(name[from]) & 0xc0) == 0x80) ++from;
  return "\xe2\x80\xa6" + name.substr(from);
}

std::string bar(double left, double right, double top, double bottom, const std::string& fill,
                const std::string& tip) {
  return str("<rect x=\"", pixel(left), "\" y=\"", pixel(top), "\" width=\"",
             pixel(std::max(0.0, right - left)), "\" height=\"", pixel(std::max(0.0, bottom - top)),
             "\" fill=\"", fill, "\"><title>", escaped(tip), "</title></rect>\n");
}

struct Bins {
  Axis axis;
  double width = 0;
  double low = 0;
  size_t count = 0;

  size_t of(double value) const {
    const double at = (value - low) / width;
    return std::min(count - 1, static_cast<size_t>(std::max(0.0, at)));
  }
  double from(size_t bin) const { return low + static_cast<double>(bin) * width; }
};

// About twenty bars over [low, high], as wide as 1, 2 or 5 times a power of ten.
Bins make_bins(double low, double high, bool whole) {
  const Axis fine = base::make_axis(low, high, 20, whole);
  Bins bins;
  bins.width = fine.step;
  bins.low = std::floor(fine.low / fine.step + 1e-9) * fine.step;
  bins.count =
      static_cast<size_t>(std::max(1.0, std::floor((fine.high - bins.low) / fine.step - 1e-9) + 1));
  bins.axis = base::make_axis(bins.low, bins.from(bins.count), 6, whole);
  return bins;
}

}  // namespace

std::string plot_means(const Comparison& comparison) {
  struct Row {
    std::string name;
    Estimate value;
    size_t run;
    bool blend;
  };
  std::vector<Row> rows;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (size_t r = 0; r < comparison.runs.size(); ++r) {
    const ComparedRun& run = comparison.runs[r];
    rows.push_back({run.name, run.estimates.front(), r, false});
    if (run.blend) rows.push_back({"blend with " + run.name, run.blend->value, r, true});
  }
  for (const Row& row : rows)
    low = std::min(low, row.value.interval.low), high = std::max(high, row.value.interval.high);
  const double room = std::max(0.02, (high - low) * 0.08);
  const Axis x = base::make_axis(std::max(0.0, low - room), high + room, 6, false);
  constexpr double kRow = 40, kTop = 36, kLeft = 16, kRight = kWidth - 16;
  const double bottom = kTop + kRow * static_cast<double>(rows.size());
  std::string body =
      str("<text x=\"", pixel(kLeft), "\" y=\"20\" class=\"title\">Means and ",
          formatted("%.0f", 100 * comparison.options.confidence), " % intervals</text>\n");
  for (const double tick : x.ticks()) {
    const double at = x.place(tick, kLeft, kRight);
    body += str("<path class=\"grid\" d=\"M", pixel(at), " ", pixel(kTop), "V", pixel(bottom),
                "\"/>\n", svg_text(at, bottom + 17, "middle", x.label(tick)));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const double y = kTop + kRow * (static_cast<double>(i) + 0.7);
    const auto at = [&](double value) { return pixel(x.place(value, kLeft, kRight)); };
    const std::string colour = colour_of(row.run);
    body += svg_text(kLeft, y - 12, "start",
                     shortened(row.name, 44) + "  " + formatted("%.4f", row.value.mean));
    body +=
        str("<path class=\"curve\" stroke=\"", colour, "\" d=\"M", at(row.value.interval.low), " ",
            pixel(y), "H", at(row.value.interval.high), "\"/>\n<circle cx=\"", at(row.value.mean),
            "\" cy=\"", pixel(y), "\" r=\"4.5\" stroke=\"", colour,
            "\" stroke-width=\"1.8\" fill=\"", row.blend ? "var(--bg,#fff)" : colour, "\"><title>",
            escaped(row.name), ": ", formatted("%.4f", row.value.mean), "</title></circle>\n");
  }
  body += svg_text((kLeft + kRight) / 2, bottom + 34, "middle",
                   "mean " + comparison.measures.front() + " over queries");
  return svg(bottom + 44, "means", body);
}

std::string plot_scatter(const Comparison& comparison, size_t r) {
  ERANK_CHECK(r > 0 && r < comparison.runs.size());
  const auto& a = comparison.runs.front();
  const auto& b = comparison.runs[r];
  double high = 1e-9;
  for (const auto* values : {&a.values, &b.values})
    for (const double v : *values) high = std::max(high, v);
  const Axis axis = base::make_axis(0, high, 5, false);
  constexpr double kSide = 330;
  const base::PlotBox box = {58, 58 + kSide, 36, 36 + kSide};
  const std::string& measure = comparison.measures.front();
  std::string body = base::svg_frame(
      box, axis, axis, "Each query: " + shortened(b.name, 26) + " against " + shortened(a.name, 16),
      measure + " of " + shortened(a.name, 30), measure + " of " + shortened(b.name, 30));
  body += str("<path class=\"axis\" stroke-dasharray=\"4 3\" d=\"M", pixel(box.left), " ",
              pixel(box.bottom), "L", pixel(box.right), " ", pixel(box.top), "\"/>\n");
  for (size_t q = 0; q < comparison.qids.size(); ++q)
    body += str("<circle cx=\"", pixel(axis.place(a.values[q], box.left, box.right)), "\" cy=\"",
                pixel(axis.place(b.values[q], box.bottom, box.top)),
                "\" r=\"3.6\" fill-opacity=\"0.75\" fill=\"", colour_of(r), "\"><title>",
                escaped(comparison.qids[q]), ": ", formatted("%.4f", a.values[q]), ", ",
                formatted("%.4f", b.values[q]), "</title></circle>\n");
  return svg(box.bottom + 46, "values of each query", body);
}

std::string plot_scores(const Comparison& comparison, size_t r) {
  const ComparedRun& run = comparison.runs[r];
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const GradeScores& grade : run.scores)
    for (const double score : grade.scores)
      low = std::min(low, score), high = std::max(high, score);
  if (!(low <= high)) return "";
  if (run.reliability) low = std::min(low, 0.0), high = std::max(high, run.scale.highest);
  const Bins bins = make_bins(low, high, false);
  constexpr double kRow = 46, kTop = 36;
  const double bottom = kTop + kRow * static_cast<double>(run.scores.size());
  const double left = kBox.left + 50, right = kBox.right;
  const double end = bins.from(bins.count);
  const auto x = [&](double value) {
    return left + (value - bins.low) / (end - bins.low) * (right - left);
  };
  std::string body = str("<text x=\"16\" y=\"20\" class=\"title\">", "Scores of ",
                         escaped(shortened(run.name, 34)), " by grade</text>\n");
  for (size_t g = 0; g < run.scores.size(); ++g) {
    const GradeScores& grade = run.scores[g];
    const double n = static_cast<double>(grade.scores.size()),
                 base_line = kTop + kRow * static_cast<double>(g + 1);
    std::vector<int64_t> counts(bins.count);
    for (const double score : grade.scores) ++counts[bins.of(score)];
    const double most = static_cast<double>(*std::max_element(counts.begin(), counts.end()));
    for (size_t b = 0; b < counts.size(); ++b)
      if (counts[b] > 0)
        body += bar(x(bins.from(b)) + 0.5, x(bins.from(b + 1)) - 0.5,
                    base_line - (kRow - 10) * static_cast<double>(counts[b]) / most, base_line,
                    colour_of(r),
                    str(bins.axis.label(bins.from(b)), " to ", bins.axis.label(bins.from(b + 1)),
                        ": ", counts[b], " pairs"));
    body += str("<path class=\"axis\" d=\"M", pixel(left), " ", pixel(base_line), "H", pixel(right),
                "\"/>\n");
    body += svg_text(left - 8, base_line - 18, "end",
                     grade.grade ? str("grade ", *grade.grade) : "not judged");
    body += svg_text(left - 8, base_line - 4, "end", formatted("n = %.0f", n));
  }
  for (const double tick : bins.axis.ticks())
    body += str("<path class=\"axis\" d=\"M", pixel(x(tick)), " ", pixel(bottom), "v4\"/>\n",
                svg_text(x(tick), bottom + 17, "middle", bins.axis.label(tick)));
  body += svg_text((left + right) / 2, bottom + 34, "middle",
                   "score (bars of a row are scaled to its highest)");
  return svg(bottom + 44, "scores by grade", body);
}

std::string plot_reliability(const Comparison& comparison, size_t r) {
  const ComparedRun& run = comparison.runs[r];
  if (!run.reliability) return "";
  const Axis axis = base::make_axis(0, 1, 5, false);
  std::string body =
      base::svg_frame(kBox, axis, axis, "Reliability of " + shortened(run.name, 36),
                      run.scale.highest == 1 ? "score as probability"
                                             : formatted("score / %.0f", run.scale.highest),
                      "share of relevant pairs");
  body += str("<path class=\"axis\" stroke-dasharray=\"4 3\" d=\"M", pixel(kBox.left), " ",
              pixel(kBox.bottom), "L", pixel(kBox.right), " ", pixel(kBox.top), "\"/>\n");
  int64_t most = 1;
  for (const ReliabilityBin& bin : run.reliability->bins) most = std::max(most, bin.num_pairs);
  std::string line;
  for (const ReliabilityBin& bin : run.reliability->bins) {
    if (bin.num_pairs == 0) continue;
    const double x = axis.place(bin.mean_probability, kBox.left, kBox.right),
                 y = axis.place(bin.share_relevant, kBox.bottom, kBox.top);
    line += str(line.empty() ? "M" : "L", pixel(x), " ", pixel(y));
    body += str(
        "<circle cx=\"", pixel(x), "\" cy=\"", pixel(y), "\" r=\"",
        pixel(3 + 7 * std::sqrt(static_cast<double>(bin.num_pairs) / static_cast<double>(most))),
        "\" fill-opacity=\"0.75\" fill=\"", colour_of(r), "\"><title>", bin.num_pairs,
        " pairs: stated ", formatted("%.3f", bin.mean_probability), ", relevant ",
        formatted("%.3f", bin.share_relevant), "</title></circle>\n");
  }
  body += str("<path class=\"curve\" stroke=\"", colour_of(r), "\" d=\"", line, "\"/>\n");
  body +=
      svg_text(kBox.left + 10, kBox.top + 16, "start",
               "expected calibration error " + formatted("%.3f", run.reliability->expected_error));
  return svg(kHeight, "reliability", body);
}

std::string plot_amounts(const Comparison& comparison, size_t r, Amount amount) {
  const ComparedRun& run = comparison.runs[r];
  const bool time = amount == Amount::kSeconds;
  const std::vector<double>& values = time                           ? run.seconds
                                      : amount == Amount::kNewTokens ? run.new_tokens
                                                                     : run.prompt_tokens;
  if (values.empty()) return "";
  const double high = *std::max_element(values.begin(), values.end());
  if (high <= 0) return "";
  const char* unit = time ? "seconds" : "tokens";
  const char* counted = time ? "queries" : "pairs";
  const Bins bins = make_bins(0, high, !time);
  std::vector<int64_t> counts(bins.count);
  for (const double value : values) ++counts[bins.of(value)];
  const double most = static_cast<double>(*std::max_element(counts.begin(), counts.end()));
  const Axis x = bins.axis, y = base::make_axis(0, most, 5, true);
  const Axis shown = {bins.low, bins.from(bins.count), x.step};
  const char* title = time                           ? "Seconds of a query of "
                      : amount == Amount::kNewTokens ? "Text written by "
                                                     : "Prompts of ";
  std::string body =
      base::svg_frame(kBox, shown, y, title + shortened(run.name, 34), unit, counted);
  for (size_t b = 0; b < counts.size(); ++b)
    if (counts[b] > 0)
      body += bar(shown.place(bins.from(b), kBox.left, kBox.right) + 0.5,
                  shown.place(bins.from(b + 1), kBox.left, kBox.right) - 0.5,
                  y.place(static_cast<double>(counts[b]), kBox.bottom, kBox.top), kBox.bottom,
                  colour_of(r),
                  str(bins.axis.label(bins.from(b)), " to ", bins.axis.label(bins.from(b + 1)), " ",
                      unit, ": ", counts[b], " ", counted));
  return svg(kHeight, time ? "seconds" : "token counts", body);
}

}  // namespace erank::eval
