// The built program, run as a user runs it.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "erank/base/json.h"
#include "tests/test_folder.h"

namespace erank::cli {

struct Outcome {
  int exit_code = -1;  // -1: ended by a signal
  std::string out, err;
};

// A folder of its own, with a random model of shape tiny in it once tiny_model() was called.
class Program : public ::testing::Test {
 protected:
  // Runs `erank ARGS` on one thread, started by launcher_ if that is given.
  Outcome run(const std::vector<std::string>& args, const std::string& input = "") const;
  // Starts it and returns at once; finish() waits.
  pid_t start(const std::vector<std::string>& args, const std::string& input = "") const;
  Outcome finish(pid_t pid) const;
  std::string error_text() const;  // what it has written to stderr so far

  // Runs `erank rerank --model TINY ARGS`.
  std::vector<std::string> rerank_args(const std::vector<std::string>& args);
  Outcome rerank(const std::vector<std::string>& args, const std::string& input = "");
  const std::string& tiny_model();

  std::string path(const std::string& name) const { return folder_.path(name); }
  std::string put(const std::string& name, const std::string& bytes) const;
  std::vector<std::string> files() const;  // names in the folder, sorted

  std::vector<std::string> launcher_;  // the words before the program

 private:
  TestFolder folder_, streams_;
  std::string model_;
};

// The lines of `text` as JSON.
std::vector<base::Json> json_lines(const std::string& text);
std::vector<std::string> lines_of(const std::string& text);
// The same results: byte for byte where the network promises the same bits (kExactBits), else the
// same pairs with scores that hardly differ.
void expect_same_results(const std::string& a, const std::string& b);
// value[key] of each.
std::vector<std::string> column(const std::vector<base::Json>& lines, const std::string& key);

// One line that starts with "erank: " and holds `part`; exit code 2.
void expect_refused(const Outcome& outcome, const std::string& part);

}  // namespace erank::cli
