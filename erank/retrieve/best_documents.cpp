#include "erank/retrieve/best_documents.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "erank/retrieve/posting_blocks.h"

namespace erank::retrieve {
namespace {

constexpr size_t kWindow = 4096;  // documents

// The best documents so far. They come in ascending order, so that of equal scores those that are
// there stay.
class Best {
 public:
  explicit Best(size_t top) : top_(top) {}

  // Whether a document of this sum would be among them.
  bool takes(double sum) const { return static_cast<float>(sum) > threshold_; }

  void add(double sum, uint32_t document) {
    if (found_.size() == top_) {
      std::pop_heap(found_.begin(), found_.end(), is_better);
      found_.pop_back();
    }
    found_.push_back({static_cast<float>(sum), document});
    std::push_heap(found_.begin(), found_.end(), is_better);
    if (found_.size() == top_) threshold_ = found_.front().score;
  }

  std::vector<Found> take() && {
    std::sort(found_.begin(), found_.end(), is_better);
    return std::move(found_);
  }

 private:
  static bool is_better(const Found& a, const Found& b) {
    return a.score != b.score ? a.score > b.score : a.document < b.document;
  }
  size_t top_;
  float threshold_ = 0;
  std::vector<Found> found_;  // a heap, the worst in front
};

// One term's postings, gone through from the first to the last.
class List {
 public:
  List(const FileReader& file, const WeightedTerm& term)
      : file_(file), weight_(term.weight), num_postings_(term.entry.num_documents) {
    if (num_postings_ == 0 || num_postings_ > file.end().num_documents)
      file.fail("has a term with too many documents");
    const size_t num_blocks = (num_postings_ + kBlockPostings - 1) / kBlockPostings;
    blocks_ = file.array_at<BlockEntry>(kPostings, term.entry.postings, num_blocks);
    words_at_ = term.entry.postings + num_blocks * sizeof(BlockEntry);
  }

  float weight() const { return weight_; }
  bool is_done() const { return block_ == blocks_.size(); }
  const BlockEntry& block() const { return blocks_[block_]; }
  uint64_t block_begin() const { return begin_of(block_); }  // no document of it is before

  // Moves to the block that may hold `document` or later ones.
  void seek_block(uint64_t document) {
    while (block_ < blocks_.size() && blocks_[block_].last_document < document) ++block_;
  }
  void next_block() { ++block_; }

  // The largest ratio of the blocks that reach into the documents before `end`.
  float max_ratio(uint64_t end) const {
    float most = 0;
    for (size_t b = block_; b < blocks_.size() && begin_of(b) < end; ++b)
      most = std::max(most, blocks_[b].max_ratio);
    return most;
  }

  // The current block's postings.
  const Block& postings() {
    if (decoded_ != block_) decode();
    return postings_;
  }
  size_t num() const { return std::min(kBlockPostings, num_postings_ - block_ * kBlockPostings); }
  // The first posting of the current block at or after `document`; never goes back.
  size_t seek(uint64_t document) {
    const auto& documents = postings().documents;
    const auto first = documents.begin() + static_cast<std::ptrdiff_t>(at_);
    const auto last = documents.begin() + static_cast<std::ptrdiff_t>(num());
    at_ = static_cast<size_t>(std::lower_bound(first, last, document) - documents.begin());
    return at_;
  }
  void set_at(size_t at) { at_ = at; }

  double bound = 0;  // of its part in the window

 private:
  uint64_t begin_of(size_t block) const {
    return block == 0 ? 0 : uint64_t{blocks_[block - 1].last_document} + 1;
  }
  void decode() {
    const BlockEntry& entry = blocks_[block_];
    const uint64_t num_words = block_words(entry, num());
    const uint8_t* words =
        file_.read(kPostings, words_at_ + uint64_t{entry.first_word} * 8, num_words * 8);
    const uint32_t before = block_ == 0 ? UINT32_MAX : blocks_[block_ - 1].last_document;
    if (entry.last_document >= file_.end().num_documents ||
        !unpack_block(words, entry, num(), before, postings_))
      file_.fail("has postings out of range");
    // The lengths that the block's documents have.
    file_.read(kLengths, postings_.documents[0],
               uint64_t{entry.last_document} - postings_.documents[0] + 1);
    decoded_ = block_;
    at_ = 0;
  }

  const FileReader& file_;
  float weight_;
  size_t num_postings_;
  std::span<const BlockEntry> blocks_;
  uint64_t words_at_ = 0;
  size_t block_ = 0, decoded_ = SIZE_MAX, at_ = 0;
  Block postings_;
};

class Search {
 public:
  Search(const FileReader& file, const std::array<float, 256>& norms,
         std::span<const WeightedTerm> terms, size_t top)
      : norms_(norms), lengths_(file.read(kLengths, 0, 0)), best_(top) {
    lists_.reserve(terms.size());
    double sum = 0;
    for (const WeightedTerm& term : terms) {
      if (!(term.weight > 0)) continue;
      lists_.emplace_back(file, term);
      sum += term.weight;
    }
    for (List& list : lists_) open_.push_back(&list);
    // Sums stay under e = 2^exponent. Added to 3 e a part is rounded to a multiple of 2^-51 e.
    int exponent = 0;
    std::frexp(sum, &exponent);
    rounder_ = 3 * std::ldexp(1.0, exponent);
  }

