#include "erank/retrieve/bm25.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/threads.h"
#include "erank/retrieve/analyzer.h"
#include "erank/retrieve/bm25_file.h"

namespace erank::retrieve {
namespace {

using base::ErrorKind;
using base::fail;

constexpr float kK1 = 0.9f;
constexpr float kB = 0.4f;

struct Hash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename T>
using TextMap = std::unordered_map<std::string, T, Hash, std::equal_to<>>;

// Reports counts that several threads add to.
class SharedProgress {
 public:
  SharedProgress(base::ProgressSink* sink, std::string what, std::string unit, size_t total)
      : sink_(sink),
        progress_{std::move(what), 0, static_cast<int64_t>(total), std::move(unit), ""} {}
  void add(int64_t count) {
    if (!sink_) return;
    const std::lock_guard lock(mutex_);
    progress_.done += count;
    sink_->update(progress_);
  }

 private:
  std::mutex mutex_;
  base::ProgressSink* sink_;
  base::Progress progress_;
};

// The postings of a contiguous range of the corpus.
struct Part {
  TextMap<std::vector<Posting>> postings;
};

void add_document(Part& part, Analyzer& analyzer, uint32_t number, std::string_view text,
                  uint64_t& length) {
  length = 0;
  analyzer.analyze(text, [&](std::string_view term) {
    ++length;
    auto it = part.postings.find(term);
    if (it == part.postings.end()) it = part.postings.try_emplace(std::string(term)).first;
    std::vector<Posting>& list = it->second;
    if (!list.empty() && list.back().document == number) {
      ++list.back().tf;
    } else {
      list.push_back({number, 1});
    }
  });
}

// Appends arrays to a file's bytes, each padded to 8.
class Image {
 public:
  explicit Image(uint64_t size) { words_.reserve((size + 7) / 8); }
  void append(const void* data, size_t size) {
    const size_t at = words_.size();
    words_.resize(at + (size + 7) / 8);
    if (size > 0) std::memcpy(words_.data() + at, data, size);
  }
  std::vector<uint64_t> take() { return std::move(words_); }

 private:
  std::vector<uint64_t> words_;
};

// Scores of all documents while one query runs; all zero between two queries.
struct Scratch {
  std::vector<double> scores;
  std::vector<uint32_t> touched;
};

}  // namespace

struct Index::State {
  std::vector<uint64_t> built;             // the bytes of an index that was built here
  std::optional<base::MappedFile> mapped;  // or of one that was opened
  FileView view;
  std::array<float, 256> inverse_norm{};  // by length code: 1 / (k1 (1 - b + b length / average))

  std::span<const uint8_t> bytes() const {
    if (mapped) return mapped->bytes();
    return {reinterpret_cast<const uint8_t*>(built.data()), built.size() * 8};
  }

  void prepare() {
    const FileHeader& h = *view.header;
    const float average =
        static_cast<float>(static_cast<double>(h.total_terms) /
                           static_cast<double>(std::max<uint64_t>(1, h.num_with_terms)));
    for (size_t code = 0; code < inverse_norm.size(); ++code) {
      const auto length = static_cast<float>(length_of_code(static_cast<uint8_t>(code)));
      inverse_norm[code] = 1.0f / (kK1 * ((1 - kB) + kB * length / average));
    }
  }

