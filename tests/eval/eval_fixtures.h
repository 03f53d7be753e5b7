// What the tests of this room share: small runs written as text, and the real ones.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/eval/measures.h"
#include "erank/eval/report.h"
#include "tests/shared_data.h"

namespace erank::eval {

// "q1 a 3.5" a line: topic, document, score.
inline data::Run make_run(const std::string& text) {
  data::Run run;
  run.tag = "tag";
  std::istringstream in(text);
  std::string qid, docid;
  double score;
  while (in >> qid >> docid >> score) {
    if (!run.hits.contains(qid)) run.qids.push_back(qid);
    run.hits[qid].push_back({docid, score});
  }
  return run;
}

// "q1 a 2" a line: topic, document, grade.
inline data::Qrels make_qrels(const std::string& text) {
  data::Qrels qrels;
  std::istringstream in(text);
  std::string qid, docid;
  int64_t grade;
  while (in >> qid >> docid >> grade) {
    if (!qrels.grades.contains(qid)) qrels.qids.push_back(qid);
    qrels.grades[qid][docid] = grade;
  }
  return qrels;
}

inline double value_of(const std::string& measure, const data::Qrels& qrels, const data::Run& run,
                       const EvalOptions& options = {}) {
  return evaluate(qrels, run, parse_measures({measure}), options).summary.at(0);
}

// The file itself, or for "x.xz" its content in a temporary file; "" when xz is not installed.
inline std::string unpacked(const std::string& path) {
  if (!path.ends_with(".xz")) return path;
  std::string name = path;
  for (char& c : name)
    if (c == '/') c = '_';
  const std::string out = ::testing::TempDir() + std::to_string(getpid()) + name + ".txt";
  if (std::filesystem::exists(out)) return out;
  const std::string command = "xz -dc '" + path + "' > '" + out + "' 2>/dev/null";
  return std::system(command.c_str()) == 0 ? out : "";
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

inline std::string name_of(const std::string& line) {
  return line.substr(0, line.find_first_of(" \t"));
}

}  // namespace erank::eval
