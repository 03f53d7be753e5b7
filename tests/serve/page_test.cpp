#include "erank/serve/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace erank::serve {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(ERANK_SOURCE_DIR) / "web/dist";

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::map<std::string, PageFile> files_by_path() {
  std::map<std::string, PageFile> files;
  for (const PageFile& file : page_files()) files.emplace(file.path, file);
  return files;
}

TEST(Page, HoldsEveryFileOfTheBundleByteForByte) {
  const auto files = files_by_path();
  std::set<std::string> expected;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    const std::string name = entry.path().filename();
    const std::string path = name == "index.html" ? "/" : "/" + name;
    expected.insert(path);
    ASSERT_TRUE(files.contains(path)) << path;
    EXPECT_EQ(files.at(path).body, read(entry.path())) << path;
  }
  EXPECT_EQ(files.size(), expected.size());
  EXPECT_THAT(expected, testing::IsSupersetOf({"/", "/app.js", "/app.css"}));
}

TEST(Page, NamesTheTypeOfEachFile) {
  const auto files = files_by_path();
  EXPECT_EQ(files.at("/").type, "text/html; charset=utf-8");
  EXPECT_EQ(files.at("/app.js").type, "text/javascript; charset=utf-8");
  EXPECT_EQ(files.at("/app.css").type, "text/css; charset=utf-8");
  EXPECT_EQ(files.at("/icon.svg").type, "image/svg+xml");
}

// What the policy would block is not there, and what the document names is.
TEST(Page, NamesOnlyFilesOfItsOwnAndHasNothingInline) {
  const auto files = files_by_path();
  const std::string html(files.at("/").body);
  const std::regex link(R"re((src|href)="([^"#][^"]*)")re");
  int links = 0;
  for (std::sregex_iterator it(html.begin(), html.end(), link), end; it != end; ++it, ++links) {
    const std::string target = (*it)[2];
    ASSERT_TRUE(target.starts_with("./")) << target;
    EXPECT_TRUE(files.contains(target.substr(1))) << target;
  }
  EXPECT_GE(links, 3);
  EXPECT_FALSE(std::regex_search(html, std::regex(R"(<style|\sstyle=|\son[a-z]+=)")));
  EXPECT_FALSE(std::regex_search(html, std::regex(R"(<script(?![^>]*\ssrc=))")));
}

TEST(Page, NamesNoSourceMap) {
  for (const PageFile& file : page_files())
    EXPECT_EQ(file.body.find("sourceMappingURL"), std::string_view::npos) << file.path;
}

}  // namespace
}  // namespace erank::serve