  std::vector<Found> run() && {
    for (uint64_t begin = 0; next_window(begin); begin += kWindow) {
      if (!best_.takes(set_bounds(begin))) continue;
      collect(begin);
      look_up(begin);
    }
    return std::move(best_).take();
  }

 private:
  double part(float weight, float ratio) const {
    const float value = weight - weight / (1 + ratio);
    return (value + rounder_) - rounder_;
  }
  double part_of(const List& list, const Block& block, size_t i) const {
    return part(list.weight(),
                static_cast<float>(block.counts[i]) * norms_[lengths_[block.documents[i]]]);
  }

  // Moves `begin` to the first document from there on that a list may hold.
  bool next_window(uint64_t& begin) {
    uint64_t first = UINT64_MAX;
    std::erase_if(open_, [&](List* list) {
      list->seek_block(begin);
      if (list->is_done()) return true;
      first = std::min(first, std::max(begin, list->block_begin()));
      return false;
    });
    begin = first;
    return !open_.empty();
  }

  // The lists in ascending order of their bounds, the first of which together are not enough; gives
  // the sum of all bounds.
  double set_bounds(uint64_t begin) {
    total_ = 0;
    for (List* list : open_) {
      list->bound = part(list->weight(), list->max_ratio(begin + kWindow));
      total_ += list->bound;
    }
    std::ranges::sort(open_, {}, [](const List* list) { return list->bound; });
    num_optional_ = 0;
    optional_sum_ = 0;
    while (num_optional_ < open_.size() &&
           !best_.takes(optional_sum_ + open_[num_optional_]->bound))
      optional_sum_ += open_[num_optional_++]->bound;
    return total_;
  }

  // Adds up the parts of the lists that are not optional.
  void collect(uint64_t begin) {
    const uint64_t end = begin + kWindow;
    for (size_t t = num_optional_; t < open_.size(); ++t) {
      List& list = *open_[t];
      const double others = total_ - list.bound;
      for (; !list.is_done() && list.block_begin() < end; list.next_block()) {
        if (best_.takes(others + part(list.weight(), list.block().max_ratio))) {
          const Block& block = list.postings();
          const size_t num = list.num();
          size_t i = list.seek(begin);
          for (; i < num && block.documents[i] < end; ++i) {
            const size_t at = block.documents[i] - begin;
            sums_[at] += part_of(list, block, i);
            touched_[at / 64] |= uint64_t{1} << at % 64;
          }
          list.set_at(i);
        }
        if (list.block().last_document >= end - 1) break;
      }
    }
  }

  // Takes what was collected and can still be among the best.
  void look_up(uint64_t begin) {
    for (size_t w = 0; w < touched_.size(); ++w) {
      for (uint64_t bits = touched_[w]; bits != 0; bits &= bits - 1) {
        const size_t at = w * 64 + static_cast<size_t>(std::countr_zero(bits));
        double sum = sums_[at];
        sums_[at] = 0;
        if (!best_.takes(sum + optional_sum_)) continue;
        const uint64_t document = begin + at;
        if (add_optional(document, sum)) best_.add(sum, static_cast<uint32_t>(document));
      }
      touched_[w] = 0;
    }
  }

  // Completes `sum`; false as soon as it is not enough.
  bool add_optional(uint64_t document, double& sum) {
    double rest = optional_sum_;
    for (size_t t = num_optional_; t-- > 0;) {
      List& list = *open_[t];
      rest -= list.bound;
      list.seek_block(document);
      if (!list.is_done() && list.block_begin() <= document) {
        if (!best_.takes(sum + rest + part(list.weight(), list.block().max_ratio))) return false;
        const size_t i = list.seek(document);
        if (i < list.num() && list.postings().documents[i] == document)
          sum += part_of(list, list.postings(), i);
      }
      if (!best_.takes(sum + rest)) return false;
    }
    return best_.takes(sum);
  }

  const std::array<float, 256>& norms_;
  const uint8_t* lengths_;
  Best best_;
  std::vector<List> lists_;
  std::vector<List*> open_;  // those with documents left
  double rounder_ = 0, total_ = 0, optional_sum_ = 0;
  size_t num_optional_ = 0;
  std::array<double, kWindow> sums_{};            // of the window's documents
  std::array<uint64_t, kWindow / 64> touched_{};  // which of them a list has
};

}  // namespace

std::vector<Found> find_best(const FileReader& file, const std::array<float, 256>& norms,
                             std::span<const WeightedTerm> terms, size_t top) {
  if (top == 0) return {};
  return Search(file, norms, terms, top).run();
}

}  // namespace erank::retrieve
