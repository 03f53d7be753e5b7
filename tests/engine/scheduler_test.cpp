#include "erank/engine/scheduler.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "erank/base/error.h"
#include "erank/base/random.h"

namespace erank::engine {
namespace {

// Plays the model: each slot of the cache remembers for which history (all ids up to and including
// its own) its key was computed, and every step is checked against the promises in the header.
class Simulation {
 public:
  explicit Simulation(const SchedulerOptions& options)
      : options_(options), scheduler(options), slots_(options.num_pages * options.page_tokens, 0) {}

  int64_t add(Ids ids, int64_t max_tokens, int64_t must_compute_from, int64_t queue = 0) {
    const int64_t handle = scheduler.add(ids, max_tokens, must_compute_from, queue);
    waiting_.push_back(handle);
    sequences_[handle] = {std::move(ids), max_tokens, must_compute_from, 0, queue};
    return handle;
  }

  Step step() {
    const Step step = scheduler.next();
    ++num_steps;
    int64_t num_tokens = 0;
    std::set<int32_t> written;
    for (const StepEntry& entry : step.entries) {
      auto& s = sequences_.at(entry.sequence);
      if (!running_.contains(entry.sequence)) admit(entry);
      EXPECT_EQ(entry.begin, s.computed) << "a token left out or computed again";
      EXPECT_LT(entry.begin, entry.end);
      EXPECT_LE(entry.end, std::ssize(s.ids));
      num_tokens += entry.end - entry.begin;
      s.computed = entry.end;
      EXPECT_EQ(scheduler.num_computed(entry.sequence), entry.end);
      for (int64_t i = entry.begin; i < entry.end; ++i) {
        EXPECT_TRUE(written.insert(slot(entry.sequence, i)).second) << "two writers of a slot";
        slots_[slot(entry.sequence, i)] = history(s.ids, i);
      }
    }
    EXPECT_LE(num_tokens, options_.max_batch_tokens);
    EXPECT_LE(std::ssize(running_), options_.max_sequences);
    std::set<int32_t> sources, destinations;
    for (const model::Batch::Copy& copy : step.copies) {
      sources.insert(copy.from_slot);
      EXPECT_TRUE(destinations.insert(copy.to_slot).second);
      EXPECT_TRUE(written.insert(copy.to_slot).second) << "two writers of a slot";
    }
    for (const int32_t s : sources) EXPECT_FALSE(destinations.contains(s));
    for (const model::Batch::Copy& copy : step.copies)
      slots_[copy.to_slot] = slots_[copy.from_slot];
    check_slots();
    check_writers();
    scheduler.check_integrity();
    EXPECT_EQ(scheduler.num_waiting(), std::ssize(waiting_));
    EXPECT_EQ(scheduler.num_running(), std::ssize(running_));
    return step;
  }

  void append(int64_t handle, const Ids& ids) {
    scheduler.append(handle, ids);
    auto& own = sequences_.at(handle).ids;
    own.insert(own.end(), ids.begin(), ids.end());
    EXPECT_EQ(scheduler.ids(handle), own);
    scheduler.check_integrity();
  }
  void truncate(int64_t handle, int64_t num_tokens) {
    scheduler.truncate(handle, num_tokens);
    auto& s = sequences_.at(handle);
    s.ids.resize(num_tokens);
    s.computed = std::min(s.computed, num_tokens);
    EXPECT_EQ(scheduler.num_computed(handle), s.computed);
    scheduler.check_integrity();
  }
  void restart() {
    scheduler.restart();
    waiting_.insert(waiting_.begin(), running_.begin(), running_.end());  // in order of add
    for (const int64_t handle : running_) {
      sequences_.at(handle).computed = 0;
      EXPECT_FALSE(scheduler.is_running(handle));
      EXPECT_EQ(scheduler.num_computed(handle), 0);
    }
    running_.clear();
    findable_.clear();
    std::fill(slots_.begin(), slots_.end(), 0);
    EXPECT_EQ(scheduler.num_free_pages(), options_.num_pages);
    scheduler.check_integrity();
  }
  void finish(int64_t handle) {
    scheduler.finish(handle);
    std::erase(waiting_, handle);
    sequences_.erase(handle);
    running_.erase(handle);
    scheduler.check_integrity();
  }

