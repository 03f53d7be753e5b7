// Makes an index of documents that come one by one, of any number, with bounded memory.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "erank/base/progress.h"
#include "erank/data/records.h"
#include "erank/retrieve/analyzer.h"

namespace erank::retrieve {

struct IndexOptions {
  AnalyzerKind analyzer = AnalyzerKind::kEnglish;
  int num_threads = 1;
  // Postings and terms that are held before they are written, sorted, to a file without a name in
  // `spill_folder`, from which they are merged at the end. "": the system's folder for such files.
  size_t max_posting_bytes = size_t{1} << 30;
  std::string spill_folder;
};

// The calling thread hands the texts on to `write` and keeps ids and places, about 30 bytes a
// document; others analyse. The file does not depend on the order of the documents but in where
// their texts are in it, nor on the number of threads or on what was spilled.
class IndexBuilder {
 public:
  // `write` takes the file's bytes from first to last, called by the thread that calls this.
  // Throws Error{kExhausted} when the disk is full, here and below.
  IndexBuilder(const IndexOptions& options, std::function<void(std::string_view)> write);
  ~IndexBuilder();
  IndexBuilder(const IndexBuilder&) = delete;
  IndexBuilder& operator=(const IndexBuilder&) = delete;

  // REQUIRES: the id is new; else finish() throws InternalError.
  void add(data::Document document);

  // The rest of the file. Throws Error{kInvalidInput} when there was no document. Stops early, the
  // file being incomplete, when `stop` is true; then returns false. `progress` counts terms.
  bool finish(base::ProgressSink* progress = nullptr, const std::function<bool()>& stop = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::retrieve
