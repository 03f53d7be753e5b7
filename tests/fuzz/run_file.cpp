// Runs and qrels: any bytes give a Run, a Qrels or an Error, and a run that was read is the same
// when it is written and read again.
#include <cstdint>
#include <string>

#include "erank/base/error.h"
#include "erank/data/records.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace erank;
  static const fuzz::MemoryFile file("run");
  const std::string path = file.hold(data, size);
  try {
    data::read_qrels(path);
  } catch (const base::Error&) {
  }
  try {
    const data::Run run = data::read_run(path);
    std::string lines;
    for (const auto& qid : run.qids) data::append_trec_lines(lines, qid, run.hits.at(qid), "fuzz");
    if (lines.empty()) return 0;
    const data::Run again =
        data::read_run(file.hold(reinterpret_cast<const uint8_t*>(lines.data()), lines.size()));
    fuzz::demand(again.qids == run.qids);
    for (const auto& qid : run.qids) {
      const auto &hits = run.hits.at(qid), &written = again.hits.at(qid);
      fuzz::demand(hits.size() == written.size());
      for (size_t i = 0; i < hits.size(); ++i) {
        fuzz::demand(hits[i].docid == written[i].docid);
        fuzz::demand(i == 0 || written[i].score < written[i - 1].score);
      }
    }
  } catch (const base::Error&) {
  }
  return 0;
}