  // Finishes every sequence as soon as it is computed.
  void drain() {
    int idle = 0;
    while (!sequences_.empty()) {
      for (const int64_t handle : computed()) finish(handle);
      idle = step().entries.empty() && !sequences_.empty() ? idle + 1 : 0;
      ASSERT_LT(idle, 2) << sequences_.size() << " sequences do not move";
    }
    EXPECT_EQ(scheduler.num_free_pages(), options_.num_pages);
  }

  std::vector<int64_t> waiting() const { return {waiting_.begin(), waiting_.end()}; }
  std::vector<int64_t> running() const { return {running_.begin(), running_.end()}; }
  std::vector<int64_t> computed() const {  // of the running ones those that lack nothing
    std::vector<int64_t> out;
    for (const int64_t handle : running_) {
      const auto& s = sequences_.at(handle);
      if (s.computed == std::ssize(s.ids)) out.push_back(handle);
    }
    return out;
  }
  size_t size() const { return sequences_.size(); }

  struct Sequence {
    Ids ids;
    int64_t max_tokens, must_compute_from, computed, queue;
  };
  const Sequence& sequence(int64_t handle) const { return sequences_.at(handle); }

 private:
  void admit(const StepEntry& entry) {
    auto& s = sequences_.at(entry.sequence);
    const auto first = std::find_if(waiting_.begin(), waiting_.end(), [&](int64_t handle) {
      return sequences_.at(handle).queue == s.queue;
    });
    ASSERT_NE(first, waiting_.end());
    EXPECT_EQ(entry.sequence, *first) << "admitted out of order";
    waiting_.erase(first);
    running_.insert(entry.sequence);
    s.computed = scheduler.num_cached(entry.sequence);
    EXPECT_LE(s.computed, s.must_compute_from);
    if (expect_all_found) {
      const Ids findable(s.ids.begin(), s.ids.begin() + s.must_compute_from);
      int64_t best = 0;
      for (const Ids& other : findable_) {
        const size_t n = std::min(other.size(), findable.size());
        best = std::max<int64_t>(
            best, std::mismatch(other.begin(), other.begin() + n, findable.begin()).first -
                      other.begin());
      }
      EXPECT_EQ(s.computed, best);
      EXPECT_EQ(entry.end, std::ssize(s.ids)) << "a chunk, which this check does not follow";
      findable_.push_back(findable);
    }
  }

  int32_t slot(int64_t handle, int64_t position) const {
    const auto pages = scheduler.pages(handle);
    EXPECT_LT(position / options_.page_tokens, std::ssize(pages));
    return static_cast<int32_t>(pages[position / options_.page_tokens] * options_.page_tokens +
                                position % options_.page_tokens);
  }
  static uint64_t history(const Ids& ids, int64_t position) {
    uint64_t hash = 1;
    for (int64_t i = 0; i <= position; ++i) hash = base::derived_seed(hash, ids[i]);
    return hash;
  }
  void check_slots() const {
    for (const int64_t handle : running_) {
      const auto& s = sequences_.at(handle);
      uint64_t hash = 1;
      for (int64_t i = 0; i < s.computed; ++i) {
        hash = base::derived_seed(hash, s.ids[i]);
        ASSERT_EQ(slots_[slot(handle, i)], hash)
            << "sequence " << handle << " reads another history at position " << i;
      }
    }
  }
  void check_writers() const {
    std::map<int32_t, int> owners;
    for (const int64_t handle : running_) {
      const auto& s = sequences_.at(handle);
      const auto pages = scheduler.pages(handle);
      for (int64_t i = 0; i < std::ssize(pages); ++i) {
        // A page that reaches past what may be shared is written by this sequence.
        if ((i + 1) * options_.page_tokens > s.must_compute_from) ++owners[pages[i]];
      }
    }
    for (const auto& [page, n] : owners) ASSERT_EQ(n, 1) << "page " << page;
  }

