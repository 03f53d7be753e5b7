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
  int64_t max_batch_tokens = 2048;
  int64_t max_sequences = 256;
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
  std::vector<StepEntry> entries;  // in packing order
  std::vector<PageCopy>
      copies;  // in order; made by each layer after the step's own keys and values are written
};

// A sequence is a growing list of ids of which a prefix is computed (its keys and values are in
// pages). Sequences with a common prefix share whole pages by reference count, and take over the
// tokens of a page that they share in part by copies; pages of ended sequences stay findable until
// their room is needed (least recently used first).
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();

  // Queues a sequence. `max_tokens` is the largest length it may ever grow to: its pages are
  // reserved when it is admitted, so an admitted sequence always finishes. `must_compute_from`: the
  // first position that has to be computed anew even if cached (its logits are asked). Returns its
  // handle. REQUIRES: fits(max_tokens), 0 <= must_compute_from < ids.size().
  int64_t add(Ids ids, int64_t max_tokens, int64_t must_compute_from);
  // Whether a sequence of this length can run when it has all pages.
  bool fits(int64_t max_tokens) const;

  // Admits what fits (strictly in order of add) and plans the next pass: running sequences' next
  // tokens first, then prefill, long prompts in chunks of max_batch_tokens. A prefix that another
  // sequence computes in this very step counts as cached. Empty entries: nothing to do.
  Step next();

  const Ids& ids(int64_t sequence) const;
  std::span<const int32_t> pages(int64_t sequence) const;  // in order of position
  int64_t num_computed(int64_t sequence) const;            // including what next() has just planned
  int64_t num_cached(int64_t sequence) const;  // tokens it found in the cache when it was admitted

  void append(int64_t sequence, std::span<const int32_t> ids);  // REQUIRES: stays within max_tokens
  void truncate(int64_t sequence,
                int64_t num_tokens);  // forgets the ids behind; computed shrinks too
  void finish(int64_t sequence);      // releases its pages; the handle is gone

  void forget_prefixes();  // REQUIRES: no sequence
  int64_t num_waiting() const;
  int64_t num_running() const;
  int64_t num_free_pages() const;  // never used or evictable

  // Every page is free, in the prefix tree, or owned by exactly one sequence; reference counts
  // equal the users; no page that a sequence may write is shared; reservations never exceed the
  // pages. Throws InternalError.
  void check_integrity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::engine
