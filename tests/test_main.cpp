// The main of every test program: its temporary folder is its own, since tests run side by side,
// and is gone afterwards.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

int main(int argc, char** argv) {
  std::string folder = (std::filesystem::temp_directory_path() / "erank-test-XXXXXX").string();
  if (!::mkdtemp(folder.data())) {
    std::perror("mkdtemp");
    return 1;
  }
  ::setenv("TEST_TMPDIR", (folder + "/").c_str(), 1);  // what testing::TempDir() gives
  ::unsetenv("ERANK_API_KEY");  // the caller's own, which servers that tests start would ask for
  testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return failed;
}