  SchedulerOptions options_;

 public:
  Scheduler scheduler;
  int64_t num_steps = 0;
  bool expect_all_found = false;  // nothing is ever evicted or planned in parts

 private:
  std::vector<uint64_t> slots_;
  std::deque<int64_t> waiting_;
  std::set<int64_t> running_;
  std::map<int64_t, Sequence> sequences_;
  std::vector<Ids> findable_;
};

Ids range(int32_t begin, int32_t end) {
  Ids ids(end - begin);
  for (int32_t i = begin; i < end; ++i) ids[i - begin] = i;
  return ids;
}
Ids joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
int64_t planned(const Step& step) {
  int64_t n = 0;
  for (const auto& entry : step.entries) n += entry.end - entry.begin;
  return n;
}

TEST(Scheduler, SharesAPrefixPlannedInTheSameStep) {
  Simulation sim({.num_pages = 64, .page_tokens = 4});
  const Ids query = range(0, 10);  // two pages and a half
  std::vector<int64_t> handles;
  for (int32_t i = 0; i < 5; ++i) {
    handles.push_back(sim.add(joined(query, {100 + i, 200 + i, 300 + i}), 20, 12));
  }
  const Step step = sim.step();
  ASSERT_EQ(step.entries.size(), 5u);
  EXPECT_EQ(planned(step), 13 + 4 * 3) << "the query is computed once";
  EXPECT_EQ(step.copies.size(), 4u * 2) << "its last two tokens are taken over by copies";
  const auto first = sim.scheduler.pages(handles[0]);
  for (int i = 1; i < 5; ++i) {
    EXPECT_EQ(sim.scheduler.num_cached(handles[i]), 10);
    const auto pages = sim.scheduler.pages(handles[i]);
    EXPECT_EQ(pages[0], first[0]);
    EXPECT_EQ(pages[1], first[1]);
    EXPECT_NE(pages[2], first[2]);
  }
}

TEST(Scheduler, ComputesAnewFromWhereLogitsAreAsked) {
  Simulation sim({.num_pages = 64, .page_tokens = 4});
  const Ids ids = range(0, 12);
  sim.add(ids, 12, 11);
  const int64_t same = sim.add(ids, 12, 11);
  const int64_t early = sim.add(ids, 12, 2);
  sim.step();
  EXPECT_EQ(sim.scheduler.num_cached(same), 11);
  EXPECT_EQ(sim.scheduler.num_cached(early), 2);
}

TEST(Scheduler, SharesNothingWhenAskedNotTo) {
  Simulation sim({.num_pages = 64, .page_tokens = 4, .share_prefixes = false});
  const int64_t a = sim.add(range(0, 12), 12, 11), b = sim.add(range(0, 12), 12, 11);
  EXPECT_EQ(planned(sim.step()), 24);
  EXPECT_EQ(sim.scheduler.num_cached(b), 0);
  sim.finish(a);
  sim.finish(b);
  EXPECT_EQ(sim.scheduler.num_free_pages(), 64);
}

TEST(Scheduler, KeepsPrefixesOfEndedSequencesUntilTheirRoomIsNeeded) {
  Simulation sim({.num_pages = 4, .page_tokens = 4});
  const int64_t a = sim.add(range(0, 9), 9, 8);
  sim.step();
  sim.finish(a);
  EXPECT_EQ(sim.scheduler.num_free_pages(), 4);
  const int64_t b = sim.add(range(0, 9), 9, 8);
  sim.step();
  EXPECT_EQ(sim.scheduler.num_cached(b), 8);
  sim.finish(b);
  const int64_t c = sim.add(range(50, 66), 16, 15);  // needs all four pages
  sim.step();
  EXPECT_EQ(sim.scheduler.num_cached(c), 0);
  sim.finish(c);
  const int64_t d = sim.add(range(0, 9), 9, 8);
  sim.step();
  EXPECT_EQ(sim.scheduler.num_cached(d), 0) << "its pages were given away";
}

TEST(Scheduler, EvictsTheLeastRecentlyUsedFirst) {
  Simulation sim({.num_pages = 6, .page_tokens = 4});
  const auto once = [&](int32_t from) {
    const int64_t handle = sim.add(range(from, from + 9), 9, 8);
    sim.step();
    const int64_t cached = sim.scheduler.num_cached(handle);
    sim.finish(handle);
    return cached;
  };
  EXPECT_EQ(once(100), 0);
  EXPECT_EQ(once(200), 0);  // both findable: four pages of six
  EXPECT_EQ(once(100), 8);
  EXPECT_EQ(once(300), 0);  // two free pages and the end of 200
  EXPECT_EQ(once(100), 8);
  EXPECT_EQ(once(200), 4);
}

TEST(Scheduler, AdmitsInOrder) {
  Simulation sim({.num_pages = 4, .page_tokens = 4});
  const int64_t small = sim.add(range(0, 4), 8, 3);
  const int64_t large = sim.add(range(10, 14), 16, 3);
  const int64_t late = sim.add(range(20, 24), 4, 3);
  EXPECT_EQ(sim.step().entries.size(), 1u);
  EXPECT_EQ(sim.scheduler.num_waiting(), 2) << "the third would fit, but it is not its turn";
  sim.finish(small);
  EXPECT_EQ(sim.step().entries.at(0).sequence, large);
  sim.finish(large);
  EXPECT_EQ(sim.step().entries.at(0).sequence, late);
}

TEST(Scheduler, AdmitsSomeOfEachQueueInTurn) {
  Simulation sim({.num_pages = 64, .page_tokens = 4, .max_sequences = 4, .turn = 2});
  std::vector<int64_t> large, other;
  for (int32_t i = 0; i < 6; ++i) large.push_back(sim.add(range(10 * i, 10 * i + 4), 4, 3, 1));
  for (int32_t i = 6; i < 8; ++i) other.push_back(sim.add(range(10 * i, 10 * i + 4), 4, 3, 2));
  const auto admitted = [&] {
    std::vector<int64_t> handles;
    for (const StepEntry& entry : sim.step().entries) handles.push_back(entry.sequence);
    return handles;
  };
  EXPECT_EQ(admitted(), (std::vector{large[0], large[1], other[0], other[1]}));
  const int64_t small = sim.add(range(90, 94), 4, 3, 3);
  const int64_t late = sim.add(range(95, 99), 4, 3, 2);  // after the small one
  for (const int64_t handle : sim.running()) sim.finish(handle);
  EXPECT_EQ(admitted(), (std::vector{large[2], large[3], small, late}));
  // Who gives up gives its turn away.
  const int64_t gone = sim.add(range(80, 84), 4, 3, 4), next = sim.add(range(85, 89), 4, 3, 5);
  sim.finish(large[4]);
  sim.finish(large[5]);
  sim.finish(gone);
  sim.finish(small);
  EXPECT_EQ(admitted(), (std::vector{next}));
}

TEST(Scheduler, AlwaysFinishesWhatItAdmitted) {
  Simulation sim({.num_pages = 8, .page_tokens = 4});
  for (int32_t i = 0; i < 12; ++i) sim.add(joined(range(0, 5), {50 + i}), 24, 5);
  int steps = 0;
  while (sim.size() > 0) {
    sim.step();
    ASSERT_LT(++steps, 400);
    for (const int64_t handle : sim.computed()) {
      if (std::ssize(sim.sequence(handle).ids) == 24) {
        sim.finish(handle);
      } else {
        sim.append(handle, {7});
      }
    }
  }
}

TEST(Scheduler, AdmitsWhenThePageToCopyFromIsTheLastOne) {
  Simulation sim({.num_pages = 2, .page_tokens = 4});
  const int64_t a = sim.add(range(0, 4), 8, 3);
  sim.step();
  sim.finish(a);  // leaves {0, 1, 2} findable in one of the two pages
  const int64_t b = sim.add({0, 1, 9, 9, 9}, 8, 4);
  const Step step = sim.step();
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(sim.scheduler.num_cached(b), 0) << "it needs that page itself";
}

TEST(Scheduler, PlansLongPromptsInChunksAndSharesOnlyWhatIsPlanned) {
  Simulation sim({.num_pages = 64, .page_tokens = 4, .max_batch_tokens = 10});
  const int64_t a = sim.add(range(0, 23), 23, 22);
  const int64_t b = sim.add(joined(range(0, 21), {90}), 22, 21);
  EXPECT_EQ(sim.step().entries.size(), 1u);
  EXPECT_EQ(sim.scheduler.num_computed(a), 10);
  EXPECT_EQ(sim.scheduler.num_waiting(), 1);
  EXPECT_EQ(sim.step().entries.size(), 1u);
  const Step third = sim.step();
  ASSERT_EQ(third.entries.size(), 2u);
  EXPECT_EQ(third.entries[0].sequence, a);
  EXPECT_EQ(third.entries[1].begin, 21);
  EXPECT_EQ(sim.scheduler.num_cached(b), 21);
}

TEST(Scheduler, SharedPrefixesMakeRoomForMore) {
  const auto num_admitted = [](bool share) {
    Simulation sim({.num_pages = 16, .page_tokens = 4, .share_prefixes = share});
    for (int32_t i = 0; i < 8; ++i) sim.add(joined(range(0, 20), {100 + i, 1, 2}), 24, 22);
    return sim.step().entries.size();
  };
  EXPECT_EQ(num_admitted(false), 2u);
  EXPECT_EQ(num_admitted(true), 8u);
}

TEST(Scheduler, RestartsWhatRunsBeforeWhatWaitsAndForgetsPrefixes) {
  Simulation sim({.num_pages = 8, .page_tokens = 4, .max_sequences = 3});
  const int64_t ended = sim.add(range(0, 9), 9, 8);
  sim.step();
  sim.finish(ended);
  const int64_t a = sim.add(range(0, 9), 12, 8), b = sim.add(range(0, 7), 8, 6);
  sim.step();
  EXPECT_EQ(sim.scheduler.num_cached(a), 8);
  sim.append(a, {5});
  const int64_t c = sim.add(range(20, 24), 4, 3);
  const int64_t d = sim.add(range(20, 24), 4, 3);
  sim.restart();
  EXPECT_EQ(sim.waiting(), (std::vector<int64_t>{a, b, c, d}));
  const Step step = sim.step();
  ASSERT_EQ(step.entries.size(), 3u);
  EXPECT_EQ(step.entries[0].sequence, a);
  EXPECT_EQ(step.entries[0].begin, 0);
  EXPECT_EQ(step.entries[0].end, 10) << "with what was appended";
  EXPECT_EQ(sim.scheduler.num_cached(b), 6) << "of what is computed again";
}

TEST(Scheduler, RefusesWhatBreaksItsContract) {
  Scheduler scheduler({.num_pages = 2, .page_tokens = 4});
  EXPECT_TRUE(scheduler.fits(8));
  EXPECT_FALSE(scheduler.fits(9));
  EXPECT_THROW(scheduler.add({1, 2}, 9, 1), base::InternalError);
  EXPECT_THROW(scheduler.add({1, 2}, 8, 2), base::InternalError);
  EXPECT_THROW(scheduler.add({}, 8, 0), base::InternalError);
  EXPECT_THROW(scheduler.add({1, 2, 3}, 2, 0), base::InternalError);
  const int64_t a = scheduler.add({1, 2, 3}, 4, 1);
  EXPECT_THROW(scheduler.append(a, Ids{1}), base::InternalError) << "still waiting";
  scheduler.next();
  EXPECT_THROW(scheduler.truncate(a, 0), base::InternalError);
  EXPECT_THROW(scheduler.append(a, Ids{1, 2}), base::InternalError);
  scheduler.append(a, Ids{1});
  scheduler.finish(a);
  EXPECT_THROW(scheduler.ids(a), base::InternalError);
  EXPECT_THROW(Scheduler({.num_pages = 0}), base::InternalError);
}

TEST(Scheduler, TakesUnusedPrefixesBeforeTouchingNewPages) {
  Simulation sim({.num_pages = 1000, .page_tokens = 4, .max_unused_pages = 8});
  const Ids query = range(0, 16);  // four pages
  const auto serve = [&](const Ids& prefix, int32_t i) {
    Ids ids = prefix;
    for (int32_t k = 0; k < 9; ++k) ids.push_back(1000 + 16 * i + k);
    const int64_t handle = sim.add(ids, std::ssize(ids), std::ssize(ids) - 1);
    sim.step();
    const int64_t cached = sim.scheduler.num_cached(handle);
    sim.finish(handle);
    return cached;
  };
  for (int32_t i = 0; i < 200; ++i) EXPECT_EQ(serve(query, i), i == 0 ? 0 : 16) << i;
  EXPECT_LE(sim.scheduler.num_touched_pages(), 8 + 7);
  EXPECT_GT(sim.scheduler.num_evictions(), 300);
  // What several had in common outlives what came between.
  for (int32_t i = 200; i < 250; ++i) serve({}, i);
  EXPECT_EQ(serve(query, 250), 16);
  // But what several had in common long ago gives way.
  for (int32_t q = 1; q < 5; ++q)
    for (int32_t i = 0; i < 3; ++i) serve(range(20 * q, 20 * q + 16), 300 + 3 * q + i);
  EXPECT_EQ(serve(query, 350), 0);
  EXPECT_LE(sim.scheduler.num_touched_pages(), 8 + 7);
}

TEST(Scheduler, TheBoundOfUnusedPagesRefusesNothing) {
  Simulation sim({.num_pages = 12, .page_tokens = 4, .max_unused_pages = 0});
  const int64_t a = sim.add(range(0, 24), 24, 23), b = sim.add(range(50, 74), 24, 23);
  EXPECT_EQ(sim.step().entries.size(), 2u);
  EXPECT_EQ(sim.scheduler.num_touched_pages(), 12);
  sim.finish(a);
  sim.finish(b);
  const int64_t c = sim.add(range(100, 148), 48, 47);
  EXPECT_EQ(sim.step().entries.size(), 1u);
  sim.finish(c);
}

TEST(Scheduler, WhoWaitsMayBeTakenOut) {
  Simulation sim({.num_pages = 4, .page_tokens = 4});
  sim.add(range(0, 16), 16, 15);
  const int64_t b = sim.add(range(0, 16), 16, 15), c = sim.add(range(20, 36), 16, 15);
  sim.step();
  sim.finish(b);
  EXPECT_EQ(sim.scheduler.num_waiting(), 1);
  sim.finish(sim.running()[0]);
  EXPECT_EQ(sim.step().entries.at(0).sequence, c);
}

// New prompts begin as earlier ones do, with few ids, so that they meet in every possible way.
class Schedule {
 public:
  explicit Schedule(uint64_t seed) : random_(seed) {}

