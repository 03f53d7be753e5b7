#include "erank/retrieve/index_builder.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "erank/base/error.h"
#include "erank/retrieve/index_file.h"
#include "erank/retrieve/posting_blocks.h"
#include "erank/retrieve/posting_runs.h"

namespace erank::retrieve {
namespace {

using base::ErrorKind;
using base::fail;

constexpr size_t kBatchBytes = size_t{1} << 18;

// Documents in the order in which they came, the first of which is number `first`.
struct Batch {
  uint32_t first = 0;
  std::vector<std::string> texts;
  std::vector<uint32_t> lengths;  // in terms, when it was analysed
  size_t bytes = 0;
};

// What is written of a document beside its postings.
struct Documents {
  std::string ids;
  std::vector<uint64_t> id_offsets{0};
  std::vector<uint64_t> text_offsets;
  std::vector<uint8_t> lengths;  // length_code
  size_t size() const { return text_offsets.size(); }
  std::string_view id(size_t i) const {
    return std::string_view(ids).substr(id_offsets[i], id_offsets[i + 1] - id_offsets[i]);
  }
};

// The documents' places in the byte order of their ids.
std::vector<uint32_t> id_order(const Documents& documents) {
  struct Key {
    uint64_t head;  // the id's first 8 bytes
    uint32_t document;
  };
  std::vector<Key> keys(documents.size());
  for (uint32_t i = 0; i < keys.size(); ++i) {
    const std::string_view id = documents.id(i);
    uint64_t head = 0;
    for (size_t at = 0; at < 8; ++at)
      head = head << 8 | (at < id.size() ? static_cast<uint8_t>(id[at]) : 0);
    keys[i] = {head, i};
  }
  std::sort(keys.begin(), keys.end(), [&](const Key& a, const Key& b) {
    return a.head != b.head ? a.head < b.head : documents.id(a.document) < documents.id(b.document);
  });
  std::vector<uint32_t> order;
  order.reserve(keys.size());
  for (const Key& key : keys) order.push_back(key.document);
  return order;
}

}  // namespace

struct IndexBuilder::State {
  State(const IndexOptions& o, std::function<void(std::string_view)> write)
      : options(o), file(std::move(write)) {
    if (options.spill_folder.empty())
      options.spill_folder = std::filesystem::temp_directory_path().string();
    // Each has a part of the memory and files of its own.
    options.num_threads = std::clamp(options.num_threads, 1, 64);
    try {
      for (int i = 0; i < options.num_threads; ++i) workers.emplace_back([this] { work(); });
    } catch (...) {
      end_workers();
      throw;
    }
  }

  ~State() { end_workers(); }

  void work() noexcept;
  void hand_over();
  void end_workers();
  void take_lengths(const Batch& batch);
  void rethrow();
  void write_term(std::string_view term, std::vector<Posting>& postings,
                  const std::array<float, 256>& norms);

  IndexOptions options;
  FileWriter file;
  Documents documents;
  Batch batch;  // being filled
  FileEnd end{};

  std::mutex mutex;  // of what follows
  std::condition_variable has_work, has_room;
  std::deque<Batch> queue;
  bool is_complete = false;
  std::exception_ptr error;
  std::vector<Run> runs;
  std::vector<PostingTable> tables;  // what was not spilled, of each ended worker
  std::vector<std::thread> workers;