  std::optional<size_t> find_term(std::string_view term) const {
    size_t begin = 0, end = view.header->num_terms;
    while (begin < end) {
      const size_t middle = begin + (end - begin) / 2;
      if (view.term(middle) < term) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    if (begin == view.header->num_terms || view.term(begin) != term) return std::nullopt;
    return begin;
  }

  std::vector<data::Hit> search(std::string_view query, int top, Analyzer& analyzer,
                                Scratch& scratch) const;
};

std::vector<data::Hit> Index::State::search(std::string_view query, int top, Analyzer& analyzer,
                                            Scratch& scratch) const {
  if (top <= 0) return {};
  std::vector<std::pair<size_t, float>> terms;  // in order of first occurrence, with its count
  analyzer.analyze(query, [&](std::string_view text) {
    const auto term = find_term(text);
    if (!term) return;
    const auto known = std::ranges::find(terms, *term, &std::pair<size_t, float>::first);
    if (known != terms.end()) {
      ++known->second;
    } else {
      terms.emplace_back(*term, 1.0f);
    }
  });
  scratch.scores.resize(view.header->num_documents, 0.0);
  const auto num_with_terms = static_cast<double>(view.header->num_with_terms);
  for (const auto& [term, count] : terms) {
    const auto postings = view.postings.subspan(
        view.posting_offsets[term], view.posting_offsets[term + 1] - view.posting_offsets[term]);
    const auto df = static_cast<double>(postings.size());
    const auto idf = static_cast<float>(std::log(1 + (num_with_terms - df + 0.5) / (df + 0.5)));
    const float weight = count * idf;
    for (const Posting& posting : postings) {
      double& score = scratch.scores[posting.document];
      if (score == 0) scratch.touched.push_back(posting.document);
      const float norm = inverse_norm[view.lengths[posting.document]];
      score += weight - weight / (1 + static_cast<float>(posting.tf) * norm);
    }
  }
  struct Found {
    float score;
    uint32_t document;
  };
  const auto is_before = [](const Found& a, const Found& b) {
    return a.score != b.score ? a.score > b.score : a.document < b.document;
  };
  std::vector<Found> found;
  found.reserve(scratch.touched.size());
  for (uint32_t document : scratch.touched) {
    found.push_back({static_cast<float>(scratch.scores[document]), document});
    scratch.scores[document] = 0;
  }
  scratch.touched.clear();
  const size_t kept = std::min(found.size(), static_cast<size_t>(top));
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(kept), found.end(),
                    is_before);
  std::vector<data::Hit> hits;
  hits.reserve(kept);
  for (size_t i = 0; i < kept; ++i)
    hits.push_back({std::string(view.docid(found[i].document)), found[i].score});
  return hits;
}

Index::Index(std::unique_ptr<State> state) : state_(std::move(state)) { state_->prepare(); }
Index::Index(Index&&) noexcept = default;
Index& Index::operator=(Index&&) noexcept = default;
Index::~Index() = default;

Index Index::build(std::span<const data::Document> documents, int num_threads,
                   base::ProgressSink* progress) {
  if (documents.empty())
    fail(ErrorKind::kInvalidInput, "build_index", "the corpus has no documents");
  if (documents.size() > UINT32_MAX)
    fail(ErrorKind::kExhausted, "build_index", documents.size(), " documents, at most ",
         UINT32_MAX);
  const size_t num_parts =
      std::clamp<size_t>(static_cast<size_t>(std::max(1, num_threads)), 1, documents.size());
  std::vector<Part> parts(num_parts);
  std::vector<uint64_t> lengths(documents.size());
  SharedProgress shared(progress, "index", "documents", documents.size());
  base::parallel_ranges(num_parts, num_threads, [&](size_t first, size_t last) {
    Analyzer analyzer;
    for (size_t p = first; p < last; ++p) {
      const size_t begin = documents.size() * p / num_parts;
      const size_t end = documents.size() * (p + 1) / num_parts;
      for (size_t d = begin; d < end; ++d) {
        add_document(parts[p], analyzer, static_cast<uint32_t>(d), documents[d].text, lengths[d]);
        if ((d - begin) % 512 == 511) shared.add(512);
      }
      shared.add(static_cast<int64_t>((end - begin) % 512));
    }
  });

  FileHeader header{};
  std::memcpy(header.magic, kMagic.data(), kMagic.size());
  header.version = kVersion;
  header.header_bytes = sizeof(FileHeader);
  header.num_documents = documents.size();

  std::vector<uint64_t> docid_offsets{0};
  std::string docids;
  std::vector<uint8_t> length_codes;
  for (size_t d = 0; d < documents.size(); ++d) {
    docids += documents[d].id;
    docid_offsets.push_back(docids.size());
    length_codes.push_back(
        length_code(static_cast<uint32_t>(std::min<uint64_t>(lengths[d], INT32_MAX))));
    header.num_with_terms += lengths[d] > 0;
    header.total_terms += lengths[d];
  }
  std::vector<std::string_view> terms;
  for (const Part& part : parts)
    for (const auto& [term, list] : part.postings) terms.push_back(term);
  std::ranges::sort(terms);
  terms.erase(std::unique(terms.begin(), terms.end()), terms.end());
  std::vector<uint64_t> term_offsets{0}, posting_offsets{0};
  std::string term_bytes;
  std::vector<Posting> postings;
  for (std::string_view term : terms) {
    term_bytes += term;
    term_offsets.push_back(term_bytes.size());
    for (const Part& part : parts)
      if (const auto it = part.postings.find(term); it != part.postings.end())
        postings.insert(postings.end(), it->second.begin(), it->second.end());
    posting_offsets.push_back(postings.size());
  }
  header.num_terms = terms.size();
  header.num_postings = postings.size();
  header.docid_bytes = docids.size();
  header.term_bytes = term_bytes.size();

  Image image(file_size_of(header));
  const auto append = [&image](const auto& array) {
    image.append(array.data(), array.size() * sizeof(array[0]));
  };
  image.append(&header, sizeof header);
  append(docid_offsets);
  append(docids);
  append(length_codes);
  append(term_offsets);
  append(term_bytes);
  append(posting_offsets);
  append(postings);
  auto state = std::make_unique<State>();
  state->built = image.take();
  header.checksum = checksum_of(state->bytes().subspan(sizeof header));
  std::memcpy(state->built.data(), &header, sizeof header);
  state->view = view_of(state->bytes(), "the index just built");
  return Index(std::move(state));
}

Index Index::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->mapped.emplace(path);
  check_file(state->bytes(), path);
  state->view = view_of(state->bytes(), path);
  return Index(std::move(state));
}

std::string_view Index::bytes() const {
  const auto bytes = state_->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

int64_t Index::num_documents() const {
  return static_cast<int64_t>(state_->view.header->num_documents);
}
int64_t Index::num_terms() const { return static_cast<int64_t>(state_->view.header->num_terms); }
int64_t Index::num_postings() const {
  return static_cast<int64_t>(state_->view.header->num_postings);
}

std::vector<data::Hit> Index::search(std::string_view query, int top) const {
  Analyzer analyzer;
  Scratch scratch;
  return state_->search(query, top, analyzer, scratch);
}

std::vector<std::vector<data::Hit>> Index::search_all(std::span<const data::Query> queries, int top,
                                                      int num_threads,
                                                      base::ProgressSink* progress) const {
  std::vector<std::vector<data::Hit>> out(queries.size());
  SharedProgress shared(progress, "retrieve", "queries", queries.size());
  base::parallel_ranges(queries.size(), num_threads, [&](size_t begin, size_t end) {
    Analyzer analyzer;
    Scratch scratch;
    for (size_t i = begin; i < end; ++i) {
      out[i] = state_->search(queries[i].text, top, analyzer, scratch);
      shared.add(1);
    }
  });
  return out;
}

}  // namespace erank::retrieve
