// Which cached tokens begin as a new sequence does. A tree over pages: a node is one page, its key
// are the ids whose keys and values the page's first slots hold, and its ancestors hold what comes
// before them. Only a full page has children.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace erank::engine {

// A node has users (sequences that read its page, or still write after its key). A user of a node
// uses all its ancestors too, so that a node without users has none below it.
//
// Nodes without users are in one list, in the order in which evict() takes them: first those that
// only one sequence has ever used (a passage's own tokens), then those that several have (a query's
// prefix), in each part the least recently released first. The second part has at most
// `max_favoured` nodes: its oldest ones count as of the first. Because users release a path from
// its end to its start, and who uses a node uses its ancestors, a node's children are always before
// it in the list, so that its front is a leaf. Every operation but match() costs O(log children);
// match() that for each page it passes. Not thread-safe.
class PrefixTree {
 public:
  PrefixTree(int64_t num_pages, int page_tokens, int64_t max_favoured);

  struct Match {
    std::vector<int32_t> pages;  // full pages that hold the first ids
    int32_t partial_page = -1;   // its first partial_tokens slots hold the next ids; -1: none
    int partial_tokens = 0;      // < page_tokens
  };
  // The longest prefix of `ids` that the tree holds.
  Match match(std::span<const int32_t> ids) const;

  // Adds `page` below `parent` (-1: the root) with one user. False, and nothing done, when another
  // child already begins with `key`, so that the page would never be found. REQUIRES: the page is
  // not in the tree, 0 < key.size() <= page_tokens, the parent is a full page in use.
  bool insert(int32_t page, int32_t parent, std::span<const int32_t> key);
  // Takes a page out; it belongs to the caller. REQUIRES: one user, no children.
  void remove(int32_t page);

  void use(int32_t page);      // by another sequence than the one that inserted it
  void release(int32_t page);  // REQUIRES: a user, who releases deeper nodes first

  // Takes out the first leaf of the list, for the caller to reuse. -1: there is none.
  int32_t evict();
  // Takes out every node; returns their pages. REQUIRES: no users.
  std::vector<int32_t> clear();

  bool contains(int32_t page) const { return nodes_[page].num_ids > 0; }
  int users(int32_t page) const { return nodes_[page].users; }
  int32_t parent(int32_t page) const { return nodes_[page].parent; }
  std::span<const int32_t> key(int32_t page) const;
  int64_t num_nodes() const { return num_nodes_; }
  int64_t num_evictable() const { return num_unused_; }  // nodes without users

  // Throws InternalError when the structure contradicts itself. O(num_pages).
  void check_integrity() const;

 private:
  struct Node {
    int32_t parent = -1;
    int32_t num_ids = 0;  // 0: not in the tree
    int32_t users = 0;
    int32_t older = -1, newer = -1;  // neighbours in the list of unused nodes
    bool shared = false;             // a second sequence has used it
    bool favoured = false;           // in the list's second part
    std::vector<int32_t> children;   // by key, lexicographically: the longest common prefix with
                                     // any ids is a neighbour of where they would be
  };

  const std::vector<int32_t>& children_of(int32_t parent) const;
  std::vector<int32_t>& children_of(int32_t parent);
  // Where `key` is or would be among `children`.
  size_t position(const std::vector<int32_t>& children, std::span<const int32_t> key) const;
  void link(int32_t page, int32_t older);  // into the list of unused nodes; -1: at its front
  void unlink(int32_t page);
  void take_out(int32_t page);

  int page_tokens_;
  int64_t max_favoured_;
  std::vector<Node> nodes_;    // by page
  std::vector<int32_t> keys_;  // [num_pages, page_tokens]
  std::vector<int32_t> root_;  // the root's children
  int64_t num_nodes_ = 0, num_unused_ = 0, num_favoured_ = 0;
  int32_t oldest_ = -1, newest_ = -1;
  int32_t last_usual_ = -1;  // the last node of the list's first part; -1: it is empty
};

}  // namespace erank::engine