  std::vector<uint32_t> number;  // of each document, by the order in which they came
  std::vector<TermEntry> terms;
  std::string term_bytes;
  std::vector<BlockEntry> entries;  // of one term
  std::vector<uint64_t> words;
};

void IndexBuilder::State::work() noexcept {
  try {
    Analyzer analyzer(options.analyzer);
    PostingTable table;
    const size_t most =
        options.max_posting_bytes / static_cast<size_t>(std::max(1, options.num_threads));
    std::unique_lock lock(mutex);
    while (true) {
      has_work.wait(lock, [&] { return !queue.empty() || is_complete; });
      if (queue.empty()) break;
      Batch own = std::move(queue.front());
      queue.pop_front();
      has_room.notify_one();
      lock.unlock();
      for (size_t i = 0; i < own.texts.size(); ++i) {
        uint32_t length = 0;
        const auto document = own.first + static_cast<uint32_t>(i);
        analyzer.analyze(own.texts[i], [&](std::string_view term, std::string_view) {
          ++length;
          table.add(term, document);
        });
        own.lengths.push_back(length);
      }
      std::optional<Run> run;
      if (table.bytes() > most) table.move_to(run.emplace(options.spill_folder));
      lock.lock();
      if (run) runs.push_back(std::move(*run));
      take_lengths(own);
    }
    tables.push_back(std::move(table));
  } catch (...) {
    const std::lock_guard lock(mutex);
    error = std::current_exception();
    has_room.notify_all();
  }
}

void IndexBuilder::State::take_lengths(const Batch& own) {
  if (documents.lengths.size() < own.first + own.lengths.size())
    documents.lengths.resize(own.first + own.lengths.size());
  for (size_t i = 0; i < own.lengths.size(); ++i) {
    documents.lengths[own.first + i] = length_code(own.lengths[i]);
    end.num_with_terms += own.lengths[i] > 0;
    end.total_terms += own.lengths[i];
  }
}

void IndexBuilder::State::rethrow() {
  const std::lock_guard lock(mutex);
  if (error) std::rethrow_exception(error);
}

void IndexBuilder::State::hand_over() {
  std::unique_lock lock(mutex);
  has_room.wait(lock, [&] { return queue.size() < 2 * workers.size() || error; });
  if (error) std::rethrow_exception(error);
  const auto next = batch.first + static_cast<uint32_t>(batch.texts.size());
  queue.push_back(std::move(batch));
  batch = {};
  batch.first = next;
  has_work.notify_one();
}

void IndexBuilder::State::end_workers() {
  {
    const std::lock_guard lock(mutex);
    is_complete = true;
  }
  has_work.notify_all();
  for (auto& worker : workers) worker.join();
  workers.clear();
}

// REQUIRES: postings of distinct documents.
void IndexBuilder::State::write_term(std::string_view term, std::vector<Posting>& postings,
                                     const std::array<float, 256>& norms) {
  const auto document = [](const Posting& p) { return p.document; };
  for (Posting& p : postings) p.document = number[p.document];
  if (!std::ranges::is_sorted(postings, {}, document)) std::ranges::sort(postings, {}, document);
  terms.push_back({term_bytes.size(), file.section_bytes(), static_cast<uint32_t>(postings.size()),
                   static_cast<uint32_t>(term.size())});
  term_bytes += term;
  entries.clear();
  words.clear();
  uint32_t before = UINT32_MAX;
  for (size_t first = 0; first < postings.size(); first += kBlockPostings) {
    const auto block =
        std::span(postings).subspan(first, std::min(kBlockPostings, postings.size() - first));
    BlockEntry& entry = entries.emplace_back();
    pack_block(block, before, entry, words);
    for (const Posting& p : block)
      entry.max_ratio = std::max(
          entry.max_ratio, static_cast<float>(p.count) * norms[documents.lengths[p.document]]);
    before = entry.last_document;
  }
  file.append(entries.data(), entries.size() * sizeof(BlockEntry));
  file.append(words.data(), words.size() * sizeof(uint64_t));
  end.num_postings += postings.size();
}

IndexBuilder::IndexBuilder(const IndexOptions& options, std::function<void(std::string_view)> write)
    : state_(std::make_unique<State>(options, std::move(write))) {}

IndexBuilder::~IndexBuilder() = default;

void IndexBuilder::add(data::Document document) {
  State& s = *state_;
  if (s.documents.size() == UINT32_MAX - 1)
    fail(ErrorKind::kExhausted, "build_index", "more than ", UINT32_MAX - 1, " documents");
  const auto bytes = static_cast<uint32_t>(document.text.size());
  s.documents.ids += document.id;
  s.documents.id_offsets.push_back(s.documents.ids.size());
  s.documents.text_offsets.push_back(s.file.section_bytes());
  s.file.append(&bytes, sizeof bytes);
  s.file.append(document.text.data(), document.text.size());
  s.batch.bytes += document.text.size() + sizeof(std::string);
  s.batch.texts.push_back(std::move(document.text));
  if (s.batch.bytes >= kBatchBytes) s.hand_over();
}

bool IndexBuilder::finish(base::ProgressSink* progress, const std::function<bool()>& stop) {
  State& s = *state_;
  Documents& documents = s.documents;
  if (documents.size() == 0)
    fail(ErrorKind::kInvalidInput, "build_index", "the corpus has no documents");
  s.hand_over();
  s.end_workers();
  s.rethrow();

  const bool has_spilled = !s.runs.empty();
  for (PostingTable& table : s.tables) {
    Run run = has_spilled ? Run(s.options.spill_folder) : Run();
    table.move_to(run);
    s.runs.push_back(std::move(run));
  }
  s.tables.clear();

  const std::vector<uint32_t> order = id_order(documents);
  s.number.resize(order.size());
  std::vector<uint8_t> lengths(order.size());
  for (uint32_t i = 0; i < order.size(); ++i) {
    ERANK_CHECK(i == 0 || documents.id(order[i - 1]) != documents.id(order[i]),
                documents.id(order[i]));
    s.number[order[i]] = i;
    lengths[i] = documents.lengths[order[i]];
  }
  documents.lengths = std::move(lengths);  // by number from here on

  s.file.begin(kPostings);
  const std::array<float, 256> norms = inverse_norms(s.end);
  bool stopped = false;
  merge_runs(s.runs, [&](std::string_view term, std::vector<Posting>& postings) {
    s.write_term(term, postings, norms);
    if (s.terms.size() % 1024 != 0) return true;
    if (progress) progress->update({"index", static_cast<int64_t>(s.terms.size()), 0, "terms", ""});
    stopped = stop && stop();
    return !stopped;
  });
  if (stopped) return false;
  s.file.begin(kTerms);
  s.file.append(s.terms.data(), s.terms.size() * sizeof(TermEntry));
  s.file.begin(kTermBytes);
  s.file.append(s.term_bytes.data(), s.term_bytes.size());
  s.file.begin(kIdOffsets);
  uint64_t offset = 0;
  s.file.append(&offset, sizeof offset);
  for (uint32_t document : order) {
    offset += documents.id(document).size();
    s.file.append(&offset, sizeof offset);
  }
  s.file.begin(kIds);
  for (uint32_t document : order) {
    const std::string_view id = documents.id(document);
    s.file.append(id.data(), id.size());
  }
  s.file.begin(kLengths);
  s.file.append(documents.lengths.data(), documents.lengths.size());
  s.file.begin(kTextOffsets);
  for (uint32_t document : order)
    s.file.append(&documents.text_offsets[document], sizeof(uint64_t));
  s.end.num_documents = order.size();
  s.end.num_terms = s.terms.size();
  s.end.analyzer = static_cast<uint32_t>(s.options.analyzer);
  s.file.finish(s.end);
  return true;
}

}  // namespace erank::retrieve
