#include "erank/train/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <string_view>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/svg.h"

namespace erank::train {
namespace {

using base::Axis;
using base::ErrorKind;
using base::escaped;
using base::make_axis;
using base::pixel;
using base::str;
using Points = std::vector<std::pair<double, double>>;

// Figures that are drawn first, and how they are called.
constexpr std::pair<std::string_view, std::string_view> kTitles[] = {
    {"validation", "Validation: nDCG@10"},
    {"reward", "Mean reward"},
    {"ndcg_10", "Rollouts: nDCG@10"},
    {"loss", "Loss"},
    {"kl", "KL to the reference (nats)"},
    {"entropy", "Entropy (nats)"},
    {"rollout_tokens", "Length of samples (tokens)"},
    {"learning_rate", "Learning rate"},
    {"gradient_norm", "Gradient norm"},
    {"tokens_per_s", "Speed (tokens/s)"},
    {"share_of_gemm_peak", "Speed (share of the GEMM peak)"},
};
// Counts that say little as a curve.
constexpr std::string_view kNotDrawn[] = {"examples", "learned_tokens", "tokens", "seconds"};

constexpr std::string_view kDashes[] = {"", "6 3", "2 2.5"};
static_assert(std::size(base::kPlotColours) * std::size(kDashes) == kMaxPlottedRuns);

// A panel, in pixels.
constexpr double kWidth = 420, kHeight = 262;
constexpr double kLeft = 54, kRight = kWidth - 14, kTop = 34, kBottom = kHeight - 42;

std::string title_of(std::string_view name) {
  for (const auto& [key, title] : kTitles)
    if (key == name) return std::string(title);
  std::string title;
  for (const char c : name) title += c == '_' ? " " : c == '.' ? ": " : std::string(1, c);
  if (!title.empty() && title[0] >= 'a' && title[0] <= 'z') title[0] += 'A' - 'a';
  return title;
}

// The mean over up to `radius` points on each side.
Points running_mean(const Points& points, size_t radius) {
  std::vector<double> sums = {0};
  for (const auto& [x, y] : points) sums.push_back(sums.back() + y);
  Points means;
  for (size_t i = 0; i < points.size(); ++i) {
    const size_t begin = i - std::min(i, radius), end = std::min(points.size(), i + radius + 1);
    means.emplace_back(points[i].first,
                       (sums[end] - sums[begin]) / static_cast<double>(end - begin));
  }
  return means;
}

// Two points a bucket, its least and its greatest, where there are more than can be seen.
Points thinned(const Points& points) {
  constexpr size_t kBuckets = 400;
  if (points.size() <= 2 * kBuckets) return points;
  Points kept;
  for (size_t b = 0; b < kBuckets; ++b) {
    const auto begin = points.begin() + points.size() * b / kBuckets,
               end = points.begin() + points.size() * (b + 1) / kBuckets;
    auto [least, most] = std::minmax_element(
        begin, end, [](const auto& p, const auto& q) { return p.second < q.second; });
    if (least > most) std::swap(least, most);
    kept.push_back(*least);
    if (least != most) kept.push_back(*most);
  }
  return kept;
}

struct Curve {
  size_t run;
  const Points* points;
};
struct Panel {
  std::string title;
  std::vector<Curve> curves;
};

std::vector<Panel> panels_of(const std::vector<RunCurves>& runs) {
  std::vector<std::string> names;
  for (const auto& [key, title] : kTitles) names.emplace_back(key);
  for (const RunCurves& run : runs)
    for (const auto& figure : run.figures)
      if (std::find(names.begin(), names.end(), figure.name) == names.end() &&
          std::find(std::begin(kNotDrawn), std::end(kNotDrawn), figure.name) == std::end(kNotDrawn))
        names.push_back(figure.name);
  std::vector<Panel> panels;
  for (const std::string& name : names) {
    Panel panel{title_of(name), {}};
    for (size_t i = 0; i < runs.size(); ++i)
      for (const auto& figure : runs[i].figures)
        if (figure.name == name) panel.curves.push_back({i, &figure.points});
    if (!panel.curves.empty()) panels.push_back(std::move(panel));
  }
  return panels;
}

std::string stroke_of(size_t run) {
  const std::string_view dash = kDashes[run / std::size(base::kPlotColours)];
  return str("stroke=\"", base::kPlotColours[run % std::size(base::kPlotColours)], "\"",
             dash.empty() ? "" : str(" stroke-dasharray=\"", dash, "\""));
}

class PanelWriter {
 public:
  explicit PanelWriter(const Panel& panel) : panel_(panel) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    double left = kInfinity, right = -kInfinity, low = kInfinity, high = -kInfinity;
    for (const Curve& curve : panel.curves)
      for (const auto& [x, y] : *curve.points) {
        left = std::min(left, x), right = std::max(right, x);
        low = std::min(low, y), high = std::max(high, y);
      }
    x_ = make_axis(left, right, 6, true);
    const double room = (high - low) * 0.06;
    y_ = make_axis(low - room, high + room, 5, false);
  }

