// A folder that goes with its object, in the folder that tests/test_main.cpp gives a test program.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "erank/base/files.h"

namespace erank {

class TestFolder {
 public:
  TestFolder() {
    static int count = 0;
    path_ = ::testing::TempDir() + "folder-" + std::to_string(count++);
    std::filesystem::create_directory(path_);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path(const std::string& name = "") const {
    return name.empty() ? path_ : path_ + "/" + name;
  }
  // Makes the parent folders of `name`; gives the file's path.
  std::string write(const std::string& name, std::string_view bytes) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    base::write_file_atomic(path(name), bytes);
    return path(name);
  }

 private:
  std::string path_;
};

}  // namespace erank
