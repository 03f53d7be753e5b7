#include "erank/engine/prefix_tree.h"

#include <algorithm>

#include "erank/base/error.h"

namespace erank::engine {
namespace {

int common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<int>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

}  // namespace

PrefixTree::PrefixTree(int64_t num_pages, int page_tokens, int64_t max_favoured)
    : page_tokens_(page_tokens),
      max_favoured_(max_favoured),
      nodes_(num_pages),
      keys_(num_pages * page_tokens) {}

std::span<const int32_t> PrefixTree::key(int32_t page) const {
  return {keys_.data() + int64_t{page} * page_tokens_, static_cast<size_t>(nodes_[page].num_ids)};
}

const std::vector<int32_t>& PrefixTree::children_of(int32_t parent) const {
  return parent < 0 ? root_ : nodes_[parent].children;
}

std::vector<int32_t>& PrefixTree::children_of(int32_t parent) {
  return parent < 0 ? root_ : nodes_[parent].children;
}

size_t PrefixTree::position(const std::vector<int32_t>& children,
                            std::span<const int32_t> wanted) const {
  const auto less = [this](int32_t page, std::span<const int32_t> ids) {
    const auto own = key(page);
    return std::lexicographical_compare(own.begin(), own.end(), ids.begin(), ids.end());
  };
  return std::lower_bound(children.begin(), children.end(), wanted, less) - children.begin();
}

PrefixTree::Match PrefixTree::match(std::span<const int32_t> ids) const {
  Match match;
  int32_t parent = -1;
  while (!ids.empty()) {
    const auto wanted = ids.first(std::min<size_t>(ids.size(), page_tokens_));
    const auto& children = children_of(parent);
    const size_t at = position(children, wanted);
    int best = 0;
    for (size_t i = at > 0 ? at - 1 : 0; i <= at && i < children.size(); ++i) {
      const int common = common_prefix(key(children[i]), wanted);
      if (common > best) best = common, match.partial_page = children[i];
    }
    if (best < page_tokens_) {
      match.partial_tokens = best;
      break;
    }
    parent = match.partial_page;
    match.pages.push_back(parent);
    match.partial_page = -1;
    ids = ids.subspan(page_tokens_);
  }
  return match;
}

bool PrefixTree::insert(int32_t page, int32_t parent, std::span<const int32_t> key) {
  ERANK_CHECK(!contains(page) && !key.empty() && std::ssize(key) <= page_tokens_, "page ", page);
  ERANK_CHECK(parent < 0 || (nodes_[parent].num_ids == page_tokens_ && nodes_[parent].users > 0),
              "parent ", parent);
  auto& children = children_of(parent);
  const size_t at = position(children, key);
  if (at < children.size() && common_prefix(this->key(children[at]), key) == std::ssize(key)) {
    return false;
  }
  children.insert(children.begin() + static_cast<int64_t>(at), page);
  std::copy(key.begin(), key.end(), keys_.begin() + int64_t{page} * page_tokens_);
  Node& node = nodes_[page];
  node.parent = parent;
  node.num_ids = static_cast<int32_t>(key.size());
  node.users = 1;
  node.shared = false;
  ++num_nodes_;
  return true;
}

void PrefixTree::remove(int32_t page) {
  ERANK_CHECK(contains(page) && nodes_[page].users == 1, "page ", page);
  take_out(page);
}

void PrefixTree::take_out(int32_t page) {
  Node& node = nodes_[page];
  ERANK_CHECK(node.children.empty(), "page ", page);
  auto& siblings = children_of(node.parent);
  const size_t at = position(siblings, key(page));
  ERANK_CHECK(at < siblings.size() && siblings[at] == page, "page ", page);
  siblings.erase(siblings.begin() + static_cast<int64_t>(at));
  node.parent = -1;
  node.num_ids = 0;
  node.users = 0;
  --num_nodes_;
}

void PrefixTree::link(int32_t page, int32_t older) {
  Node& node = nodes_[page];
  node.older = older;
  node.newer = older < 0 ? oldest_ : nodes_[older].newer;
  (node.older < 0 ? oldest_ : nodes_[node.older].newer) = page;
  (node.newer < 0 ? newest_ : nodes_[node.newer].older) = page;
  ++num_unused_;
}

void PrefixTree::unlink(int32_t page) {
  Node& node = nodes_[page];
  if (page == last_usual_) last_usual_ = node.older;
  if (node.favoured) --num_favoured_;
  (node.older < 0 ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer < 0 ? newest_ : nodes_[node.newer].older) = node.older;
  node.older = node.newer = -1;
  node.favoured = false;
  --num_unused_;
}

void PrefixTree::use(int32_t page) {
  ERANK_CHECK(contains(page), "page ", page);
  Node& node = nodes_[page];
  if (node.users++ == 0) unlink(page);
  node.shared = true;
}

void PrefixTree::release(int32_t page) {
  Node& node = nodes_[page];
  ERANK_CHECK(contains(page) && node.users > 0, "page ", page);
  if (--node.users > 0) return;
  node.favoured = node.shared;
  if (!node.shared) {
    link(page, last_usual_);
    last_usual_ = page;
    return;
  }
  link(page, newest_);
  // The border moves over the oldest; no node changes its place.
  for (++num_favoured_; num_favoured_ > max_favoured_; --num_favoured_) {
    last_usual_ = last_usual_ < 0 ? oldest_ : nodes_[last_usual_].newer;
    nodes_[last_usual_].favoured = false;
  }
}

int32_t PrefixTree::evict() {
  const int32_t page = oldest_;
  if (page >= 0) {
    unlink(page);
    take_out(page);
  }
  return page;
}

std::vector<int32_t> PrefixTree::clear() {
  ERANK_CHECK(num_unused_ == num_nodes_, num_nodes_ - num_unused_, " nodes are in use");
  std::vector<int32_t> pages;
  for (int32_t page = evict(); page >= 0; page = evict()) pages.push_back(page);
  return pages;
}

void PrefixTree::check_integrity() const {
  const auto check_children = [this](int32_t parent) {
    const auto& children = children_of(parent);
    for (size_t i = 0; i < children.size(); ++i) {
      ERANK_CHECK(contains(children[i]) && nodes_[children[i]].parent == parent, "page ",
                  children[i]);
      ERANK_CHECK(position(children, key(children[i])) == i, "children of page ", parent);
    }
    return std::ssize(children);
  };
  int64_t num_children = check_children(-1), num_nodes = 0, num_unused = 0;
  for (int32_t page = 0; page < std::ssize(nodes_); ++page) {
    const Node& node = nodes_[page];
    if (!contains(page)) {
      ERANK_CHECK(node.users == 0 && node.children.empty() && node.parent == -1, "page ", page);
      continue;
    }
    ++num_nodes;
    if (node.users == 0) ++num_unused;
    num_children += check_children(page);
    ERANK_CHECK(node.users >= 0 && node.num_ids <= page_tokens_, "page ", page);
    ERANK_CHECK(node.children.empty() || node.num_ids == page_tokens_, "page ", page);
    ERANK_CHECK(node.users == 0 || node.parent < 0 || nodes_[node.parent].users > 0,
                "the ancestors of page ", page, " could be evicted under its user");
  }
  ERANK_CHECK(num_children == num_nodes && num_nodes == num_nodes_, num_children, " ", num_nodes);

  std::vector<bool> listed(nodes_.size());
  int64_t num_listed = 0, num_favoured = 0;
  bool usual = last_usual_ >= 0;
  for (int32_t page = oldest_, before = -1; page >= 0; before = page, page = nodes_[page].newer) {
    ERANK_CHECK(contains(page) && nodes_[page].users == 0 && nodes_[page].older == before, "page ",
                page);
    for (const int32_t child : nodes_[page].children) {
      ERANK_CHECK(listed[child], "page ", page, " would be evicted before its child ", child);
    }
    listed[page] = true;
    ++num_listed;
    ERANK_CHECK(nodes_[page].favoured == !usual, "page ", page, " is in the other part");
    num_favoured += nodes_[page].favoured;
    if (page == last_usual_) usual = false;
  }
  ERANK_CHECK(num_listed == num_unused && num_unused == num_unused_, num_listed, " ", num_unused);
  ERANK_CHECK(num_favoured == num_favoured_ && num_favoured_ <= max_favoured_, num_favoured);
}

}  // namespace erank::engine