  std::string write() const {
    std::string out =
        base::svg_frame({kLeft, kRight, kTop, kBottom}, x_, y_, panel_.title, "step", "");
    for (const Curve& curve : panel_.curves) out += write_curve(curve);
    return out;
  }

 private:
  const Panel& panel_;
  Axis x_, y_;

  std::string path(const Points& points, std::string_view style) const {
    std::string d;
    for (const auto& [x, y] : points)
      d += str(d.empty() ? "M" : "L", pixel(x_.place(x, kLeft, kRight)), " ",
               pixel(y_.place(y, kBottom, kTop)));
    return str("<path class=\"curve\" ", style, " d=\"", d, "\"/>\n");
  }

  std::string write_curve(const Curve& curve) const {
    constexpr size_t kFew = 40, kMany = 50;
    const Points& points = *curve.points;
    const std::string stroke = stroke_of(curve.run);
    if (points.size() > kMany)
      return path(thinned(points), stroke + " stroke-width=\"1\" opacity=\"0.25\"") +
             path(thinned(running_mean(points, std::max<size_t>(2, points.size() / 50))), stroke);
    std::string out = path(points, stroke);
    if (points.size() > kFew) return out;
    for (const auto& [x, y] : points)
      out += str("<circle cx=\"", pixel(x_.place(x, kLeft, kRight)), "\" cy=\"",
                 pixel(y_.place(y, kBottom, kTop)), "\" r=\"2.4\" fill=\"",
                 base::kPlotColours[curve.run % std::size(base::kPlotColours)], "\"/>\n");
    return out;
  }
};

std::string key_line(size_t run) {
  return str("<path class=\"curve\" ", stroke_of(run), " d=\"M0 6H26\"/>");
}

// About how wide a text is drawn.
double width_of(std::string_view text) { return 7.2 * static_cast<double>(text.size()); }

std::string shortened(const std::string& name) {
  constexpr size_t kLongest = 48;
  if (name.size() <= kLongest) return name;
  size_t from = name.size() - kLongest;  // the end tells runs apart
  while (from < name.size() && (static_cast<unsigned char>(name[from]) & 0xc0) == 0x80) ++from;
  return "\xe2\x80\xa6" + name.substr(from);
}

void collect(const base::OrderedJson& object, const std::string& prefix,
             std::vector<std::pair<std::string, double>>& numbers) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object())
      collect(value, prefix + key + ".", numbers);
    else if (value.is_number())
      numbers.emplace_back(prefix + key, value.get<double>());
  }
}

}  // namespace