  SchedulerOptions options() {
    return {.num_pages = static_cast<int64_t>(4 + random_.below(40)),
            .page_tokens = static_cast<int>(1 + random_.below(6)),
            .max_batch_tokens = static_cast<int64_t>(1 + random_.below(40)),
            .max_sequences = static_cast<int64_t>(1 + random_.below(12)),
            .share_prefixes = random_.below(8) != 0,
            .max_unused_pages = static_cast<int64_t>(random_.below(30)) - 1,
            .turn = static_cast<int64_t>(1 + random_.below(3))};
  }

  void run(Simulation& sim, int64_t capacity, int num_ops) {
    for (int op = 0; op < num_ops; ++op) {
      if (sim.size() < 30 && random_.below(3) == 0) {
        add(sim, capacity);
      } else if (random_.below(2) == 0) {
        sim.step();
      } else {
        change(sim);
      }
      if (testing::Test::HasFailure()) return;
    }
    sim.drain();
  }

  void add(Simulation& sim, int64_t capacity) {
    Ids ids;
    if (!prompts_.empty() && random_.below(4) > 0) {
      const Ids& other = prompts_[random_.below(prompts_.size())];
      ids.assign(other.begin(), other.begin() + random_.below(other.size() + 1));
    }
    const int64_t more = 1 + random_.below(12);
    for (int64_t i = 0; i < more; ++i) ids.push_back(static_cast<int32_t>(random_.below(3)));
    if (std::ssize(ids) > capacity) ids.resize(capacity);
    const int64_t n = std::ssize(ids);
    const int64_t max_tokens = n + random_.below(std::min<int64_t>(capacity - n, 12) + 1);
    const int64_t must = random_.below(3) == 0 ? random_.below(n) : n - 1;
    prompts_.push_back(ids);
    if (prompts_.size() > 20) prompts_.erase(prompts_.begin());
    sim.add(std::move(ids), max_tokens, must, static_cast<int64_t>(random_.below(3)));
  }

