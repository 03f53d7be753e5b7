#include "erank/engine/scheduler.h"

#include <algorithm>
#include <deque>
#include <list>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/engine/block_pool.h"
#include "erank/engine/prefix_tree.h"

namespace erank::engine {
namespace {

struct Sequence {
  int64_t handle = 0, queue = 0;
  Ids ids;
  int64_t max_tokens = 0, must_compute_from = 0;
  bool admitted = false;
  int64_t computed = 0, cached = 0;
  // The first num_shared pages are other sequences' full pages, never written here; the first
  // num_nodes (at least those) are nodes of the tree that this sequence uses; the rest is its own.
  std::vector<int32_t> pages;
  int64_t num_shared = 0, num_nodes = 0;
  int64_t reserved = 0;    // pages it may still take
  bool publishing = true;  // its next page can still become a node
};

struct Queue {
  int64_t number = 0;
  std::deque<int64_t> waiting = {};  // at least one
  int64_t num_admitted = 0;          // in this turn
};

}  // namespace

struct Scheduler::State {
  explicit State(const SchedulerOptions& o)
      : options(o),
        max_unused(o.max_unused_pages < 0 ? o.num_pages : o.max_unused_pages),
        pool(o.num_pages),
        tree(o.num_pages, o.page_tokens, max_unused / 2) {}

  SchedulerOptions options;
  int64_t max_unused;
  BlockPool pool;
  PrefixTree tree;
  std::unordered_map<int64_t, Sequence> sequences;
  std::list<Queue> queues;         // the one whose turn it is first
  std::vector<Sequence*> running;  // in order of admission
  int64_t next_handle = 0;
  int64_t num_reserved = 0;  // sum of reserved over all sequences
  int64_t num_evictions = 0;
  Step step;

  // Only while a step is planned: for a page whose first slots are copies, the page of each one's
  // source.
  std::unordered_map<int32_t, std::vector<int32_t>> sources;
  std::vector<int32_t> pinned;  // pages that copies of this step read

  int64_t pages_for(int64_t tokens) const {
    return (tokens + options.page_tokens - 1) / options.page_tokens;
  }
  int64_t num_waiting() const { return std::ssize(sequences) - std::ssize(running); }
  int64_t num_free() const { return pool.num_free() + tree.num_evictable(); }

  Sequence& get(int64_t handle) {
    const auto it = sequences.find(handle);
    ERANK_CHECK(it != sequences.end(), "no sequence ", handle);
    return it->second;
  }
  Sequence& get_admitted(int64_t handle) {
    Sequence& s = get(handle);
    ERANK_CHECK(s.admitted, "sequence ", handle, " is still waiting");
    return s;
  }

  std::list<Queue>::iterator find_queue(int64_t number) {
    return std::find_if(queues.begin(), queues.end(),
                        [&](const Queue& queue) { return queue.number == number; });
  }

  void take_page(Sequence& s) {
    ERANK_CHECK(s.reserved > 0, "sequence ", s.handle, " outgrows its reservation");
    int32_t page = -1;
    const bool full = tree.num_evictable() >= max_unused && tree.num_evictable() > 0;
    if (pool.num_free() > 0 && (pool.has_touched() || !full)) {
      page = pool.take();
    } else {
      page = tree.evict();
      ++num_evictions;
    }
    ERANK_CHECK(page >= 0, "no page for a reservation");
    s.pages.push_back(page);
    --s.reserved;
    --num_reserved;
  }

  // The copies that give `to` the first tokens of `from`. A source that is itself a copy of this
  // step is replaced by its own source.
  void copy_tokens(int32_t from, int num_tokens, int32_t to) {
    std::vector<int32_t> origins(num_tokens, from);
    if (const auto found = sources.find(from); found != sources.end()) {
      const auto& earlier = found->second;
      std::copy_n(earlier.begin(), std::min(earlier.size(), origins.size()), origins.begin());
    }
    const int size = options.page_tokens;
    for (int i = 0; i < num_tokens; ++i) {
      step.copies.push_back({origins[i] * size + i, to * size + i});
    }
    sources[to] = std::move(origins);
  }

