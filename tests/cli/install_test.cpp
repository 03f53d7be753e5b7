// An installed tree and the Debian packages: they run where they are put, without the build's
// folder and without what tools/setup has fetched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class TinyInstall : public Program {};

TEST_F(TinyInstall, SystemdTakesTheUnit) {
  if (std::system("command -v systemd-analyze >/dev/null") != 0)
    GTEST_SKIP() << "systemd-analyze is not here";
  std::string unit = base::read_file(ERANK_SOURCE_DIR "/examples/serve/erank.service");
  const std::string program = "ExecStart=/usr/bin/erank ";
  ASSERT_NE(unit.find(program), std::string::npos);
  unit.replace(unit.find(program), program.size(), "ExecStart=" ERANK_BINARY_DIR "/erank ");
  const std::string said = path("said");
  const std::string verify =
      "systemd-analyze verify --man=no '" + put("erank.service", unit) + "' >'" + said + "' 2>&1";
  EXPECT_EQ(std::system(verify.c_str()), 0);
  // A key that it does not know is a warning alone. It looks at other units of this machine too.
  EXPECT_THAT(base::read_file(said), Not(HasSubstr("erank.service")));
}

class SlowInstall : public Program {
 protected:
  void SetUp() override {
    put("passages.txt", "Bread rises.\nAir scatters blue light.\n");
    fs::create_directories(path("none"));
    shell("cmake --build '" ERANK_BINARY_DIR "' --target erank erank_shared");
  }
  // What a script prints. It runs with an empty environment but for an empty cache folder.
  std::string shell(const std::string& script) const {
    const std::string file = put("script", "set -eu\nexport ERANK_CACHE='" + path("none") +
                                               "'\ncd '" + path("") + "'\n" + script + "\n");
    const std::string clean = "env -i HOME=/nonexistent PATH=/usr/bin:/bin OMP_NUM_THREADS=1 ";
    const int code = std::system(
        (clean + "bash '" + file + "' >'" + file + ".out' 2>'" + file + ".err'").c_str());
    EXPECT_EQ(code, 0) << base::read_file(file + ".out") << base::read_file(file + ".err");
    return base::read_file(file + ".out");
  }
  void expect_ranks(const std::string& program) const {
    const auto lines = json_lines(
        shell("'" + program + "' rerank --query 'why is the sky blue' --docs passages.txt"));
    EXPECT_EQ(column(lines, "docid"), (std::vector<std::string>{"2", "1"}));
  }
};

TEST_F(SlowInstall, ATreeThatIsMovedRanksAndIsLinkedTo) {
  if (!base::file_exists(base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    GTEST_SKIP() << "the default model's base is not here; tools/setup fetches it";
  shell("cmake --install '" ERANK_BINARY_DIR "' --prefix first");
  fs::rename(path("first"), path("moved"));
  expect_ranks(path("moved/bin/erank"));
  shell("cmake -S '" ERANK_SOURCE_DIR "/examples/library' -B example -DCMAKE_PREFIX_PATH='" +
        path("moved") + "' && cmake --build example");
  const std::string ranked = shell("example/rank_lines 'why is the sky blue' <passages.txt");
  ASSERT_EQ(lines_of(ranked).size(), 2u);
  EXPECT_THAT(lines_of(ranked)[0], HasSubstr("\tAir scatters blue light."));
}

TEST_F(SlowInstall, DebianPackagesHoldWhatTheirFilesNeed) {
  if (std::system("command -v dpkg-shlibdeps >/dev/null") != 0)
    GTEST_SKIP() << "dpkg-shlibdeps is not here (Debian's dpkg-dev)";
  shell("cd '" ERANK_BINARY_DIR "' && cpack -G DEB -B '" + path("deb") + "'");
  EXPECT_THAT(shell("dpkg-deb -f deb/erank_*.deb Depends"), HasSubstr("libcurl4"));
  EXPECT_THAT(shell("dpkg-deb -f deb/liberank-dev_*.deb Depends"), StartsWith("erank (= "));
  shell("for deb in deb/*.deb; do dpkg-deb -x $deb root; done");
  expect_ranks(path("root/usr/bin/erank"));
  shell(
      "test -x root$(sed -n 's/^ExecStart=\\(\\S*\\).*/\\1/p' "
      "root/lib/systemd/system/erank.service)");
  EXPECT_THAT(shell("root/usr/bin/erank --version"), StartsWith("erank "));

  if (geteuid() != 0) GTEST_SKIP() << "only root makes a bare Debian to install them in";
  const std::string said = path("said");
  const std::string install =
      ERANK_SOURCE_DIR "/tools/try_fresh --packages '" + path("deb") + "' >'" + said + "' 2>&1";
  EXPECT_EQ(std::system(install.c_str()), 0) << base::read_file(said);
  EXPECT_THAT(base::read_file(said), ContainsRegex("\"docid\":\"2\".*\n.*\"docid\":\"1\""));
}

}  // namespace
}  // namespace erank::cli
