// Queries, documents, candidates, training pairs, results and changed documents from JSON, CSV, TSV
// and plain text, compressed or not: any bytes give records of valid UTF-8 or an Error. The first
// byte chooses the name's ending.
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/data/document_lists.h"
#include "erank/data/records.h"
#include "erank/data/results.h"
#include "erank/data/training_pairs.h"
#include "tests/fuzz/memory_file.h"

namespace {

using namespace erank;

// Names with the five endings for one file in memory.
struct Names {
  Names() {
    for (const char* ending : {".jsonl", ".tsv", ".txt", ".csv", ".json"}) {
      const auto name =
          std::filesystem::temp_directory_path() / base::str("erank-fuzz-", ::getpid(), ending);
      std::filesystem::remove(name);
      std::filesystem::create_symlink(file.hold(nullptr, 0), name);
      names.push_back(name.string());
    }
  }
  ~Names() {
    for (const auto& name : names) std::filesystem::remove(name);
  }
  fuzz::MemoryFile file{"records"};
  std::vector<std::string> names;
};

template <typename Work>
void expect_no_more_than_an_error(const Work& work) {
  try {
    work();
  } catch (const base::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const Names names;
  names.file.hold(data + 1, size - 1);
  const std::string& path = names.names[(data[0] + 2u) % names.names.size()];  // '0' is the first
  expect_no_more_than_an_error([&] {
    for (const auto& document : data::read_documents(path))
      fuzz::demand(!document.id.empty() && base::is_valid_utf8(document.id) &&
                   base::is_valid_utf8(document.text));
  });
  expect_no_more_than_an_error([&] {
    for (const auto& query : data::read_queries(path))
      fuzz::demand(!query.id.empty() && base::is_valid_utf8(query.text));
  });
  expect_no_more_than_an_error([&] {
    for (const auto& list : data::read_candidates(path))
      for (const auto& candidate : list.candidates)
        fuzz::demand(base::is_valid_utf8(candidate.document.id) &&
                     base::is_valid_utf8(candidate.document.text));
  });
  expect_no_more_than_an_error([&] { data::read_pair_scores(path); });
  expect_no_more_than_an_error([&] {
    for (const auto& pair : data::read_training_pairs(path))
      fuzz::demand(base::is_valid_utf8(pair.query) && base::is_valid_utf8(pair.text));
  });
  expect_no_more_than_an_error([&] {
    const auto results = data::read_results(path);
    const auto run = results.run();
    fuzz::demand(run.qids.size() == run.hits.size());
    for (const auto& [qid, list] : results.results) {
      fuzz::demand(!qid.empty() && run.hits.at(qid).size() == list.size());
      for (const auto& result : list)
        fuzz::demand(!result.docid.empty() && std::isfinite(result.score.value_or(0)) &&
                     base::is_valid_utf8(result.reasoning));
    }
  });
  for (const auto read : {data::read_document_lists, data::read_excluded_documents})
    expect_no_more_than_an_error([&] {
      for (const auto& [qid, documents] : read(path)) fuzz::demand(!qid.empty());
    });
  return 0;
}
