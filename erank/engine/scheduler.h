// Which tokens of which sequences the next forward pass computes, in which pages. Pure integers: no
// tensor, no text, tested without a model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "erank/base/ids.h"
#include "erank/model/batch.h"

namespace erank::engine {

using base::Ids;

struct SchedulerOptions {
  int64_t num_pages = 0;
  int page_tokens = model::kPageTokens;
  int64_t max_batch_tokens = 2048;  // tokens a step
  int64_t max_sequences = 256;      // admitted at once
  bool share_prefixes = true;
  // Pages of ended sequences that stay findable although pages that were never used could be taken
  // instead: it bounds the memory that is touched. Half of them are for prefixes that several
  // sequences had in common. -1: no bound.
  int64_t max_unused_pages = -1;
  // Sequences of a queue that are admitted before it is the next one's turn. Fewer let those wait
  // less that come with few; callers with as many as this are served in the order in which they
  // came, which makes their mean wait half of what it is when all go on together.
  int64_t turn = 32;
};

// One sequence's part of a step: its tokens [begin, end) are computed.
struct StepEntry {
  int64_t sequence = 0;
  int64_t begin = 0, end = 0;
};
struct Step {
  std::vector<StepEntry> entries;  // in packing order, at most one a sequence
  // As Batch has them. No slot is a copy's source and another's destination, so their order does
  // not matter.
  std::vector<model::Batch::Copy> copies;
};

// A sequence is a growing list of ids of which a prefix is computed (its keys and values are in
// pages). Sequences with a common prefix share whole pages by reference count, and take over the
// tokens of a page that they share in part by copies; pages of ended sequences stay findable until
// their room is needed (PrefixTree says in which order). A step costs time in proportion to what it
// plans, not to the number of pages. Not thread-safe.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  // Queues a sequence. `max_tokens` is the largest length it may ever grow to: its pages are
  // reserved when it is admitted, so an admitted sequence always finishes. `must_compute_from`: the
  // first position that is computed anew even if another sequence has it (its logits are asked);
  // what is before it is found by later sequences, the rest and what is appended is not. `queue`:
  // of several in which sequences wait, some of each are admitted in turn.
  // Returns its handle (never used again). REQUIRES: fits(max_tokens), ids.size() <= max_tokens,
  // 0 <= must_compute_from < ids.size().
  int64_t add(Ids ids, int64_t max_tokens, int64_t must_compute_from, int64_t queue = 0);
  // Whether a sequence of this length can run when it has all pages.
  bool fits(int64_t max_tokens) const;

  // Admits what fits (strictly in turn, of a queue in order of add) and plans the next pass: first
  // what running sequences lack, then new ones, until max_batch_tokens are planned; the last entry
  // may be a part of a long prompt. A prefix that another sequence computes in this very step
  // counts as cached. The caller makes the pass before it calls anything else that changes a
  // sequence. Empty entries: nothing to do. Valid until the next call.
  const Step& next();
  // From the next call of next() on. REQUIRES: at least 1.
  void set_max_batch_tokens(int64_t max_batch_tokens);

  const Ids& ids(int64_t sequence) const;
  // In order of position; a sequence may hold more than its ids need. Empty before admission.
  std::span<const int32_t> pages(int64_t sequence) const;
  int64_t num_computed(int64_t sequence) const;  // including what next() has just planned
  int64_t num_cached(int64_t sequence) const;    // tokens that it found when it was admitted

  // These two REQUIRE that the sequence has been admitted.
  void append(int64_t sequence, std::span<const int32_t> ids);  // REQUIRES: stays within max_tokens
  // Forgets the ids from `num_tokens` on; what was computed shrinks too.
  // REQUIRES: must_compute_from <= num_tokens <= ids().size().
  void truncate(int64_t sequence, int64_t num_tokens);
  // Releases its pages, or takes it out of those that wait; the handle is gone.
  void finish(int64_t sequence);

  // Nothing that was computed is true any more: running sequences wait again, in order and before
  // the others of their queue, and no prefix is findable.
  void restart();
  int64_t num_waiting() const;
  int64_t num_running() const;
  bool is_running(int64_t sequence) const;  // admitted
  int64_t num_free_pages() const;           // that nobody uses, findable or not
  int64_t num_touched_pages() const;        // that were used at some time: what takes memory
  int64_t num_evictions() const;            // findable pages that were given to another sequence

  // Every page is free, in the prefix tree, or owned by exactly one sequence; reference counts
  // equal the users; no page that a sequence may write is read by another; reservations never
  // exceed the pages. Throws InternalError. O(num_pages): for tests and idle servers.
  void check_integrity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::engine