  bool admit(Sequence& s) {
    PrefixTree::Match match;
    if (options.share_prefixes) {
      match = tree.match(std::span(s.ids).first(s.must_compute_from));
    }
    const int64_t needed = pages_for(s.max_tokens) - std::ssize(match.pages);
    const auto fits_now = [&] { return needed + num_reserved <= num_free(); };
    for (const int32_t page : match.pages) tree.use(page);
    bool copies = match.partial_tokens > 0;
    if (copies) {
      tree.use(match.partial_page);
      // The page to copy from may be one that the sequence needs for itself.
      if (!fits_now()) {
        tree.release(match.partial_page);
        copies = false;
      }
    }
    if (!copies && !fits_now()) {
      for (size_t i = match.pages.size(); i-- > 0;) tree.release(match.pages[i]);
      return false;
    }
    s.admitted = true;
    s.pages = std::move(match.pages);
    s.num_shared = s.num_nodes = std::ssize(s.pages);
    s.reserved = needed;
    num_reserved += needed;
    s.cached = s.num_shared * options.page_tokens;
    if (copies) {
      pinned.push_back(match.partial_page);
      take_page(s);
      copy_tokens(match.partial_page, match.partial_tokens, s.pages.back());
      s.cached += match.partial_tokens;
    }
    s.computed = s.cached;
    running.push_back(&s);
    return true;
  }

  // Plans up to `budget` tokens of a sequence; returns how many.
  int64_t plan(Sequence& s, int64_t budget) {
    const int64_t end = std::min<int64_t>(std::ssize(s.ids), s.computed + budget);
    if (end == s.computed) return 0;
    const int64_t begin = s.computed;
    while (std::ssize(s.pages) < pages_for(end)) take_page(s);
    step.entries.push_back({s.handle, begin, end});
    s.computed = end;
    if (options.share_prefixes) publish(s);
    return end - begin;
  }

  // Puts what is computed of the findable ids into the tree.
  void publish(Sequence& s) {
    const int64_t size = options.page_tokens, end = std::min(s.computed, s.must_compute_from);
    while (s.publishing) {
      if (s.num_nodes > s.num_shared) {  // the deepest own node may have grown
        const int32_t last = s.pages[s.num_nodes - 1];
        const int64_t num_ids = std::ssize(tree.key(last));
        if (num_ids < size && (s.num_nodes - 1) * size + num_ids < end) {
          tree.remove(last);
          --s.num_nodes;
        } else if (num_ids < size) {
          return;
        }
      }
      const int64_t begin = s.num_nodes * size;
      if (begin >= end) return;
      const auto key = std::span(s.ids).subspan(begin, std::min(size, end - begin));
      const int32_t parent = s.num_nodes > 0 ? s.pages[s.num_nodes - 1] : -1;
      if (tree.insert(s.pages[s.num_nodes], parent, key)) {
        ++s.num_nodes;
      } else {
        // Another page holds the same. A full one would have to be the parent of this sequence's
        // next page, which it does not use.
        s.publishing = std::ssize(key) < size;
        return;
      }
    }
  }

  void give_back_pages(const Sequence& s) {
    for (int64_t i = std::ssize(s.pages); i-- > 0;) {
      if (i < s.num_nodes) {
        tree.release(s.pages[i]);
      } else {
        pool.give_back(s.pages[i]);
      }
    }
    num_reserved -= s.reserved;
  }

