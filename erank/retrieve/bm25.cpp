#include "erank/retrieve/bm25.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/threads.h"
#include "erank/retrieve/best_documents.h"
#include "erank/retrieve/index_file.h"

namespace erank::retrieve {

struct Index::State {
  std::vector<char> built;                 // the bytes of an index that was built here
  std::optional<base::MappedFile> mapped;  // or of one that was opened
  FileReader file;
  std::array<float, 256> norms;

  explicit State(std::vector<char> bytes)
      : built(std::move(bytes)),
        file({reinterpret_cast<const uint8_t*>(built.data()), built.size()},
             "the index just built"),
        norms(inverse_norms(file.end())) {}
  explicit State(const std::string& path)
      : mapped(path), file(mapped->bytes(), path), norms(inverse_norms(file.end())) {}

  TermEntry term(size_t i) const { return file.array<TermEntry>(kTerms, i, 1)[0]; }
  std::string_view docid(size_t i) const {
    const auto offsets = file.array<uint64_t>(kIdOffsets, i, 2);
    if (offsets[1] < offsets[0]) file.fail("has offsets out of order");
    return file.text(kIds, offsets[0], offsets[1] - offsets[0]);
  }

  std::optional<TermEntry> find_term(std::string_view text) const {
    size_t begin = 0, end = file.end().num_terms;
    while (begin < end) {
      const size_t middle = begin + (end - begin) / 2;
      const TermEntry entry = term(middle);
      const int order = file.text(kTermBytes, entry.text, entry.text_bytes).compare(text);
      if (order == 0) return entry;
      (order < 0 ? begin : end) = order < 0 ? middle + 1 : middle;
    }
    return std::nullopt;
  }

  std::optional<size_t> find_document(std::string_view id) const {
    size_t begin = 0, end = file.end().num_documents;
    while (begin < end) {
      const size_t middle = begin + (end - begin) / 2;
      const int order = docid(middle).compare(id);
      if (order == 0) return middle;
      (order < 0 ? begin : end) = order < 0 ? middle + 1 : middle;
    }
    return std::nullopt;
  }

  std::vector<data::Hit> search(std::string_view query, int top, QueryWeights weights,
                                Analyzer& words) const;
};

std::vector<data::Hit> Index::State::search(std::string_view query, int top, QueryWeights weights,
                                            Analyzer& words) const {
  struct Counted {
    TermEntry entry;
    float count;
  };
  std::vector<Counted> counted;  // in order of first occurrence
  float length = 0;
  words.analyze(query, [&](std::string_view text, std::string_view) {
    const auto entry = find_term(text);
    if (!entry) return;
    ++length;
    const auto known =
        std::ranges::find(counted, entry->text, [](const Counted& c) { return c.entry.text; });
    if (known != counted.end()) {
      ++known->count;
    } else {
      counted.push_back({*entry, 1.0f});
    }
  });
  std::vector<WeightedTerm> terms;
  const auto num_with_terms = static_cast<double>(file.end().num_with_terms);
  const float query_norm = length_norm(file.end(), length);
  for (const Counted& c : counted) {
    const auto df = static_cast<double>(c.entry.num_documents);
    const auto idf = static_cast<float>(std::log(1 + (num_with_terms - df + 0.5) / (df + 0.5)));
    const auto count =
        weights == QueryWeights::kCounts ? c.count : idf * c.count / (c.count + query_norm);
    terms.push_back({c.entry, count * idf});
  }
  std::vector<data::Hit> hits;
  for (const Found& found : find_best(file, norms, terms, static_cast<size_t>(std::max(0, top))))
    hits.push_back({std::string(docid(found.document)), found.score});
  return hits;
}

Index::Index(std::unique_ptr<State> state) : state_(std::move(state)) {}
Index::Index(Index&&) noexcept = default;
Index& Index::operator=(Index&&) noexcept = default;
Index::~Index() = default;

Index Index::build(std::span<const data::Document> documents, int num_threads,
                   AnalyzerKind analyzer) {
  std::vector<char> bytes;
  IndexOptions options;
  options.analyzer = analyzer;
  options.num_threads = num_threads;
  options.max_posting_bytes = SIZE_MAX;
  IndexBuilder builder(options, [&](std::string_view piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  });
  for (const data::Document& document : documents) builder.add(document);
  builder.finish();
  return from_bytes(std::move(bytes));
}

Index Index::from_bytes(std::vector<char> bytes) {
  return Index(std::make_unique<State>(std::move(bytes)));
}

Index Index::open(const std::string& path) { return Index(std::make_unique<State>(path)); }

std::string_view Index::bytes() const {
  if (!state_->mapped) return {state_->built.data(), state_->built.size()};
  const auto bytes = state_->mapped->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

AnalyzerKind Index::analyzer() const {
  return static_cast<AnalyzerKind>(state_->file.end().analyzer);
}
int64_t Index::num_documents() const {
  return static_cast<int64_t>(state_->file.end().num_documents);
}
int64_t Index::num_terms() const { return static_cast<int64_t>(state_->file.end().num_terms); }
int64_t Index::num_postings() const {
  return static_cast<int64_t>(state_->file.end().num_postings);
}

std::vector<data::Hit> Index::search(std::string_view query, int top, QueryWeights weights) const {
  Analyzer words(analyzer());
  return state_->search(query, top, weights, words);
}

std::vector<std::vector<data::Hit>> Index::search_all(std::span<const data::Query> queries, int top,
                                                      int num_threads, QueryWeights weights) const {
  std::vector<std::vector<data::Hit>> out(queries.size());
  base::parallel_ranges(queries.size(), num_threads, [&](size_t begin, size_t end) {
    Analyzer words(analyzer());
    for (size_t i = begin; i < end; ++i)
      out[i] = state_->search(queries[i].text, top, weights, words);
  });
  return out;
}

std::string Index::text(std::string_view docid) const {
  const FileReader& file = state_->file;
  const auto number = state_->find_document(docid);
  if (!number)
    base::fail(base::ErrorKind::kNotFound, "index", file.path(), ": has no document '", docid, "'");
  const uint64_t offset = file.array<uint64_t>(kTextOffsets, *number, 1)[0];
  uint32_t bytes = 0;
  std::memcpy(&bytes, file.read(kTexts, offset, sizeof bytes), sizeof bytes);
  return std::string(file.text(kTexts, offset + sizeof bytes, bytes));
}

}  // namespace erank::retrieve
