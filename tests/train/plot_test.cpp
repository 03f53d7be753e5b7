#include "erank/train/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <regex>
#include <set>

#include "erank/base/error.h"
#include "tests/test_folder.h"

namespace erank::train {
namespace {

using ::testing::HasSubstr;
using Points = std::vector<std::pair<double, double>>;

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += what.size()) ++n;
  return n;
}

std::string error_of(const std::string& path) {
  try {
    read_run_curves(path);
  } catch (const base::Error& e) {
    return e.what();
  }
  return "";
}

RunCurves run(const std::string& name, const std::string& figure, Points points) {
  return {name, {{figure, std::move(points)}}};
}

TEST(Plot, ReadsTheNumbersOfALogAndTheLaterOfTwoLines) {
  const TestFolder folder;
  const std::string log = folder.write(
      "runs/a b/log.jsonl",
      "{\"step\": 1, \"reward\": 0.5, \"loss\": null, \"by_case\": {\"above\": -1}}\n"
      "{\"step\": 2, \"reward\": 0.75}\n{\"step\": 2, \"validation\": 0.4, \"best\": true}\n"
      "{\"step\": 1, \"resumed\": true}\n{\"step\": 2, \"reward\": 0.25, \"loss\": 3}\n"
      "{\"step\": 3, \"rew");
  for (const std::string& path : {log, folder.path("runs/a b"), folder.path("runs/a b/")}) {
    const RunCurves found = read_run_curves(path);
    EXPECT_EQ(found.name, "a b");
    ASSERT_EQ(found.figures.size(), 4u);
    EXPECT_EQ(found.figures[0].name, "reward");
    EXPECT_EQ(found.figures[0].points, (Points{{1, 0.5}, {2, 0.25}}));
    EXPECT_EQ(found.figures[1].name, "by_case.above");
    EXPECT_EQ(found.figures[1].points, (Points{{1, -1}}));
    EXPECT_EQ(found.figures[2].name, "validation");
    EXPECT_EQ(found.figures[3].points, (Points{{2, 3}}));
  }
}

TEST(Plot, SaysWhatIsNoLog) {
  const TestFolder folder;
  EXPECT_THAT(error_of(folder.path("none")), HasSubstr("none"));
  EXPECT_THAT(error_of(folder.write("a.jsonl", "{\"step\": 1, \"loss\": 1}\n[1]\n")),
              HasSubstr("a.jsonl:2: expected an object with a number 'step'"));
  EXPECT_THAT(error_of(folder.write("b.jsonl", "{\"step\": 1\n")), HasSubstr("b.jsonl:1"));
  EXPECT_THAT(error_of(folder.write("c.jsonl", "")), HasSubstr("no line with a number yet"));
}

TEST(Plot, DrawsAPanelForEachFigureAndALineForEachRun) {
  RunCurves first = run("first", "zeta_b.c", {{1, 2}, {2, 3}});
  first.figures.push_back({"kl", {{1, 1e-6}, {2, 3e-6}}});
  first.figures.push_back({"seconds", {{1, 5}}});
  const RunCurves second = run("<second> & \"co\"", "kl", {{1, 2e-6}, {5, 1e-6}});
  const std::string svg = plot_svg({first, second});
  EXPECT_EQ(count(svg, "class=\"title\""), 2u);
  EXPECT_LT(svg.find(">KL to the reference (nats)<"), svg.find(">Zeta b: c<"));
  EXPECT_EQ(count(svg, "class=\"curve\""), 2u + 3u);  // the legend's and the panels'
  EXPECT_EQ(count(svg, "<circle"), 6u);
  EXPECT_THAT(svg, HasSubstr(">first<"));
  EXPECT_THAT(svg, HasSubstr("&lt;second&gt; &amp; &quot;co&quot;"));
  EXPECT_THAT(svg, HasSubstr("1e-6"));  // the unit of KL's labels
  EXPECT_EQ(count(svg, ">step<"), 2u);
  const std::string html = plot_html({first, second});
  EXPECT_EQ(count(html, "<svg"), 4u);
  EXPECT_EQ(count(html, "</svg>"), 4u);
  EXPECT_THAT(html, HasSubstr("width=device-width"));
  EXPECT_EQ(html.find("http"), html.npos);  // nothing to load
}

