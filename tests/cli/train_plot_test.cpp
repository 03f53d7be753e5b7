#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "erank/base/files.h"
#include "erank/data/source.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::HasSubstr;

class TrainPlot : public Program {
 protected:
  // A training folder's name with a log of two steps in it.
  std::string folder(const std::string& name) const {
    std::filesystem::create_directories(path(name));
    base::write_file_atomic(path(name + "/log.jsonl"),
                            "{\"step\": 1, \"loss\": 2}\n{\"step\": 2, \"loss\": 1}\n");
    return path(name);
  }
};

TEST_F(TrainPlot, DrawsRunsUnderTheirNamesOrTheirPaths) {
  const std::string a = folder("a/run"), b = folder("b/run"), c = folder("c");
  for (const std::string& out : {path("curves.svg"), path("curves.html")}) {
    const Outcome outcome = run({"train", "plot", a, b, c + "/log.jsonl", "--out", out});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out + outcome.err, "");
    const std::string picture = base::read_file(out);
    for (const std::string& name : {a, b, std::string("c")})
      EXPECT_THAT(picture, HasSubstr(">" + name + "<"));
    expect_refused(run({"train", "plot", c, "--out", out}), "exists");
    EXPECT_EQ(base::read_file(out), picture);
    EXPECT_EQ(run({"train", "plot", c, "--out", out, "--overwrite"}).exit_code, 0);
    EXPECT_NE(base::read_file(out), picture);
  }
}

TEST_F(TrainPlot, PacksAPictureWhoseNameSaysSo) {
  const std::string a = folder("a"), plain = path("a.svg");
  ASSERT_EQ(run({"train", "plot", a, "--out", plain}).exit_code, 0);
  for (const std::string& packed : {plain + ".gz", plain + ".zst"}) {
    const Outcome outcome = run({"train", "plot", a, "--out", packed});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    data::ByteSource source(packed);
    EXPECT_EQ(std::string(source.next()), base::read_file(plain));
    EXPECT_LT(std::filesystem::file_size(packed), std::filesystem::file_size(plain));
  }
}

TEST_F(TrainPlot, RefusesInOneLine) {
  const std::string log = folder("a") + "/log.jsonl";
  expect_refused(run({"train", "plot", path("a"), "--out", path("a.png")}), ".svg or .html");
  expect_refused(run({"train", "plot", path("none"), "--out", path("a.svg")}), "none");
  std::filesystem::create_symlink(log, path("link.svg"));
  expect_refused(run({"train", "plot", path("a"), "--out", path("link.svg"), "--overwrite"}),
                 "is the same file as the input");
  std::vector<std::string> many = {"train", "plot", "--out", path("a.svg")};
  many.insert(many.end(), 22, path("a"));
  expect_refused(run(many), "at most 21");
}

}  // namespace
}  // namespace erank::cli
