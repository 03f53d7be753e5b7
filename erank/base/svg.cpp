#include "erank/base/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "erank/base/error.h"

namespace erank::base {
namespace {

std::string formatted(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

const std::string_view kPlotStyle =
    "text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#444}"
    ".title{font-size:14px;font-weight:600;fill:#111}"
    ".grid{stroke:#e4e4e4;fill:none}.axis{stroke:#888;fill:none}"
    ".curve{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string pixel(double value) { return formatted("%.1f", value); }

std::vector<double> Axis::ticks() const {
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i)
    ticks.push_back(i * step);
  return ticks;
}

std::pair<double, std::string> Axis::unit() const {
  const double largest = std::max(std::abs(low), std::abs(high));
  if (largest >= 1e4 && largest < 1e6) return {1e3, "k"};
  if (largest >= 1e6 && largest < 1e9) return {1e6, "M"};
  if (largest >= 0.01 && largest < 1e9) return {1, ""};
  const double exponent = std::floor(std::log10(largest));
  return {std::pow(10, exponent), "\xc3\x97 1e" + formatted("%.0f", exponent)};
}

std::string Axis::label(double tick) const {
  if (std::abs(tick) < step * 1e-9) return "0";
  const auto [scale, suffix] = unit();
  const int digits = std::max(0, static_cast<int>(std::ceil(-std::log10(step / scale) - 1e-9)));
  char text[32];
  std::snprintf(text, sizeof text, "%.*f%s", digits, tick / scale,
                suffix.size() == 1 ? suffix.c_str() : "");
  return text;
}

Axis make_axis(double low, double high, double count, bool whole) {
  if (high - low < 1e-12 * std::max(std::abs(low), std::abs(high)) || high == low) {
    const double room = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= whole ? 1 : room, high += whole ? 1 : room;
  }
  const double rough = (high - low) / count, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5, 2, 1})
    if (factor * power >= rough) step = factor * power;
  if (whole) step = std::max(1.0, step);
  return {low, high, step};
}

std::string svg_text(double x, double y, std::string_view anchor, std::string_view text) {
  return str("<text x=\"", pixel(x), "\" y=\"", pixel(y), "\" text-anchor=\"", anchor, "\">",
             escaped(text), "</text>\n");
}

std::string svg_frame(const PlotBox& box, const Axis& x, const Axis& y, std::string_view title,
                      std::string_view x_name, std::string_view y_name) {
  std::string out = str("<text x=\"", pixel(box.left), "\" y=\"", pixel(box.top - 14),
                        "\" class=\"title\">", escaped(title), "</text>\n");
  if (const auto [scale, suffix] = y.unit(); suffix.size() > 1)
    out += svg_text(box.right, box.top - 14, "end", suffix);
  for (const double tick : y.ticks()) {
    const double at = y.place(tick, box.bottom, box.top);
    out += str("<path class=\"grid\" d=\"M", pixel(box.left), " ", pixel(at), "H", pixel(box.right),
               "\"/>\n", svg_text(box.left - 7, at + 4, "end", y.label(tick)));
  }
  for (const double tick : x.ticks()) {
    const double at = x.place(tick, box.left, box.right);
    out += str("<path class=\"axis\" d=\"M", pixel(at), " ", pixel(box.bottom), "v4\"/>\n",
               svg_text(at, box.bottom + 17, "middle", x.label(tick)));
  }
  out += str("<path class=\"axis\" d=\"M", pixel(box.left), " ", pixel(box.top), "V",
             pixel(box.bottom), "H", pixel(box.right), "\"/>\n");
  if (!x_name.empty())
    out += svg_text((box.left + box.right) / 2, box.bottom + 34, "middle", x_name);
  if (!y_name.empty()) {
    const double at = (box.top + box.bottom) / 2;
    out += str("<text x=\"13\" y=\"", pixel(at),
               "\" text-anchor=\"middle\" transform=\"rotate(-90 13 ", pixel(at), ")\">",
               escaped(y_name), "</text>\n");
  }
  return out;
}

}  // namespace erank::base