// The y of each tick's label and the pixel that its line has lie on one line with the curve's.
TEST(Plot, PutsCurvesWhereTheirTicksSay) {
  for (const double scale : {1.0, 1e-6, 20000.0}) {
    const std::string svg = plot_svg({run("r", "x", {{0, 0}, {10, 5 * scale}, {20, 10 * scale}})});
    std::vector<std::pair<double, double>> ticks;  // value in the labels' unit, pixel
    const std::regex pattern(
        R"(class="grid" d="M[\d.]+ ([\d.]+)H[^\n]*\n<text[^>]*>([-\d.]+)[kM]?<)");
    for (auto it = std::sregex_iterator(svg.begin(), svg.end(), pattern);
         it != std::sregex_iterator(); ++it)
      ticks.emplace_back(std::stod((*it)[2]), std::stod((*it)[1]));
    ASSERT_GE(ticks.size(), 3u) << svg;
    const double unit = scale == 1 ? 1 : scale < 1 ? 1e-5 : 1e3;
    std::smatch curve;
    const std::regex middle(R"re( d="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"/>)re");
    ASSERT_TRUE(std::regex_search(svg, curve, middle));
    const auto pixel_of = [&](double value) {
      const auto [v0, p0] = ticks.front();
      const auto [v1, p1] = ticks.back();
      return p0 + (value / unit - v0) / (v1 - v0) * (p1 - p0);
    };
    for (int i = 0; i < 3; ++i)
      EXPECT_NEAR(std::stod(curve[i + 1]), pixel_of(5 * scale * i), 0.2) << scale;
  }
}

TEST(Plot, DrawsOnePointAndAConstantCurve) {
  for (const Points& points : {Points{{3, 0}}, Points{{3, 1e-6}}, Points{{1, -1}, {9, -1}}}) {
    const std::string svg = plot_svg({run("r", "loss", points)});
    EXPECT_EQ(svg.find("nan"), svg.npos);
    EXPECT_EQ(svg.find("inf"), svg.npos);
    EXPECT_GE(count(svg, "class=\"grid\""), 2u);
  }
}

TEST(Plot, KeepsTheExtremesOfLongCurvesAndDrawsTheirMean) {
  Points points;
  for (int i = 0; i < 20000; ++i) points.emplace_back(i, i == 12345 ? 100 : i % 2);
  const std::string svg = plot_svg({run("r", "loss", points)});
  EXPECT_LT(svg.size(), 60000u);
  EXPECT_EQ(count(svg, "class=\"curve\""), 3u);  // the legend's, the values', the mean's
  std::smatch curve;
  ASSERT_TRUE(std::regex_search(svg, curve, std::regex(R"(opacity="0.25" d="([^"]*)\")")));
  double top = INFINITY;
  const std::string d = curve[1];
  const std::regex place(R"([ML][\d.]+ ([\d.]+))");
  for (auto it = std::sregex_iterator(d.begin(), d.end(), place); it != std::sregex_iterator();
       ++it)
    top = std::min(top, std::stod((*it)[1]));
  EXPECT_LT(top, 60);  // one point of 20,000 reaches the top of the panel
}

TEST(Plot, TellsRunsApartByColourThenByDashes) {
  std::vector<RunCurves> runs;
  for (int i = 0; i < kMaxPlottedRuns; ++i)
    runs.push_back(run("run" + std::to_string(i), "loss", {{1, i}, {2, i + 1}}));
  const std::string svg = plot_svg(runs);
  std::set<std::string> strokes;
  const std::regex stroke(R"(class="curve" (stroke="[^"]*"( stroke-dasharray="[^"]*")?))");
  for (auto it = std::sregex_iterator(svg.begin(), svg.end(), stroke); it != std::sregex_iterator();
       ++it)
    strokes.insert((*it)[1]);
  EXPECT_EQ(strokes.size(), static_cast<size_t>(kMaxPlottedRuns));
  runs.push_back(runs.front());
  EXPECT_THROW(plot_svg(runs), base::InternalError);
}

}  // namespace
}  // namespace erank::train