  void release(Sequence& s) {
    give_back_pages(s);
    if (s.admitted) {
      std::erase(running, &s);
    } else {
      const auto queue = find_queue(s.queue);
      std::erase(queue->waiting, s.handle);
      if (queue->waiting.empty()) queues.erase(queue);
    }
    sequences.erase(s.handle);
  }
};

Scheduler::Scheduler(const SchedulerOptions& options) {
  ERANK_CHECK(options.num_pages > 0 && options.page_tokens > 0 && options.max_batch_tokens > 0 &&
              options.max_sequences > 0 && options.turn > 0);
  ERANK_CHECK(options.num_pages * options.page_tokens <= INT32_MAX, "slots are 32-bit");
  state_ = std::make_unique<State>(options);
}

Scheduler::~Scheduler() = default;

int64_t Scheduler::add(Ids ids, int64_t max_tokens, int64_t must_compute_from, int64_t queue) {
  ERANK_CHECK(fits(max_tokens) && std::ssize(ids) <= max_tokens, max_tokens);
  ERANK_CHECK(0 <= must_compute_from && must_compute_from < std::ssize(ids), must_compute_from);
  const int64_t handle = state_->next_handle++;
  Sequence& s = state_->sequences[handle];
  s.handle = handle;
  s.queue = queue;
  s.ids = std::move(ids);
  s.max_tokens = max_tokens;
  s.must_compute_from = must_compute_from;
  auto& queues = state_->queues;
  auto place = state_->find_queue(queue);
  if (place == queues.end()) place = queues.insert(place, {queue});
  place->waiting.push_back(handle);
  return handle;
}

bool Scheduler::fits(int64_t max_tokens) const {
  return state_->pages_for(max_tokens) <= state_->options.num_pages;
}

void Scheduler::set_max_batch_tokens(int64_t max_batch_tokens) {
  ERANK_CHECK(max_batch_tokens > 0);
  state_->options.max_batch_tokens = max_batch_tokens;
}

const Step& Scheduler::next() {
  State& state = *state_;
  Step& step = state.step;
  step.entries.clear();
  step.copies.clear();
  int64_t budget = state.options.max_batch_tokens;
  for (Sequence* s : state.running) budget -= state.plan(*s, budget);
  auto& queues = state.queues;
  while (budget > 0 && !queues.empty() && std::ssize(state.running) < state.options.max_sequences) {
    Queue& queue = queues.front();
    Sequence& s = state.get(queue.waiting.front());
    if (!state.admit(s)) break;
    queue.waiting.pop_front();
    if (queue.waiting.empty()) {
      queues.pop_front();
    } else if (++queue.num_admitted == state.options.turn) {
      queue.num_admitted = 0;
      queues.splice(queues.end(), queues, queues.begin());
    }
    budget -= state.plan(s, budget);
  }
  for (const int32_t page : state.pinned) state.tree.release(page);
  state.pinned.clear();
  state.sources.clear();
  ERANK_CHECK(!step.entries.empty() || queues.empty() || !state.running.empty(),
              "a waiting sequence fits but is not admitted");
  return step;
}

const Ids& Scheduler::ids(int64_t sequence) const { return state_->get(sequence).ids; }
std::span<const int32_t> Scheduler::pages(int64_t sequence) const {
  return state_->get(sequence).pages;
}
int64_t Scheduler::num_computed(int64_t sequence) const { return state_->get(sequence).computed; }
int64_t Scheduler::num_cached(int64_t sequence) const { return state_->get(sequence).cached; }

void Scheduler::append(int64_t sequence, std::span<const int32_t> ids) {
  Sequence& s = state_->get_admitted(sequence);
  ERANK_CHECK(std::ssize(s.ids) + std::ssize(ids) <= s.max_tokens, "sequence ", sequence);
  s.ids.insert(s.ids.end(), ids.begin(), ids.end());
}

void Scheduler::truncate(int64_t sequence, int64_t num_tokens) {
  Sequence& s = state_->get_admitted(sequence);
  ERANK_CHECK(s.must_compute_from <= num_tokens && num_tokens <= std::ssize(s.ids), num_tokens);
  s.ids.resize(num_tokens);
  s.computed = std::min(s.computed, num_tokens);
}

void Scheduler::finish(int64_t sequence) { state_->release(state_->get(sequence)); }

void Scheduler::restart() {
  for (; !state_->running.empty(); state_->running.pop_back()) {
    Sequence& s = *state_->running.back();
    state_->give_back_pages(s);
    s = {.handle = s.handle,
         .queue = s.queue,
         .ids = std::move(s.ids),
         .max_tokens = s.max_tokens,
         .must_compute_from = s.must_compute_from,
         .pages = {}};
    auto& queues = state_->queues;
    auto place = state_->find_queue(s.queue);
    if (place == queues.end()) place = queues.insert(queues.begin(), {s.queue});
    place->waiting.push_front(s.handle);
  }
  for (const int32_t page : state_->tree.clear()) state_->pool.give_back(page);
}

int64_t Scheduler::num_waiting() const { return state_->num_waiting(); }
int64_t Scheduler::num_running() const { return std::ssize(state_->running); }
bool Scheduler::is_running(int64_t sequence) const { return state_->get(sequence).admitted; }
int64_t Scheduler::num_free_pages() const { return state_->num_free(); }
int64_t Scheduler::num_touched_pages() const { return state_->pool.num_touched(); }
int64_t Scheduler::num_evictions() const { return state_->num_evictions; }

void Scheduler::check_integrity() const {
  const State& state = *state_;
  const int64_t size = state.options.page_tokens;
  state.tree.check_integrity();
  ERANK_CHECK(state.pinned.empty() && state.sources.empty());
  int64_t num_waiting = 0;
  for (const Queue& queue : state.queues) {
    ERANK_CHECK(!queue.waiting.empty(), "queue ", queue.number);
    num_waiting += std::ssize(queue.waiting);
  }
  ERANK_CHECK(num_waiting == state.num_waiting());
  std::vector<int> owners(state.options.num_pages), users(state.options.num_pages);
  int64_t num_reserved = 0;
  for (const Sequence* s : state.running) {
    num_reserved += s->reserved;
    ERANK_CHECK(0 <= s->num_shared && s->num_shared <= s->num_nodes &&
                s->num_nodes <= std::ssize(s->pages));
    ERANK_CHECK(std::ssize(s->pages) + s->reserved == state.pages_for(s->max_tokens));
    ERANK_CHECK(state.pages_for(s->computed) <= std::ssize(s->pages));
    ERANK_CHECK(s->computed <= std::ssize(s->ids) && std::ssize(s->ids) <= s->max_tokens);
    ERANK_CHECK(s->num_shared * size <= s->must_compute_from, "writes a shared page");
    for (int64_t i = 0; i < std::ssize(s->pages); ++i) {
      const int32_t page = s->pages[i];
      ERANK_CHECK(!state.pool.is_free(page), "page ", page);
      if (i >= s->num_shared) ++owners[page];
      if (i >= s->num_nodes) {
        ERANK_CHECK(!state.tree.contains(page), "page ", page);
        continue;
      }
      ++users[page];
      const auto key = state.tree.key(page);
      ERANK_CHECK(i * size + std::ssize(key) <= std::min(s->computed, s->must_compute_from));
      ERANK_CHECK(std::equal(key.begin(), key.end(), s->ids.begin() + i * size), "page ", page);
      ERANK_CHECK(state.tree.parent(page) == (i > 0 ? s->pages[i - 1] : -1), "page ", page);
      ERANK_CHECK(i >= s->num_shared || std::ssize(key) == size, "page ", page);
    }
  }
  ERANK_CHECK(num_reserved == state.num_reserved && num_reserved <= state.num_free());
  int64_t num_free = 0;
  for (int32_t page = 0; page < state.options.num_pages; ++page) {
    const bool free = state.pool.is_free(page), node = state.tree.contains(page);
    num_free += free;
    ERANK_CHECK(owners[page] <= 1, "page ", page, " has ", owners[page], " writers");
    ERANK_CHECK(int{free} + int{node} + int{!node && owners[page] == 1} == 1, "page ", page);
    ERANK_CHECK(!node || state.tree.users(page) == users[page], "page ", page);
    // Only full pages, which nobody writes any more, have more than one user.
    ERANK_CHECK(!node || users[page] <= 1 || std::ssize(state.tree.key(page)) == size);
  }
  ERANK_CHECK(num_free == state.pool.num_free());
}

}  // namespace erank::engine
