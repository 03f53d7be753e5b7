// Pieces of pictures: escaped text, axes with round ticks, a frame with title, grid and labels.
// Pure functions; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace erank::base {

// For the text and the attributes of HTML and SVG.
std::string escaped(std::string_view text);

// A coordinate: "%.1f".
std::string pixel(double value);

// Colours of Okabe and Ito, which differ for colour-blind readers too; the last one is black.
inline constexpr std::string_view kPlotColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                    "#e69f00", "#56b4e9", "#000000"};

// The font and the classes of what svg_frame draws; lines of curves have the class "curve".
extern const std::string_view kPlotStyle;

struct Axis {
  double low, high, step;

  double place(double value, double from, double to) const {
    return from + (value - low) / (high - low) * (to - from);
  }
  std::vector<double> ticks() const;
  // What labels leave out: a power of ten, and how it is written.
  std::pair<double, std::string> unit() const;
  std::string label(double tick) const;
};

// An axis over [low, high] with about `count` ticks at 1, 2 or 5 times a power of ten; `whole`: at
// whole numbers only.
Axis make_axis(double low, double high, double count, bool whole);

// <text> at a point; anchor: start, middle or end.
std::string svg_text(double x, double y, std::string_view anchor, std::string_view text);

// Where in a picture the data are, in pixels; y grows downwards.
struct PlotBox {
  double left, right, top, bottom;
};

// Title, horizontal grid lines, ticks with their labels, and the names of both axes with their
// units; no name is drawn where it is "".
std::string svg_frame(const PlotBox& box, const Axis& x, const Axis& y, std::string_view title,
                      std::string_view x_name, std::string_view y_name);

}  // namespace erank::base
