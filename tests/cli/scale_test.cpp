// The examples of examples/scale with the engines that they are for, each where its engine is:
// `tools/setup --scale`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <utility>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const std::string kExamples = std::string(ERANK_SOURCE_DIR) + "/examples/scale/";
const std::string kPython = base::cache_folder() + "/scale/bin/python";

class Scale : public Program {
 protected:
  // 24 queries with 3 documents each, as a run and as candidates.
  void SetUp() override {
    std::string corpus, queries, run, candidates;
    for (int i = 0; i < 24; ++i) {
      const std::string qid = "q" + std::to_string(i), query = "number " + std::to_string(i * i);
      queries += R"({"_id": ")" + qid + R"(", "text": ")" + query + "\"}\n";
      candidates += R"({"qid": ")" + qid + R"(", "query": ")" + query + R"(", "hits": [)";
      for (int hit = 0; hit < 3; ++hit) {
        const std::string id = "d" + std::to_string(i * 3 + hit), text = "text of " + id;
        const std::string score = std::to_string(3 - hit);
        corpus += R"({"_id": ")" + id + R"(", "text": ")" + text + "\"}\n";
        run += qid + " Q0 " + id + " " + std::to_string(hit + 1) + " " + score + " first\n";
        candidates += std::string(hit ? ", " : "") + R"({"docid": ")" + id + R"(", "text": ")" +
                      text + R"(", "score": )" + score + "}";
      }
      candidates += "]}\n";
    }
    collection_ = {"--queries", put("queries.jsonl", queries),
                   "--corpus",  put("corpus.jsonl", corpus),
                   "--run",     put("run.trec", run)};
    put("candidates.jsonl", candidates);
    model_ = {"--model", tiny_model(), "--direct"};
    const Outcome whole = rerank({"--candidates", path("candidates.jsonl"), "--direct"});
    EXPECT_EQ(whole.exit_code, 0) << whole.err;
    whole_ = whole.out;
  }

  // The words for a shell.
  static std::string words(const std::vector<std::string>& all) {
    std::string out;
    for (const auto& word : all) out += " '" + word + "'";
    return out;
  }
  // Runs a script with this build's erank on the path; its output is in the message when it fails.
  void shell(const std::string& script) const {
    const std::string file =
        put("script", "set -eu\nexport PATH='" + std::string(ERANK_BINARY_DIR) +
                          "':$PATH OMP_NUM_THREADS=1\ncd '" + path("") + "'\n" + script);
    const int code = std::system(("bash '" + file + "' >'" + file + ".out' 2>&1").c_str());
    ASSERT_EQ(code, 0) << base::read_file(file + ".out");
  }
  // A program that is erank, but is killed after seven lines the first time.
  std::string one_that_dies() const {
    const std::string program = put("dies", "#!/bin/bash\nif mkdir '" + path("died") +
                                                "' 2>/dev/null; then\n  erank \"$@\" | head -n 7\n"
                                                "  kill -9 $$\nfi\nexec erank \"$@\"\n");
    fs::permissions(program, fs::perms::owner_all);
    return program;
  }
  // The lines of the files of a folder, sorted.
  std::vector<std::string> lines_in(const std::string& folder) const {
    std::vector<std::string> lines;
    for (const auto& entry : fs::directory_iterator(path(folder)))
      if (entry.path().filename().string().find_first_of("._") != 0)
        for (auto& line : lines_of(base::read_file(entry.path()))) lines.push_back(std::move(line));
    std::sort(lines.begin(), lines.end());
    return lines;
  }
  static bool has_engine(const std::string& module) {
    return base::file_exists(kPython) &&
           std::system(("'" + kPython + "' -c 'import " + module + "' 2>/dev/null").c_str()) == 0;
  }

  std::vector<std::string> collection_, model_;
  std::string whole_;  // what one process writes
};

using TinyScale = Scale;
using SlowScale = Scale;

