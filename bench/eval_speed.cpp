// How long `erank eval` takes for a run of a million lines, reading included, and pytrec_eval on
// the same files in the same run. Prints a line of JSON a measurement.
//   eval_speed [lines of the run, default 1000000]
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/eval/measures.h"
#include "erank/eval/report.h"
#include "tests/shared_data.h"

namespace {

using namespace erank;

constexpr int64_t kHitsPerTopic = 1000, kJudgedPerTopic = 200;

struct Files {
  std::string run, qrels;
};

// MS MARCO-like ids, hits in no order, every fifth document judged, grades 0 to 3.
Files write_files(int64_t num_lines) {
  const std::string stem =
      (std::filesystem::temp_directory_path() / ("erank_eval_speed_" + std::to_string(getpid())))
          .string();
  Files files{stem + ".run", stem + ".qrels"};
  base::Random random(1);
  base::OutputFile run(files.run), qrels(files.qrels);
  char line[128];
  for (int64_t i = 0; i < num_lines; ++i) {
    const int64_t topic = 100000 + i / kHitsPerTopic * 37;
    const unsigned long long id = random.next() % 100000000000ull * 1000 + i % kHitsPerTopic;
    const int size =
        std::snprintf(line, sizeof line, "%lld Q0 msmarco_doc_%llu %lld %.6f bench\n",
                      static_cast<long long>(topic), id,
                      static_cast<long long>(i % kHitsPerTopic + 1), 10 + random.normal());
    run.write({line, static_cast<size_t>(size)});
    if (i % kHitsPerTopic % (kHitsPerTopic / kJudgedPerTopic) != 0) continue;
    const int judged =
        std::snprintf(line, sizeof line, "%lld 0 msmarco_doc_%llu %d\n",
                      static_cast<long long>(topic), id, static_cast<int>(random.below(4)));
    qrels.write({line, static_cast<size_t>(judged)});
  }
  run.commit();
  qrels.commit();
  return files;
}

struct Times {
  double read_s = 0, evaluate_s = 0;
};

Times ours(const Files& files, const std::vector<eval::Measure>& measures, std::string& lines) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](auto span) { return std::chrono::duration<double>(span).count(); };
  const auto begin = Clock::now();
  const data::Qrels qrels = data::read_qrels(files.qrels);
  const data::Run run = data::read_run(files.run);
  const auto read = Clock::now();
  lines = eval::format_lines(eval::evaluate(qrels, run, measures), {.per_topic = true});
  return {seconds(read - begin), seconds(Clock::now() - read)};
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t num_lines = argc > 1 ? std::atoll(argv[1]) : 1000000;
  const Files files = write_files(num_lines);
  for (const char* set : {"official", "all_trec"}) {
    Times best{1e9, 1e9};
    std::string lines;
    for (int i = 0; i < 5; ++i) {
      const Times times = ours(files, eval::parse_measures({set}), lines);
      if (times.read_s + times.evaluate_s < best.read_s + best.evaluate_s) best = times;
    }
    std::printf(
        "{\"tool\":\"erank\",\"measures\":\"%s\",\"run_lines\":%lld,\"read_s\":%.3f,"
        "\"evaluate_s\":%.3f,\"total_s\":%.3f}\n",
        set, static_cast<long long>(num_lines), best.read_s, best.evaluate_s,
        best.read_s + best.evaluate_s);
    std::fflush(stdout);
    const std::string python = erank::testing::test_python();
    if (python.empty()) {
      std::printf("{\"tool\":\"pytrec_eval\",\"skipped\":\"no test-time Python\"}\n");
      continue;
    }
    const std::string command = "'" + python +
                                "' '" ERANK_SOURCE_DIR "/bench/eval_speed_peer.py' '" +
                                files.qrels + "' '" + files.run + "' " + set;
    if (std::system(command.c_str()) != 0)
      std::printf("{\"tool\":\"pytrec_eval\",\"failed\":true}\n");
  }
  std::remove(files.run.c_str());
  std::remove(files.qrels.c_str());
  return 0;
}
