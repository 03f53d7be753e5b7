#include "erank/retrieve/posting_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "erank/base/random.h"

namespace erank::retrieve {
namespace {

TEST(PostingBlocks, ComeBackAsTheyWere) {
  base::Random random(5);
  for (int round = 0; round < 3000; ++round) {
    const uint64_t gap = uint64_t{1} << random.below(25);
    const uint64_t most = uint64_t{1} << random.below(32);
    uint32_t document = random.below(2) ? UINT32_MAX : static_cast<uint32_t>(random.below(1000));
    const uint32_t before = document;
    std::vector<Posting> postings;
    for (uint64_t n = 1 + random.below(kBlockPostings); n > 0; --n) {
      document += 1 + static_cast<uint32_t>(random.below(gap));
      postings.push_back({document, 1 + static_cast<uint32_t>(random.below(most))});
    }
    std::vector<uint64_t> words(random.below(3), 77);
    const size_t first = words.size();
    BlockEntry entry{};
    pack_block(postings, before, entry, words);
    EXPECT_EQ(entry.first_word, first);
    EXPECT_EQ(entry.last_document, postings.back().document);
    EXPECT_EQ(words.size() - first, block_words(entry, postings.size()));
    words.push_back(UINT64_MAX);  // what comes after makes no difference
    Block block;
    const auto* bytes = reinterpret_cast<const uint8_t*>(words.data() + first);
    ASSERT_TRUE(unpack_block(bytes, entry, postings.size(), before, block));
    for (size_t i = 0; i < postings.size(); ++i) {
      ASSERT_EQ(block.documents[i], postings[i].document) << round;
      ASSERT_EQ(block.counts[i], postings[i].count) << round;
    }
    ++entry.last_document;
    EXPECT_FALSE(unpack_block(bytes, entry, postings.size(), before, block));
  }
}

TEST(PostingBlocks, HoldTheLargestValues) {
  const std::vector<Posting> postings = {{0, UINT32_MAX}, {UINT32_MAX - 1, 1}};
  std::vector<uint64_t> words;
  BlockEntry entry{};
  pack_block(postings, UINT32_MAX, entry, words);
  words.push_back(0);
  Block block;
  ASSERT_TRUE(
      unpack_block(reinterpret_cast<const uint8_t*>(words.data()), entry, 2, UINT32_MAX, block));
  EXPECT_EQ(block.documents[1], UINT32_MAX - 1);
  EXPECT_EQ(block.counts[0], UINT32_MAX);
  entry.document_bits = 33;
  EXPECT_FALSE(
      unpack_block(reinterpret_cast<const uint8_t*>(words.data()), entry, 2, UINT32_MAX, block));
}

TEST(PostingBlocks, DocumentsOfBrokenWordsStayInOrderOrAreRefused) {
  base::Random random(9);
  int num_taken = 0;
  for (int round = 0; round < 100000; ++round) {
    std::vector<uint64_t> words(80);
    for (auto& word : words) word = random.below(3) ? 0 : random.below(UINT64_MAX);
    BlockEntry entry{};
    entry.document_bits = static_cast<uint8_t>(random.below(34));
    entry.count_bits = static_cast<uint8_t>(random.below(34));
    entry.last_document = static_cast<uint32_t>(random.below(300));
    const size_t num = 1 + random.below(kBlockPostings);
    Block block;
    if (!unpack_block(reinterpret_cast<const uint8_t*>(words.data()), entry, num, UINT32_MAX,
                      block))
      continue;
    ++num_taken;
    EXPECT_EQ(block.documents[num - 1], entry.last_document);
    EXPECT_TRUE(std::is_sorted(block.documents.begin(),
                               block.documents.begin() + static_cast<std::ptrdiff_t>(num),
                               std::less_equal<>()));
  }
  EXPECT_GT(num_taken, 20);
}

}  // namespace
}  // namespace erank::retrieve