TEST_F(TinyScale, AWorkerOfPythonStartsAgainWithWhatIsNotAnswered) {
  put("drive.py",
      "import json, sys\n"
      "sys.path.insert(0, sys.argv[1])\n"
      "from erank_worker import Worker\n"
      "queries = [json.loads(line) for line in open('candidates.jsonl')]\n"
      "worker = Worker(sys.argv[3:], program=sys.argv[2])\n"
      "with open('answers.jsonl', 'w') as out:\n"
      "    for part in (queries[:20], [], queries[20:]):\n"
      "        for query, results in zip(part, worker.rerank(part)):\n"
      "            assert [r['qid'] for r in results] == [query['qid']] * 3, results\n"
      "            for result in results:\n"
      "                out.write(json.dumps(result) + '\\n')\n"
      "bad = dict(queries[1], hits=[{'docid': 'x'}])\n"
      "try:\n"
      "    list(worker.rerank([queries[0], bad, queries[2]]))\n"
      "except RuntimeError as error:\n"
      "    print(error)\n"
      "print(len(list(worker.rerank(queries[:2]))))\n"
      "worker.close()\n");
  shell("python3 drive.py '" + kExamples + "' '" + one_that_dies() + "'" + words(model_) +
        " >said\n");
  EXPECT_TRUE(fs::is_directory(path("died")));
  EXPECT_EQ(json_lines(base::read_file(path("answers.jsonl"))), json_lines(whole_));
  const auto said = lines_of(base::read_file(path("said")));
  ASSERT_EQ(said.size(), 2u);
  EXPECT_THAT(said[0], HasSubstr("erank ended with 2 at query q1: "));
  EXPECT_THAT(said[0], HasSubstr("hits[0]: no text"));
  EXPECT_EQ(said[1], "2");
}

TEST_F(SlowScale, ASlurmArrayOnOneNode) {
  if (!base::file_exists("/usr/sbin/slurmctld") || !base::file_exists("/usr/sbin/slurmd"))
    GTEST_SKIP() << "Slurm is not installed; tools/setup --scale installs it";
  if (::geteuid() != 0) GTEST_SKIP() << "a Slurm of one node needs root";
  auto args = collection_;
  args.insert(args.end(), model_.begin(), model_.end());
  shell("'" ERANK_SOURCE_DIR "/tests/cli/one_node_slurm.sh' '" + path("slurm") + "' bash -euc '\"" +
        kExamples + "slurm.sh\" 3 \"$PWD/out.jsonl\" \"$@\"\n" +
        "for _ in $(seq 600); do [ -n \"$(squeue -h)\" ] || break; sleep 0.2; done\n" +
        "cat out.jsonl*.log' -" + words(args) + "\n");
  EXPECT_EQ(base::read_file(path("out.jsonl")), whole_);
  EXPECT_TRUE(base::file_exists(path("out.jsonl.part3.made.json")));
}

TEST_F(SlowScale, HyperQueue) {
  if (!has_engine("hyperqueue"))
    GTEST_SKIP() << "HyperQueue is not installed; tools/setup --scale installs it";
  auto args = collection_;
  args.insert(args.end(), model_.begin(), model_.end());
  shell("timeout 300 '" + kPython + "' '" + kExamples +
        "hyperqueue_rerank.py' 3 out.jsonl --local --" + words(args) + "\n");
  EXPECT_EQ(base::read_file(path("out.jsonl")), whole_);
}

TEST_F(SlowScale, RayDataWithAWorkerThatIsKilled) {
  if (!has_engine("ray.data"))
    GTEST_SKIP() << "Ray is not installed; tools/setup --scale installs it";
  shell("export ERANK='" + one_that_dies() + "' RAY_TMPDIR=/tmp RAY_USAGE_STATS_ENABLED=0\n" +
        "timeout 600 '" + kPython + "' '" + kExamples +
        "ray_rerank.py' --candidates candidates.jsonl --out results --workers 2 --batch 8 --" +
        words(model_) + "\n");
  EXPECT_TRUE(fs::is_directory(path("died")));
  const auto expected = json_lines(whole_);
  std::map<std::pair<std::string, std::string>, base::Json> found;
  for (const auto& line : lines_in("results")) {
    auto json = base::parse_json(line, "results");
    EXPECT_TRUE(found.emplace(std::pair(json["qid"], json["docid"]), json).second) << line;
  }
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& line : expected) {
    const auto& json = found[{line["qid"], line["docid"]}];
    EXPECT_EQ(json["rank"], line["rank"]) << line;
    EXPECT_NEAR(json["score"].get<double>(), line["score"].get<double>(), 1e-14);
  }
}

TEST_F(SlowScale, SparksPipe) {
  if (!has_engine("pyspark"))
    GTEST_SKIP() << "Spark is not installed; tools/setup --scale installs it";
  if (std::system("java -version 2>/dev/null") != 0)
    GTEST_SKIP() << "Spark needs Java; tools/setup --scale installs it";
  shell("export PYSPARK_PYTHON='" + kPython + "' SPARK_LOCAL_IP=127.0.0.1\n" + "timeout 600 '" +
        kPython + "' '" + kExamples + "spark_pipe.py' candidates.jsonl results --partitions 3 --" +
        words(model_) + "\n");
  auto expected = lines_of(whole_);
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(lines_in("results"), expected);
}

}  // namespace
}  // namespace erank::cli
