#include "erank/engine/prefix_tree.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>

#include "erank/base/error.h"
#include "erank/base/ids.h"
#include "erank/base/random.h"
#include "erank/engine/block_pool.h"

namespace erank::engine {
namespace {

using base::Ids;

TEST(BlockPool, GivesEachPageOnceAndTheLastReturnedFirst) {
  BlockPool pool(3);
  EXPECT_FALSE(pool.has_touched());
  EXPECT_EQ(pool.take(), 0);
  EXPECT_EQ(pool.take(), 1);
  EXPECT_EQ(pool.num_touched(), 2);
  EXPECT_EQ(pool.take(), 2);
  EXPECT_EQ(pool.take(), -1);
  pool.give_back(1);
  EXPECT_THROW(pool.give_back(1), base::InternalError);
  EXPECT_TRUE(pool.is_free(1));
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.has_touched());
  EXPECT_EQ(pool.take(), 1);
}

TEST(PrefixTree, FindsWholePagesAndThenTheLongestPartOfOne) {
  PrefixTree tree(8, 4, 0);
  ASSERT_TRUE(tree.insert(0, -1, Ids{1, 2, 3, 4}));
  ASSERT_TRUE(tree.insert(1, 0, Ids{5, 6, 7, 8}));
  ASSERT_TRUE(tree.insert(2, 0, Ids{5, 6, 9}));
  ASSERT_TRUE(tree.insert(3, -1, Ids{1, 2, 9}));

  auto match = tree.match(Ids{1, 2, 3, 4, 5, 6, 9, 1, 1});
  EXPECT_EQ(match.pages, (std::vector<int32_t>{0}));
  EXPECT_EQ(match.partial_page, 2);
  EXPECT_EQ(match.partial_tokens, 3);

  match = tree.match(Ids{1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(match.pages, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(match.partial_page, -1);

  match = tree.match(Ids{1, 2, 3});  // all that was asked, though the page holds more
  EXPECT_TRUE(match.pages.empty());
  EXPECT_EQ(match.partial_page, 0);
  EXPECT_EQ(match.partial_tokens, 3);

  match = tree.match(Ids{2, 2});
  EXPECT_EQ(match.partial_page, -1);
  EXPECT_EQ(match.partial_tokens, 0);
}

TEST(PrefixTree, RefusesAPageThatWouldNeverBeFound) {
  PrefixTree tree(8, 4, 0);
  ASSERT_TRUE(tree.insert(0, -1, Ids{1, 2, 3}));
  EXPECT_FALSE(tree.insert(1, -1, Ids{1, 2, 3}));
  EXPECT_FALSE(tree.insert(1, -1, Ids{1, 2}));
  EXPECT_FALSE(tree.contains(1));
  EXPECT_TRUE(tree.insert(1, -1, Ids{1, 2, 3, 4}));
  EXPECT_THROW(tree.insert(2, 0, Ids{5}), base::InternalError) << "below a page that is not full";
  EXPECT_TRUE(tree.insert(2, 1, Ids{5}));
  EXPECT_THROW(tree.remove(1), base::InternalError) << "it has a child";
  tree.check_integrity();
}

TEST(PrefixTree, EvictsLeastRecentlyUsedLeavesOnly) {
  PrefixTree tree(8, 2, 0);
  ASSERT_TRUE(tree.insert(0, -1, Ids{1, 1}));
  ASSERT_TRUE(tree.insert(1, 0, Ids{2, 2}));
  ASSERT_TRUE(tree.insert(2, 0, Ids{3, 3}));
  tree.use(0);  // 1 and 2 are two users' pages
  EXPECT_EQ(tree.evict(), -1) << "all are in use";
  tree.release(1), tree.release(0);
  tree.release(2), tree.release(0);
  tree.use(0), tree.use(1);
  tree.release(1), tree.release(0);
  tree.check_integrity();
  EXPECT_EQ(tree.num_evictable(), 3);
  EXPECT_EQ(tree.evict(), 2);
  EXPECT_EQ(tree.evict(), 1);
  EXPECT_EQ(tree.evict(), 0);
  EXPECT_EQ(tree.evict(), -1);
  EXPECT_EQ(tree.num_nodes(), 0);
}

TEST(PrefixTree, EvictsLastWhatSeveralHadInCommon) {
  PrefixTree tree(8, 2, 2);
  ASSERT_TRUE(tree.insert(0, -1, Ids{1, 1}));
  ASSERT_TRUE(tree.insert(1, 0, Ids{2, 2}));
  tree.use(0);  // a second one, with a page of its own
  ASSERT_TRUE(tree.insert(2, 0, Ids{3, 3}));
  tree.release(1), tree.release(0);
  tree.release(2), tree.release(0);
  ASSERT_TRUE(tree.insert(3, -1, Ids{4, 4}));
  tree.release(3);
  tree.check_integrity();
  for (const int32_t page : {1, 2, 3, 0}) EXPECT_EQ(tree.evict(), page);
}

// The tree against a list of (path, users, time of release) that is searched in full.
struct NaiveTree {
  struct Node {
    Ids path, key;
    int32_t parent;
    int users;
    int64_t released;
    bool shared, favoured;
  };
  std::map<int32_t, Node> nodes;
  int64_t clock = 0, max_favoured = 0;

  bool is_leaf(int32_t page) const {
    return std::none_of(nodes.begin(), nodes.end(),
                        [&](const auto& n) { return n.second.parent == page; });
  }
  int64_t longest_match(const Ids& ids) const {
    size_t best = 0;
    for (const auto& [page, node] : nodes) {
      const size_t n = std::min(ids.size(), node.path.size());
      best = std::max<size_t>(
          best, std::mismatch(ids.begin(), ids.begin() + n, node.path.begin()).first - ids.begin());
    }
    return static_cast<int64_t>(best);
  }
  void release(int32_t page) {
    Node& node = nodes.at(page);
    if (--node.users > 0) return;
    node.released = ++clock;
    node.favoured = node.shared;
    // The oldest of too many favoured ones comes last of the others.
    std::vector<Node*> favoured;
    for (auto& [other, n] : nodes)
      if (n.users == 0 && n.favoured) favoured.push_back(&n);
    std::sort(favoured.begin(), favoured.end(),
              [](const Node* a, const Node* b) { return a->released < b->released; });
    for (int64_t i = 0; i < std::ssize(favoured) - max_favoured; ++i) {
      favoured[i]->favoured = false;
      favoured[i]->released = ++clock;
    }
    for (size_t i = std::max<int64_t>(0, std::ssize(favoured) - max_favoured); i < favoured.size();
         ++i)
      favoured[i]->released = ++clock;
  }
  int32_t evict() {
    int32_t oldest = -1;
    for (const auto& [page, node] : nodes) {
      const auto earlier = [](const Node& a, const Node& b) {
        return a.favoured != b.favoured ? b.favoured : a.released < b.released;
      };
      if (node.users == 0 && (oldest < 0 || earlier(node, nodes.at(oldest)))) oldest = page;
    }
    EXPECT_TRUE(oldest < 0 || is_leaf(oldest));
    if (oldest >= 0) nodes.erase(oldest);
    return oldest;
  }
};

// Sequences over two ids come, use what matches, add their own pages, and go.
void compare_with_naive(base::Random& random, int num_ops) {
  constexpr int kPages = 40, kPageTokens = 3;
  const auto max_favoured = static_cast<int64_t>(random.below(12));
  PrefixTree tree(kPages, kPageTokens, max_favoured);
  BlockPool pool(kPages);
  NaiveTree naive;
  naive.max_favoured = max_favoured;
  std::vector<std::vector<int32_t>> users;  // each one's nodes, root first
  for (int op = 0; op < num_ops; ++op) {
    if (random.below(2) == 0 || users.empty()) {
      Ids ids(1 + random.below(14));
      for (int32_t& id : ids) id = static_cast<int32_t>(random.below(2));
      const auto match = tree.match(ids);
      ASSERT_EQ(std::ssize(match.pages) * kPageTokens + match.partial_tokens,
                naive.longest_match(ids));
      auto& nodes = users.emplace_back(match.pages);
      for (const int32_t page : nodes) {
        tree.use(page);
        ++naive.nodes.at(page).users;
        naive.nodes.at(page).shared = true;
      }
      for (size_t at = nodes.size() * kPageTokens; at < ids.size(); at += kPageTokens) {
        int32_t page = pool.take();
        if (page < 0) {
          page = tree.evict();
          ASSERT_EQ(page, naive.evict());
        }
        if (page < 0) break;
        const Ids key(ids.begin() + at, ids.begin() + std::min(at + kPageTokens, ids.size()));
        const int32_t parent = nodes.empty() ? -1 : nodes.back();
        Ids path = parent < 0 ? Ids{} : naive.nodes.at(parent).path;
        path.insert(path.end(), key.begin(), key.end());
        const bool covered = naive.longest_match(path) == std::ssize(path);
        ASSERT_EQ(tree.insert(page, parent, key), !covered);
        if (covered) {
          pool.give_back(page);
          break;
        }
        naive.nodes[page] = {path, key, parent, 1, 0, false, false};
        nodes.push_back(page);
      }
    } else {
      const size_t who = random.below(users.size());
      for (size_t i = users[who].size(); i-- > 0;) {
        tree.release(users[who][i]);
        naive.release(users[who][i]);
      }
      users.erase(users.begin() + static_cast<int64_t>(who));
    }
    tree.check_integrity();
    ASSERT_EQ(tree.num_nodes(), std::ssize(naive.nodes));
  }
}

TEST(PrefixTree, EqualsAFullSearchInRandomSchedules) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    base::Random random(seed);
    compare_with_naive(random, 300);
    if (HasFatalFailure()) return;
  }
}

RC_GTEST_PROP(PrefixTree, EqualsAFullSearchForAnySeed, (uint64_t seed)) {
  base::Random random(seed);
  compare_with_naive(random, 100);
  RC_ASSERT(!testing::Test::HasFatalFailure());
}

}  // namespace
}  // namespace erank::engine