 private:
  void change(Simulation& sim) {
    if (random_.below(40) == 0) {  // a pass may fail
      // Who runs lacks something, as in an engine's passes.
      const auto running = sim.running();
      if (std::all_of(running.begin(), running.end(), [&](int64_t handle) {
            const auto& s = sim.sequence(handle);
            return std::ssize(s.ids) > s.must_compute_from;
          }))
        sim.restart();
      return;
    }
    if (random_.below(20) == 0) {  // who waits may give up
      const auto waiting = sim.waiting();
      if (!waiting.empty()) sim.finish(waiting[random_.below(waiting.size())]);
      return;
    }
    // An unfinished prefill may be finished or cut too.
    const auto handles = random_.below(4) == 0 ? sim.running() : sim.computed();
    if (handles.empty()) return;
    const int64_t handle = handles[random_.below(handles.size())];
    const auto& s = sim.sequence(handle);
    const int64_t n = std::ssize(s.ids), room = s.max_tokens - n;
    const uint64_t what = random_.below(8);
    if (what < 5 && room > 0) {
      Ids ids(1 + random_.below(std::min<int64_t>(room, 5)));
      for (int32_t& id : ids) id = static_cast<int32_t>(random_.below(3));
      sim.append(handle, ids);
    } else if (what == 5) {
      sim.truncate(handle, s.must_compute_from + random_.below(n - s.must_compute_from + 1));
    } else if (what > 5) {
      sim.finish(handle);
    }
  }

  base::Random random_;
  std::vector<Ids> prompts_;
};

void run_schedule(uint64_t seed, int num_ops) {
  Schedule schedule(seed);
  const SchedulerOptions options = schedule.options();
  Simulation sim(options);
  schedule.run(sim, options.num_pages * options.page_tokens, num_ops);
}

TEST(Scheduler, EverySequenceReadsItsOwnHistoryInRandomSchedules) {
  for (uint64_t seed = 0; seed < 24; ++seed) {
    run_schedule(seed, 2000);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

RC_GTEST_PROP(Scheduler, EverySequenceReadsItsOwnHistoryForAnySeed, (uint64_t seed)) {
  run_schedule(seed, 60);
  RC_ASSERT(!testing::Test::HasFailure());
}

TEST(Scheduler, FindsTheLongestPrefixThatIsThere) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Schedule schedule(seed);
    Simulation sim({.num_pages = 4000, .page_tokens = 4, .max_batch_tokens = 100000});
    sim.expect_all_found = true;
    schedule.run(sim, 60, 300);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace erank::engine
