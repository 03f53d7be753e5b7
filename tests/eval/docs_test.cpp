// Runs every example of docs/evaluation.md: blocks "text file=NAME" are files, in "console" blocks
// the lines behind "$ " are commands and what follows is all that they print.
#include <cstdio>

#include "tests/eval/eval_fixtures.h"

namespace erank::eval {
namespace {

std::string output_of(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return "(cannot run)";
  char piece[4096];
  for (size_t n; (n = fread(piece, 1, sizeof piece, pipe)) > 0;) output.append(piece, n);
  pclose(pipe);
  return output;
}

TEST(EvaluationDocs, PrintWhatTheirExamplesSay) {
  const char* own = std::getenv("ERANK_PROGRAM");
  const std::string program = own ? own : ERANK_BINARY_DIR "/erank";
  if (!std::filesystem::is_regular_file(program)) GTEST_SKIP() << program << " is not built";
  const std::string folder =
      ::testing::TempDir() + "erank_evaluation_docs_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  const std::string setup =
      "cd '" + folder + "' && erank() { '" + program + "' \"$@\"; } && exec 2>&1 && ";

  std::string kind, file, text, command;
  int num_commands = 0;
  const auto finish_command = [&] {
    if (!command.empty()) {
      EXPECT_EQ(output_of(setup + command), text) << command;
      ++num_commands;
    }
    command.clear(), text.clear();
  };
  for (const std::string& line :
       lines_of(base::read_file(ERANK_SOURCE_DIR "/docs/evaluation.md"))) {
    if (line.starts_with("```")) {
      if (kind.empty()) {
        kind = line.size() > 3 ? line.substr(3) : "plain";
        continue;
      }
      if (kind == "console") finish_command();
      if (kind.starts_with("text file="))
        base::write_file_atomic(folder + "/" + kind.substr(10), text);
      kind.clear(), text.clear();
    } else if (kind == "console" && line.starts_with("$ ")) {
      finish_command();
      command = line.substr(2);
    } else if (!kind.empty()) {
      text += line + "\n";
    }
  }
  EXPECT_EQ(num_commands, 7);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace erank::eval
