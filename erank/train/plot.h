// Curves of training runs from their logs, as a picture. Pure but for reading; thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace erank::train {

struct RunCurves {
  struct Figure {
    std::string name;  // its key in the log; "a.b" for b in an object a
    std::vector<std::pair<double, double>> points;  // step and value, ascending, each step once
  };
  std::string name;             // how the legend calls it
  std::vector<Figure> figures;  // in the log's order
};

// The numbers in a log.jsonl (docs/formats.md, "Training folder"), or in that of a folder. Of lines
// of one step the later one counts, a last line without its end is left out, what is no number too.
// The name is the folder's. Throws Error{kNotFound}, Error{kInvalidInput} for a line that is no
// object with a step, and for a log without a number.
RunCurves read_run_curves(const std::string& path);

// The most runs that are told apart in one picture.
inline constexpr int kMaxPlottedRuns = 21;

// A panel for each figure that one of the runs has, the runs over each other in the colours of
// Okabe and Ito, which differ for colour-blind readers too; from the eighth run on with dashes. A
// curve of many points is drawn faintly with its running mean over it. REQUIRES: 1 to
// kMaxPlottedRuns runs.
std::string plot_svg(const std::vector<RunCurves>& runs);
// A page that holds the same panels, side by side where there is room. Nothing is loaded.
std::string plot_html(const std::vector<RunCurves>& runs);

}  // namespace erank::train
