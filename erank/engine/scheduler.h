// Which tokens of which sequences the next forward pass computes, in which pages. Pure integers: no
// tensor, no text, tested without a model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace erank::engine {

using Ids = std::vector<int32_t>;

struct SchedulerOptions {
  int64_t num_pages = 0;
  int page_tokens = 16;
  int64_t max_batch_tokens = 2048;  // tokens a step
  int64_t max_sequences = 256;      // admitted at once
  bool share_prefixes = true;
};

// One sequence's part of a step: its tokens [begin, end) are computed.
struct StepEntry {
  int64_t sequence = 0;
  int64_t begin = 0, end = 0;
};
struct PageCopy {
  int32_t from_slot, to_slot;  // slot = page * page_tokens + offset
};
struct Step {
  std::vector<StepEntry> entries;  // in packing order, at most one a sequence
  // Made by each layer after the step's own keys and values are written. No slot is a copy's source
  // and another's destination, so their order does not matter.
  std::vector<PageCopy> copies;
};

// A sequence is a growing list of ids of which a prefix is computed (its keys and values are in
// pages). Sequences with a common prefix share whole pages by reference count, and take over the
// tokens of a page that they share in part by copies; pages of ended sequences stay findable until
// their room is needed (least recently used first). A step costs time in proportion to what it
// plans, not to the number of pages. Not thread-safe.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  // Queues a sequence. `max_tokens` is the largest length it may ever grow to: its pages are
  // reserved when it is admitted, so an admitted sequence always finishes. `must_compute_from`: the
  // first position that is computed anew even if another sequence has it (its logits are asked);
  // what stands before it is found by later sequences, the rest and what is appended is not.
  // Returns its handle (never used again). REQUIRES: fits(max_tokens), ids.size() <= max_tokens,
  // 0 <= must_compute_from < ids.size().
  int64_t add(Ids ids, int64_t max_tokens, int64_t must_compute_from);
  // Whether a sequence of this length can run when it has all pages.
  bool fits(int64_t max_tokens) const;

  // Admits what fits (strictly in order of add) and plans the next pass: first what running
  // sequences lack, then new ones, until max_batch_tokens are planned; the last entry may be a part
  // of a long prompt. A prefix that another sequence computes in this very step counts as cached.
  // The caller makes the pass before it calls anything else that changes a sequence. Empty entries:
  // nothing to do.
  Step next();

  const Ids& ids(int64_t sequence) const;
  // In order of position; a sequence may hold more than its ids need. Empty before admission.
  std::span<const int32_t> pages(int64_t sequence) const;
  int64_t num_computed(int64_t sequence) const;  // including what next() has just planned
  int64_t num_cached(int64_t sequence) const;    // tokens that it found when it was admitted

  // These three REQUIRE that the sequence has been admitted.
  void append(int64_t sequence, std::span<const int32_t> ids);  // REQUIRES: stays within max_tokens
  // Forgets the ids from `num_tokens` on; what was computed shrinks too.
  // REQUIRES: must_compute_from <= num_tokens <= ids().size().
  void truncate(int64_t sequence, int64_t num_tokens);
  void finish(int64_t sequence);  // releases its pages; the handle is gone

  // What was computed is not true any more. REQUIRES: num_running() == 0.
  void forget_prefixes();
  int64_t num_waiting() const;
  int64_t num_running() const;
  int64_t num_free_pages() const;  // never used or evictable

  // Every page is free, in the prefix tree, or owned by exactly one sequence; reference counts
  // equal the users; no page that a sequence may write is read by another; reservations never
  // exceed the pages. Throws InternalError. O(num_pages): for tests and idle servers.
  void check_integrity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::engine
