// Runs the examples of README.md and docs/*.md. A fence says by its first line what it holds:
//   ```sh run           commands for bash, which must all succeed
//   ```console          "$ " commands, one a line, each followed by all that it prints
//   ```text file=NAME   a file, which later commands of the same document find
// Every other fence is only shown. A document's commands run in one scratch folder, with `erank` on
// the path; README.md's folder holds the reader's files that it speaks of (readers_files below).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

struct Ran {
  int exit_code = -1;
  std::string output;  // stdout and stderr as they came
};

// `script` by bash in `folder`; an erank of the same build is first on the path.
Ran run(const fs::path& folder, const fs::path& program, const std::string& script) {
  const fs::path file = folder / ".script";
  // mpirun refuses root and more processes than processors unless it is told otherwise.
  write(file,
        "set -eo pipefail\nexport OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        "OMPI_MCA_rmaps_base_oversubscribe=1\nexport PATH='" +
            program.parent_path().string() + "':\"$PATH\"\n" + script);
  const std::string command =
      "cd '" + folder.string() + "' && exec bash '" + file.string() + "' </dev/null 2>&1";
  Ran ran;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return ran;
  char piece[4096];
  for (size_t n; (n = fread(piece, 1, sizeof piece, pipe)) > 0;) ran.output.append(piece, n);
  const int status = pclose(pipe);
  ran.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

struct Checked {
  int num_commands = 0;
  std::vector<std::string> faults;
};

// Runs every example of a document whose text is `text`.
Checked check_document(const std::string& text, const fs::path& folder, const fs::path& program) {
  Checked checked;
  std::string kind, body, command;
  bool fenced = false;
  const auto finish_command = [&] {
    if (command.empty()) return;
    ++checked.num_commands;
    const Ran ran = run(folder, program, command);
    if (ran.output != body)
      checked.faults.push_back("$ " + command + "\n--- prints\n" + ran.output +
                               "--- the document says\n" + body);
    command.clear();
    body.clear();
  };
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("```")) {
      if (!fenced) {
        kind = line.substr(3);
      } else if (kind == "console") {
        finish_command();
      } else if (kind == "sh run") {
        ++checked.num_commands;
        const Ran ran = run(folder, program, body);
        if (ran.exit_code != 0)
          checked.faults.push_back(body + "--- exit code " + std::to_string(ran.exit_code) + "\n" +
                                   ran.output);
      } else if (kind.starts_with("text file=")) {
        write(folder / kind.substr(10), body);
      }
      fenced = !fenced;
      body.clear();
    } else if (fenced && kind == "console" && line.starts_with("$ ")) {
      finish_command();
      command = line.substr(2);
    } else if (fenced) {
      body += line + "\n";
    }
  }
  return checked;
}

// What README.md's reader is supposed to have: a few documents, and a BEIR folder.
void readers_files(const fs::path& folder) {
  const std::string documents =
      "{\"_id\": \"d1\", \"title\": \"\", \"text\": \"Air scatters blue light more than red.\"}\n"
      "{\"_id\": \"d2\", \"title\": \"\", \"text\": \"The sea mirrors the blue sky.\"}\n"
      "{\"_id\": \"d3\", \"title\": \"\", \"text\": \"Bread rises because yeast makes gas.\"}\n";
  write(folder / "docs.jsonl", documents);
  write(folder / "my-beir/corpus.jsonl", documents);
  write(folder / "my-beir/queries.jsonl", "{\"_id\": \"q1\", \"text\": \"why is the sky blue\"}\n");
  write(folder / "my-beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n");
}

class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_(fs::path(testing::TempDir()) /
              ("erank_docs_" + name + "_" + std::to_string(getpid()))) {
    fs::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::vector<fs::path> documents() {
  const fs::path root = ERANK_SOURCE_DIR;
  std::vector<fs::path> paths = {root / "README.md"};
  for (const auto& entry : fs::directory_iterator(root / "docs"))
    if (entry.path().extension() == ".md") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(TinyDocs, PrintWhatTheirExamplesSay) {
  const char* own = std::getenv("ERANK_PROGRAM");
  const fs::path program = own ? own : ERANK_BINARY_DIR "/erank";
  if (!fs::is_regular_file(program)) GTEST_SKIP() << program << " is not built";
  const Folder probe("probe");
  if (const Ran ran = run(probe.path(), program, "erank prompt"); ran.exit_code != 0)
    GTEST_SKIP() << "the default model is not there: " << ran.output;
  int num_commands = 0;
  for (const fs::path& document : documents()) {
    const Folder folder(document.stem());
    if (document.filename() == "README.md") readers_files(folder.path());
    const Checked checked = check_document(read(document), folder.path(), program);
    num_commands += checked.num_commands;
    for (const auto& fault : checked.faults) ADD_FAILURE() << document << "\n" << fault;
  }
  EXPECT_GT(num_commands, 15);
}

TEST(DocsCheck, FindsFailedCommandsAndOtherOutput) {
  const Folder folder("check");
  const Checked checked = check_document(
      "```text file=sub/a.txt\none\n```\n```sh\nfalse\n```\n```console\n$ cat sub/a.txt\none\n"
      "$ echo two\nthree\n$ echo four >&2; exit 3\nfour\n```\n```sh run\ntrue\n```\n"
      "```sh run\nfalse\ntrue\n```\n```sh run\nfalse | true\n```\n",
      folder.path(), "/nowhere/erank");
  EXPECT_EQ(checked.num_commands, 6);
  EXPECT_THAT(checked.faults, testing::ElementsAre(testing::HasSubstr("$ echo two"),
                                                   testing::StartsWith("false\ntrue\n"),
                                                   testing::StartsWith("false | true\n")));
}

TEST(Docs, LinkOnlyToFilesThatAreThere) {
  static const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
  for (const fs::path& document : documents()) {
    const std::string text = read(document);
    for (std::sregex_iterator it(text.begin(), text.end(), link), end; it != end; ++it)
      EXPECT_TRUE(fs::exists(document.parent_path() / (*it)[1].str()))
          << document << ": " << (*it)[1];
  }
}

}  // namespace
