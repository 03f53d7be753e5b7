#include "erank/base/svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace erank::base {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Svg, EscapesWhatHtmlWouldRead) {
  EXPECT_EQ(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
}

TEST(Axis, HasRoundTicksWithinItsRange) {
  const Axis axis = make_axis(0.13, 0.92, 5, false);
  EXPECT_EQ(axis.step, 0.2);
  std::string labels;
  for (const double tick : axis.ticks()) labels += axis.label(tick) + " ";
  EXPECT_EQ(labels, "0.2 0.4 0.6 0.8 ");
  EXPECT_EQ(axis.place(0.13, 10, 20), 10);
  EXPECT_EQ(make_axis(1, 4, 20, true).step, 1);
  const Axis same = make_axis(3, 3, 5, false);
  EXPECT_LT(same.low, 3);
  EXPECT_GT(same.high, 3);
  EXPECT_EQ(make_axis(0, 40000, 4, true).label(20000), "20k");
}

TEST(Svg, FramesNameTheirAxesOnlyWhereThereIsAName) {
  const PlotBox box{50, 400, 30, 200};
  const Axis axis = make_axis(0, 1, 5, false);
  const std::string frame = svg_frame(box, axis, axis, "Title <", "x name", "y name");
  EXPECT_THAT(frame, HasSubstr("class=\"title\">Title &lt;</text>"));
  EXPECT_THAT(frame, HasSubstr("rotate(-90 13 115.0)\">y name<"));
  EXPECT_THAT(svg_frame(box, axis, axis, "t", "", ""), Not(HasSubstr("rotate")));
}

}  // namespace
}  // namespace erank::base
