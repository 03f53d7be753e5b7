#include "tests/cli/program.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "erank/base/files.h"
#include "tests/exact_bits.h"

namespace erank::cli {

namespace fs = std::filesystem;

pid_t Program::start(const std::vector<std::string>& args, const std::string& input) const {
  streams_.write("in", input);
  const std::string program = std::string(ERANK_BINARY_DIR) + "/erank";
  std::vector<char*> argv;
  for (const auto& word : launcher_) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(const_cast<char*>(program.c_str()));
  for (const auto& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::dup2(::open(streams_.path("in").c_str(), O_RDONLY), 0);
  ::dup2(::open(streams_.path("out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
  ::dup2(::open(streams_.path("err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

Outcome Program::finish(pid_t pid) const {
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, base::read_file(streams_.path("out")),
          base::read_file(streams_.path("err"))};
}

std::string Program::error_text() const {
  const std::string file = streams_.path("err");
  return base::file_exists(file) ? base::read_file(file) : "";
}

Outcome Program::run(const std::vector<std::string>& args, const std::string& input) const {
  return finish(start(args, input));
}

const std::string& Program::tiny_model() {
  if (model_.empty()) {
    model_ = path("tiny");
    const Outcome made = run({"model", "random", "--shape", "tiny", "--out", model_});
    EXPECT_EQ(made.exit_code, 0) << made.err;
  }
  return model_;
}

std::vector<std::string> Program::rerank_args(const std::vector<std::string>& args) {
  std::vector<std::string> all = {"rerank", "--model", tiny_model(), "--threads", "1"};
  all.insert(all.end(), args.begin(), args.end());
  return all;
}

Outcome Program::rerank(const std::vector<std::string>& args, const std::string& input) {
  return run(rerank_args(args), input);
}

std::string Program::put(const std::string& name, const std::string& bytes) const {
  return folder_.write(name, bytes);
}

std::vector<std::string> Program::files() const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path("")))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<base::Json> json_lines(const std::string& text) {
  std::vector<base::Json> lines;
  for (const auto& line : lines_of(text)) lines.push_back(base::parse_json(line, "output"));
  return lines;
}

void expect_same_results(const std::string& a, const std::string& b) {
  if (kExactBits) {
    EXPECT_EQ(a, b);
    return;
  }
  std::map<std::pair<std::string, std::string>, double> scores;
  for (const auto& line : json_lines(a))
    scores[{line["qid"], line["docid"]}] = line["score"].get<double>();
  EXPECT_EQ(json_lines(a).size(), json_lines(b).size());
  for (const auto& line : json_lines(b)) {
    const auto found = scores.find({line["qid"], line["docid"]});
    ASSERT_NE(found, scores.end()) << line;
    EXPECT_NEAR(found->second, line["score"].get<double>(), 0.05);
  }
}

std::vector<std::string> column(const std::vector<base::Json>& lines, const std::string& key) {
  std::vector<std::string> values;
  for (const auto& line : lines)
    values.push_back(line[key].is_string() ? line[key].get<std::string>()
                                           : base::dump_json(line[key]));
  return values;
}

void expect_refused(const Outcome& outcome, const std::string& part) {
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, ::testing::HasSubstr(part));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
}

}  // namespace erank::cli