RunCurves read_run_curves(const std::string& path) {
  namespace fs = std::filesystem;
  const bool folder = base::folder_exists(path);
  const std::string file = folder ? path + "/log.jsonl" : path;
  const std::string text = base::read_file(file);
  std::vector<std::string> order;
  std::map<std::string, std::map<double, double>> figures;
  size_t line = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const std::string where = str(file, ":", ++line);
    const std::string_view bytes = std::string_view(text).substr(begin, end - begin);
    if (bytes.find_first_not_of(" \t\r") == bytes.npos) continue;
    const base::Json checked = base::parse_json(bytes, where);
    if (!checked.is_object() || !checked.contains("step") || !checked["step"].is_number())
      base::fail(ErrorKind::kInvalidInput, "train plot", where,
                 ": expected an object with a number 'step', as `erank train` writes its log");
    std::vector<std::pair<std::string, double>> numbers;
    collect(base::OrderedJson::parse(bytes), "", numbers);
    for (const auto& [name, value] : numbers) {
      if (name == "step") continue;
      auto [it, fresh] = figures.try_emplace(name);
      if (fresh) order.push_back(name);
      it->second[checked["step"].get<double>()] = value;
    }
  }
  if (order.empty())
    base::fail(ErrorKind::kInvalidInput, "train plot", file,
               ": no line with a number yet; expected the log of a training run");
  fs::path name = fs::absolute(folder ? fs::path(path) : fs::path(path).parent_path() / ".");
  name = name.lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  RunCurves run{name.filename().string(), {}};
  for (const std::string& figure : order)
    run.figures.push_back({figure, {figures[figure].begin(), figures[figure].end()}});
  return run;
}

std::string plot_svg(const std::vector<RunCurves>& runs) {
  ERANK_CHECK(!runs.empty() && runs.size() <= size_t{kMaxPlottedRuns});
  const std::vector<Panel> panels = panels_of(runs);
  const size_t columns = std::min<size_t>(panels.size(), panels.size() > 6 ? 3 : 2);
  const double width = kWidth * static_cast<double>(std::max<size_t>(1, columns));
  std::string legend;
  double x = 16, y = 14;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string name = shortened(runs[i].name);
    const double needed = 34 + width_of(name) + 22;
    if (x > 16 && x + needed > width) x = 16, y += 20;
    legend += str("<g transform=\"translate(", pixel(x), " ", pixel(y), ")\">", key_line(i),
                  "<text x=\"33\" y=\"10\">", escaped(name), "</text></g>\n");
    x += needed;
  }
  const double top = y + 22;
  const size_t rows = (panels.size() + columns - 1) / std::max<size_t>(1, columns);
  const double height = top + kHeight * static_cast<double>(rows) + 4;
  std::string out =
      str("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width, "\" height=\"", height,
          "\" viewBox=\"0 0 ", width, " ", height, "\">\n<style>", base::kPlotStyle,
          "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n", legend);
  for (size_t i = 0; i < panels.size(); ++i)
    out += str("<g transform=\"translate(", kWidth * static_cast<double>(i % columns), " ",
               top + kHeight * static_cast<double>(i / columns), ")\">\n",
               PanelWriter(panels[i]).write(), "</g>\n");
  return out + "</svg>\n";
}

std::string plot_html(const std::vector<RunCurves>& runs) {
  ERANK_CHECK(!runs.empty() && runs.size() <= size_t{kMaxPlottedRuns});
  std::string out = str(
      "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>Training runs</title>\n<style>\n",
      base::kPlotStyle,
      "\nbody{margin:12px;background:#fff;font:14px system-ui,'Segoe UI','DejaVu "
      "Sans',sans-serif;color:#222}\n"
      ".key{display:flex;flex-wrap:wrap;gap:4px 20px;list-style:none;margin:0 0 10px;padding:0}\n"
      ".key li{overflow-wrap:anywhere}.key svg{width:26px;height:12px;margin-right:7px}\n"
      ".panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));"
      "gap:8px;max-width:1500px}\n.panels svg{width:100%;height:auto;display:block}\n"
      "</style>\n<ul class=\"key\">\n");
  for (size_t i = 0; i < runs.size(); ++i)
    out += str("<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\">", key_line(i), "</svg>",
               escaped(runs[i].name), "</li>\n");
  out += "</ul>\n<div class=\"panels\">\n";
  for (const Panel& panel : panels_of(runs))
    out += str("<svg viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\" aria-label=\"",
               escaped(panel.title), "\">\n", PanelWriter(panel).write(), "</svg>\n");
  return out + "</div>\n</html>\n";
}

}  // namespace erank::train
